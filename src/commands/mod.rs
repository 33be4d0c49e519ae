//! The commands, one file each: arguments and context in, a report out. Nothing here prints.

pub mod config;

use crate::cli::Command;
use crate::context::Context;
use crate::error::Result;
use crate::report::Report;

/// Runs one command.
pub fn dispatch(command: Command, context: &Context) -> Result<Report> {
    match command {
        Command::Config(args) => config::run(&args, context).map(Report::from),
    }
}
