//! The program behind the `mlx-cache` command: parse, resolve the context, dispatch, render.

pub mod cancel;
pub mod cli;
pub mod commands;
pub mod context;
pub mod dedupe;
pub mod engine;
pub mod error;
pub mod fs;
pub mod hub;
pub mod ids;
pub mod output;
pub mod registry;
pub mod report;
pub mod settings;
pub mod sources;
pub mod store;
mod usage;
pub mod verify;

use std::ffi::OsString;
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use clap::FromArgMatches;

use crate::cancel::Cancel;
use crate::cli::{Cli, Command};
use crate::context::Context;
use crate::error::{Code, Error, Result};
use crate::output::Output;
use crate::report::Report;
use crate::settings::Settings;
use crate::settings::variables::Environment;

/// Runs the program with these arguments (the first is the program's name).
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    if cli::completions::answer(&args, commands::completions::model_names) {
        return ExitCode::SUCCESS;
    }
    let environment = Environment::of_process();
    match cli::help::command().try_get_matches_from(&args).and_then(|matches| Cli::from_arg_matches(&matches))
    {
        Ok(cli) => {
            let output = Output::new(usage::style(&cli, &environment));
            ExitCode::from(answer(cli.command, output, environment))
        }
        Err(error) => ExitCode::from(usage::answer(&args, &environment, &error)),
    }
}

/// Runs the command and prints what it reports; returns the exit status. Without a command it tells what is
/// on this machine if that is worth more than help.
fn answer(command: Option<Command>, output: Output, environment: Environment) -> u8 {
    let name = command.as_ref().map(Command::name);
    let wants_help = command.is_none() && !output.is_json();
    let loaded = fs::file_size_limit_is_an_error()
        .and_then(|()| Settings::load(&environment))
        .and_then(|loaded| Ok((loaded, Cancel::on_signals()?)));
    let (loaded, cancel) = match loaded {
        Ok(parts) => parts,
        Err(_) if wants_help => return usage::no_command(&output),
        Err(error) => return output.error(name, &error),
    };
    if let Some(problem) = &loaded.problem
        && !command.as_ref().is_some_and(Command::tolerates_broken_settings)
    {
        return if wants_help { usage::no_command(&output) } else { output.error(name, problem) };
    }
    let context = Context { settings: loaded.settings, problem: loaded.problem, environment, output, cancel };
    let done = guarded(|| match command {
        Some(command) => commands::dispatch(command, &context).map(Some),
        None => Ok(commands::recommend::first_run(&context)?.map(Report::from)),
    });
    match done {
        Ok(Some(report)) => context.output.report(&report),
        Ok(None) => usage::no_command(&context.output),
        Err(error) if wants_help && error.code() != Code::Interrupted => usage::no_command(&context.output),
        Err(error) => context.output.error(name, &error),
    }
}

/// Turns a panic into an error: a defect of ours ends with a message and a status like any failure.
fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let seen = Arc::new(Mutex::new(String::new()));
    let before = Arc::new(panic::take_hook());
    let backtrace = std::env::var_os("RUST_BACKTRACE").is_some_and(|value| value != "0");
    let (noted, shown) = (Arc::clone(&seen), Arc::clone(&before));
    let this = thread::current().id();
    panic::set_hook(Box::new(move |info| {
        if thread::current().id() == this {
            *noted.lock().unwrap_or_else(PoisonError::into_inner) = info.to_string();
        }
        if backtrace {
            shown(info);
        }
    }));
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    panic::set_hook(Box::new(move |info| before(info)));
    result.unwrap_or_else(|_| {
        let text = seen.lock().unwrap_or_else(PoisonError::into_inner).replace('\n', " ");
        Err(Error::internal(text))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error_that_says_where() {
        let error = guarded::<()>(|| panic!("wheels came off")).expect_err("a panic");
        assert_eq!(error.code(), Code::Internal);
        assert!(
            error.message().contains("wheels came off") && error.message().contains("src/lib.rs"),
            "{error}"
        );
        assert!(error.hint_text().is_some_and(|hint| hint.contains("report")));
    }
}
