//! `mlx-cache show`

use clap::{Args, ValueHint};

/// Show one model: what it is, whether it runs here, and why not
///
///     mlx-cache show smollm2
///     mlx-cache show smollm2 --json | jq '.data.memory_estimate_bytes'
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct ShowArgs {
    /// A name, a part of one that is unambiguous, or a path
    #[arg(value_hint = ValueHint::AnyPath)]
    pub model: String,

    /// Its files with their sizes and digests
    #[arg(long)]
    pub files: bool,

    /// Its configuration: config.json, or the metadata of a GGUF file without the tokenizer
    #[arg(long)]
    pub config: bool,

    /// Its chat template
    #[arg(long)]
    pub template: bool,
}
