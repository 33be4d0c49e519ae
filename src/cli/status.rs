//! `mlx-cache status`

use clap::Args;

/// Show the store, other tools' caches, and the free disk space
///
///     mlx-cache status
///     mlx-cache status --json | jq .data.reclaimable_bytes
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct StatusArgs {}
