//! `mlx-cache`: keep every local AI model once, and run it at once.

use std::process::ExitCode;

fn main() -> ExitCode {
    mlx_cache::run(std::env::args_os())
}
