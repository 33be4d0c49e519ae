//! `completions`: scripts for shells, and the names that they complete.

use crate::cli::completions::{CompletionsArgs, script};
use crate::error::Result;
use crate::report::completions::CompletionsReport;
use crate::settings::Settings;
use crate::settings::variables::Environment;
use crate::store::Store;

pub fn run(args: &CompletionsArgs) -> Result<CompletionsReport> {
    Ok(CompletionsReport { shell: args.shell.name().to_owned(), script: script(args.shell)? })
}

/// What stands for a model on this machine: names of models and the user's aliases. Nothing if the
/// store cannot be read: a shell is no place for errors.
pub fn model_names() -> Vec<String> {
    let Ok(loaded) = Settings::load(&Environment::of_process()) else { return Vec::new() };
    let snapshots = Store::at(&loaded.settings.home.value).snapshots().unwrap_or_default();
    let mut names: Vec<String> = snapshots.iter().map(|snapshot| snapshot.name.to_string()).collect();
    names.extend(loaded.settings.aliases.into_keys());
    names.sort_unstable();
    names.dedup();
    names
}
