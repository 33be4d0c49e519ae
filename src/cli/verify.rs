//! `mlx-cache verify`

use std::path::PathBuf;

use clap::{Args, ValueEnum, ValueHint};

/// Check that models are what they should be, byte by byte
///
/// Without arguments every registered model is checked: those of the store, and adopted ones against what
/// they were when they were added. Other tools' caches are checked by what their own files tell (names that
/// are checksums, listings, manifests), without the network:
///
///     mlx-cache verify
///     mlx-cache verify smollm2 --repair
///     mlx-cache verify --source all --quick
///
/// The exit status is 4 when damage remains, and never 0 when nothing was checked.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct VerifyArgs {
    /// Names, parts of names that are unambiguous, or paths [default: all]
    pub model: Vec<String>,

    /// Check what is there
    #[arg(long, value_enum, value_delimiter = ',')]
    pub source: Vec<SourceChoice>,

    /// Check any other folder of models
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, conflicts_with = "model")]
    pub path: Vec<PathBuf>,

    /// Read no content: compare sizes, links, headers, and what is remembered of files that did not change
    #[arg(long)]
    pub quick: bool,

    /// Bring back what is damaged: from a good copy on this machine, else from the hub
    #[arg(long, conflicts_with = "quick")]
    pub repair: bool,

    /// Repair without asking
    #[arg(long, short, requires = "repair")]
    pub yes: bool,

    /// Files that are read at the same time [default: one a processor, at most 8]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=64))]
    pub jobs: Option<u8>,
}

/// A place that holds models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SourceChoice {
    /// Our own store
    Store,
    /// The Hugging Face cache
    Hf,
    /// Ollama's models
    Ollama,
    /// LM Studio's models
    Lmstudio,
    /// All of them, and adopted models
    All,
}
