//! `mlx-cache import`

use std::path::PathBuf;

use clap::{Args, ValueHint};

/// Register the models of an export that are on this machine
///
/// Content of the store is found by its digest, adopted models where they were, or in the same place of this
/// machine's caches. What is not there is listed with the command that brings it.
///
///     mlx-cache import models.json
///     ssh other mlx-cache export | mlx-cache import -
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct ImportArgs {
    /// A file that `mlx-cache export` wrote; `-` is standard input
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: PathBuf,

    /// Hash what is there, instead of comparing sizes
    #[arg(long)]
    pub verify: bool,

    /// Only show what would be registered
    #[arg(long)]
    pub dry_run: bool,
}
