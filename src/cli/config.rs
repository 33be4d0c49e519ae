//! `mlx-cache config`

use clap::Args;

/// Show the settings in effect and where each comes from
#[derive(Debug, Args)]
pub struct ConfigArgs {}
