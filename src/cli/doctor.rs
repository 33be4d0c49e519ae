//! `mlx-cache doctor`

use clap::Args;

/// Check the machine, the store and the surroundings
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Repair what can be repaired without losing anything
    #[arg(long)]
    pub fix: bool,
}
