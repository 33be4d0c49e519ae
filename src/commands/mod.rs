//! The commands, one file each: arguments and context in, a report out. Nothing here prints.

pub mod add;
mod aliases;
pub mod bench;
pub mod completions;
pub mod config;
pub mod dedupe;
pub mod doctor;
pub mod embed;
mod export;
mod facts;
mod foreign;
pub mod gc;
mod import;
pub mod link;
pub mod list;
mod loading;
pub mod man;
pub mod path;
mod pieces;
pub mod pull;
pub mod recommend;
pub mod resolve;
pub mod rm;
pub mod run;
mod session;
pub mod show;
pub mod status;
mod used_by;
pub mod verify;

use crate::cli::Command;
use crate::context::Context;
use crate::error::Result;
use crate::report::Report;

/// Runs one command.
pub fn dispatch(command: Command, context: &Context) -> Result<Report> {
    if command.changes_the_store() {
        dedupe::settle(context);
    }
    match command {
        Command::Run(args) => run::run(&args, context),
        Command::Embed(args) => embed::run(&args, context).map(Report::from),
        Command::Bench(args) => bench::run(&args, context).map(Report::from),
        Command::Pull(args) => pull::run(&args, context).map(Report::from),
        Command::Add(args) => add::run(&args, context).map(Report::from),
        Command::List(args) => list::run(&args, context).map(Report::from),
        Command::Show(args) => show::run(&args, context).map(Report::from),
        Command::Path(args) => path::run(&args, context).map(Report::from),
        Command::Rm(args) => rm::run(&args, context).map(Report::from),
        Command::Link(args) => link::run(&args, context).map(Report::from),
        Command::Dedupe(args) => dedupe::run(&args, context).map(Report::from),
        Command::Verify(args) => verify::run(&args, context).map(Report::from),
        Command::Export(args) => export::run(&args, context).map(Report::from),
        Command::Import(args) => import::run(&args, context).map(Report::from),
        Command::Gc(args) => gc::run(&args, context).map(Report::from),
        Command::Recommend(args) => recommend::run(&args, context).map(Report::from),
        Command::Config(args) => config::run(&args, context).map(Report::from),
        Command::Doctor(args) => doctor::run(&args, context).map(Report::from),
        Command::Status(args) => status::run(&args, context).map(Report::from),
        Command::Completions(args) => completions::run(&args).map(Report::from),
        Command::Man(args) => man::run(&args).map(Report::from),
    }
}
