//! `mlx-cache doctor`

use clap::Args;

/// Check the machine, the store and the surroundings
///
///     mlx-cache doctor
///     mlx-cache doctor --fix
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct DoctorArgs {
    /// Repair what can be repaired without losing anything
    #[arg(long)]
    pub fix: bool,
}
