//! `mlx-cache status`

use clap::Args;

/// Show what the store and other tools' caches hold, and the free disk space
#[derive(Debug, Args)]
pub struct StatusArgs {}
