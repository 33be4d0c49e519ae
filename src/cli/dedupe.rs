//! `mlx-cache dedupe`

use std::path::PathBuf;

use clap::{Args, ValueEnum, ValueHint};

/// Keep equal files of all tools once on disk
///
/// Looks for equal files in the caches of Hugging Face, Ollama and LM Studio, in the store and in any
/// folder named, and shows what could be replaced by links. Nothing else happens without --apply. Every
/// tool goes on working, and --undo gives each its own files back:
///
///     mlx-cache dedupe
///     mlx-cache dedupe --apply
///     mlx-cache dedupe --path /data/models --strategy hardlink --apply
///     mlx-cache dedupe --undo
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct DedupeArgs {
    /// Only these caches [default: all that exist]
    #[arg(long, value_name = "NAME", value_enum, value_delimiter = ',')]
    pub source: Vec<SourceName>,

    /// A further folder with models
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub path: Vec<PathBuf>,

    /// How copies are replaced; docs/dedupe.md tells when to prefer which
    #[arg(long, value_enum, default_value_t)]
    pub strategy: Strategy,

    /// Leave smaller files alone
    #[arg(long, value_name = "SIZE", default_value = "64KiB", value_parser = size)]
    pub min_size: u64,

    /// Do what is shown
    #[arg(long)]
    pub apply: bool,

    /// Give files back: all, those of a group (the beginning of its digest), or those at or below a path
    #[arg(
        long,
        value_name = "WHAT",
        num_args = 0..=1,
        default_missing_value = "all",
        conflicts_with_all = ["source", "path", "apply", "strategy", "min_size"]
    )]
    pub undo: Option<String>,

    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
}

/// A place where files are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SourceName {
    /// The Hugging Face cache
    Hf,
    /// Ollama's models
    Ollama,
    /// LM Studio's models
    Lmstudio,
    /// The store of mlx-cache
    Store,
}

impl SourceName {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hf => "hf",
            Self::Ollama => "ollama",
            Self::Lmstudio => "lmstudio",
            Self::Store => "store",
        }
    }
}

/// How copies are replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Strategy {
    /// The content moves into the store; each file becomes a symlink to it
    #[default]
    Symlink,
    /// The files become names of one file
    Hardlink,
    /// The files stay files and share their blocks: APFS, btrfs, XFS
    Reflink,
    /// reflink where the filesystem has it, else hardlink
    Auto,
}

fn size(text: &str) -> Result<u64, String> {
    if text.trim() == "0" {
        return Ok(0);
    }
    crate::settings::value::parse_bytes(text).map_err(|error| error.to_string())
}
