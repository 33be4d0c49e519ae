//! The program behind the `mlx-cache` command: parse, resolve the context, dispatch, render.

pub mod engine;
pub mod error;
pub mod fs;
pub mod ids;
pub mod registry;
pub mod store;

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs the program with these arguments (the first is the program's name).
pub fn run(_args: impl IntoIterator<Item = OsString>) -> ExitCode {
    ExitCode::SUCCESS
}
