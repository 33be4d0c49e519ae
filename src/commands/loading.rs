//! How a command's flags and the settings say a model is to be loaded.

use crate::cli::run::EngineArgs;
use crate::engine::request::LoadOptions;
use crate::settings::Settings;

/// The flags before the settings.
pub(super) fn options(args: &EngineArgs, settings: &Settings) -> LoadOptions {
    LoadOptions {
        device: args.device.unwrap_or(settings.device.value),
        context: args.context,
        memory_limit: args.memory_limit.or(settings.memory_limit.value),
        force: args.force,
        threads: args.threads.or(settings.threads.value),
    }
}
