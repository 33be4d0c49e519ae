//! `mlx-cache config`

use clap::{Args, Subcommand};

/// Show the settings in effect and where each comes from, or change config.toml
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct ConfigArgs {
    #[command(subcommand)]
    pub action: Option<ConfigAction>,
}

#[derive(Debug, Subcommand)]
pub enum ConfigAction {
    /// Print the value in effect of one setting
    Get {
        /// A name from the first column of `mlx-cache config`
        key: String,
    },
    /// Write a value into config.toml
    Set {
        /// default_model, memory_limit, offline, auto_pull, device, threads or aliases.NAME
        key: String,
        value: String,
    },
    /// Take a setting out of config.toml
    Unset {
        /// default_model, memory_limit, offline, auto_pull, device, threads or aliases.NAME
        key: String,
    },
}

impl ConfigArgs {
    /// Whether config.toml is to be changed, which takes a sound one.
    pub fn edits(&self) -> bool {
        matches!(self.action, Some(ConfigAction::Set { .. } | ConfigAction::Unset { .. }))
    }
}
