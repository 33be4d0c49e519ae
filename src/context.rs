//! What every command gets besides its arguments.

use crate::cancel::Cancel;
use crate::error::Error;
use crate::output::Output;
use crate::settings::Settings;
use crate::settings::variables::Environment;

/// The surroundings of one command.
#[derive(Debug)]
pub struct Context {
    /// What holds for this run: environment, config.toml, defaults.
    pub settings: Settings,
    /// What of the settings could not be read; only commands that tell about it run then.
    pub problem: Option<Error>,
    /// What the settings were made from, besides config.toml.
    pub environment: Environment,
    /// The only way to stdout and stderr.
    pub output: Output,
    /// Whether the user asked to stop; long work polls it.
    pub cancel: Cancel,
}
