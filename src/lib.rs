//! The program behind the `mlx-cache` command: parse, resolve the context, dispatch, render.

pub mod cancel;
pub mod cli;
pub mod commands;
pub mod context;
pub mod engine;
pub mod error;
pub mod fs;
pub mod ids;
pub mod output;
pub mod registry;
pub mod report;
pub mod settings;
pub mod store;
mod usage;

use std::ffi::OsString;
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use clap::Parser;

use crate::cancel::Cancel;
use crate::cli::{Cli, Command};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::output::Output;
use crate::report::Report;
use crate::settings::Settings;
use crate::settings::variables::Environment;

/// Runs the program with these arguments (the first is the program's name).
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let environment = Environment::of_process();
    match Cli::try_parse_from(&args) {
        Ok(cli) => {
            let output = Output::new(usage::style(&cli.global, &environment));
            ExitCode::from(answer(cli.command, output, &environment))
        }
        Err(error) => ExitCode::from(usage::answer(&args, &environment, &error)),
    }
}

/// Runs the command and prints what it reports; returns the exit status.
fn answer(command: Option<Command>, output: Output, environment: &Environment) -> u8 {
    let Some(command) = command else {
        return usage::no_command(&output);
    };
    let name = command.name();
    let loaded = fs::file_size_limit_is_an_error()
        .and_then(|()| Settings::load(environment))
        .and_then(|loaded| Ok((loaded, Cancel::on_signals()?)));
    let (loaded, cancel) = match loaded {
        Ok(parts) => parts,
        Err(error) => return output.error(Some(name), &error),
    };
    let context = Context { settings: loaded.settings, output, cancel };
    match loaded.problem {
        Some(problem) if command.tolerates_broken_settings() => context.output.warn(problem.message()),
        Some(problem) => return context.output.error(Some(name), &problem),
        None => {}
    }
    match guarded(|| commands::dispatch(command, &context)) {
        Ok(report) => context.output.report(&report),
        Err(error) => context.output.error(Some(name), &error),
    }
}

/// Turns a panic into an error: a defect of ours ends with a message and status like any failure.
fn guarded(work: impl FnOnce() -> Result<Report>) -> Result<Report> {
    let place = Arc::new(Mutex::new(String::new()));
    let noted = Arc::clone(&place);
    let shown = panic::take_hook();
    let backtrace = std::env::var_os("RUST_BACKTRACE").is_some_and(|value| value != "0");
    panic::set_hook(Box::new(move |info| {
        *noted.lock().unwrap_or_else(PoisonError::into_inner) = info.to_string();
        if backtrace {
            shown(info);
        }
    }));
    panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        let text = place.lock().unwrap_or_else(PoisonError::into_inner).replace('\n', " ");
        Err(Error::internal(text))
    })
}
