//! `mlx-cache export`

use std::path::PathBuf;

use clap::{Args, ValueHint};

/// Write what the registry knows of all models as JSON
///
/// Names, revisions, files with their digests, and where they lie; no content and no settings. On another
/// machine, or after a loss, `mlx-cache import` registers what is there of it and says how to get the rest:
///
///     mlx-cache export models.json
///     mlx-cache export | ssh other mlx-cache import -
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct ExportArgs {
    /// Where to write it; `-` is standard output
    #[arg(default_value = "-", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,

    /// Replace a file that exists
    #[arg(long)]
    pub force: bool,
}
