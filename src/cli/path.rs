//! `mlx-cache path`

use clap::{Args, ValueHint};

/// Print the folder or file of a model, for other programs
///
///     mlx_lm.generate --model "$(mlx-cache path smollm2)" --prompt "Hello"
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct PathArgs {
    /// A name, or a part of one that is unambiguous
    #[arg(value_hint = ValueHint::AnyPath)]
    pub model: String,
}
