//! What every command gets besides its arguments.

use crate::cancel::Cancel;
use crate::output::Output;
use crate::settings::Settings;

/// The surroundings of one command.
#[derive(Debug)]
pub struct Context {
    /// What holds for this run: environment, config.toml, defaults.
    pub settings: Settings,
    /// The only way to stdout and stderr.
    pub output: Output,
    /// Whether the user asked to stop; long work polls it.
    pub cancel: Cancel,
}
