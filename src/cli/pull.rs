//! `mlx-cache pull`

use clap::Args;

use crate::ids::RevisionSpec;
use crate::settings::value::Token;

/// Fetch models from the Hugging Face Hub
///
/// Fetches what running a model takes: weights, configuration, tokenizer, templates. What is on this
/// machine already, in the store or in another tool's cache, is copied from there. Whatever arrives is
/// checked against the hub's checksums; what was interrupted goes on where it ended:
///
///     mlx-cache pull HuggingFaceTB/SmolLM2-135M-Instruct
///     mlx-cache pull bartowski/Llama-3.2-1B-Instruct-GGUF:Q4_K_M
///     mlx-cache pull org/name@v2 --include '*.json' --dry-run
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub struct PullArgs {
    /// Repositories: org/name, with @REVISION or :QUANTIZATION if need be, a short name, or a URL
    #[arg(required = true)]
    pub model: Vec<String>,

    /// Branch, tag or commit [default: main]
    #[arg(long, value_name = "REVISION")]
    pub revision: Option<RevisionSpec>,

    /// Fetch the files that match, in place of those that running the model takes; can be given several
    /// times
    #[arg(long, value_name = "GLOB")]
    pub include: Vec<String>,

    /// Leave out the files that match; can be given several times
    #[arg(long, value_name = "GLOB")]
    pub exclude: Vec<String>,

    /// Fetch everything that the repository holds
    #[arg(long, conflicts_with = "include")]
    pub all_files: bool,

    /// The hub's access token; other users of this machine may see it here, HF_TOKEN they do not
    #[arg(long, value_name = "TOKEN", value_parser = Token::given)]
    pub token: Option<Token>,

    /// Files, or parts of large ones, that are fetched at the same time
    #[arg(long, short, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub jobs: u8,

    /// Only show what would be fetched, from where, and what is here already
    #[arg(long)]
    pub dry_run: bool,

    /// Fetch everything anew, even what is here
    #[arg(long, short)]
    pub force: bool,

    /// Print each event as a line of JSON while it happens; the last line is what --json prints
    #[arg(long)]
    pub progress_json: bool,
}
