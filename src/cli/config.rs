//! `mlx-cache config`

use clap::{Args, Subcommand};

/// Show the settings in effect and their origins, or change them
///
///     mlx-cache config
///     mlx-cache config set memory_limit 8GB
///     mlx-cache config get device
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
#[command(args_conflicts_with_subcommands = true)]
pub struct ConfigArgs {
    #[command(subcommand)]
    pub action: Option<ConfigAction>,
}

#[derive(Debug, Subcommand)]
pub enum ConfigAction {
    /// Print the value in effect of one setting
    ///
    ///     mlx-cache config get device
    #[command(verbatim_doc_comment)]
    Get {
        /// A name from the first column of `mlx-cache config`
        key: String,
    },
    /// Write a value into config.toml
    ///
    ///     mlx-cache config set aliases.small HuggingFaceTB/SmolLM2-135M-Instruct
    #[command(verbatim_doc_comment)]
    Set {
        /// default_model, memory_limit, offline, auto_pull, device, threads or aliases.NAME
        key: String,
        value: String,
    },
    /// Take a setting out of config.toml
    ///
    ///     mlx-cache config unset memory_limit
    #[command(verbatim_doc_comment)]
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
