//! What a person meets before and around the commands: installation, shells, the manual, help, the formula,
//! the first run, the documents.

mod demo;
mod documents;
mod first_run;
mod formula;
mod help;
mod installed;
mod life;
mod manual;
mod messages;
mod security;
mod shells;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::sandbox::{Sandbox, finish};

/// The repository.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where the build and its libraries are.
fn target() -> PathBuf {
    root().join(std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}

/// `make` with the program under test in place of a release build, which it does not wait for.
fn make(goal: &str, variables: &[String]) -> Command {
    let mut make = Command::new("make");
    make.args(["--no-print-directory", "-o", "build", goal])
        .arg(format!("BINARY={}", env!("CARGO_BIN_EXE_mlx-cache")))
        .arg(format!("TARGET={}", target().display()))
        .args(variables)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .current_dir(root());
    make
}

/// A folder for this run of the tests, empty.
fn fresh(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if folder.exists() {
        std::fs::remove_dir_all(&folder).expect("an old folder goes");
    }
    std::fs::create_dir_all(&folder).expect("a folder");
    folder
}

/// The prefix of an installation by `make install`, made once.
fn installation() -> &'static Path {
    static PREFIX: OnceLock<PathBuf> = OnceLock::new();
    PREFIX.get_or_init(|| {
        let prefix = fresh("installed here");
        let outcome = finish(&mut make("install", &[format!("PREFIX={}", prefix.display())]));
        assert_eq!(outcome.status, 0, "{outcome:?}");
        prefix
    })
}

/// A program in an empty home with nothing but a PATH on which the installed `mlx-cache` is.
fn bare(program: &str, sandbox: &Sandbox) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("HOME", sandbox.home())
        .env("PATH", format!("{}/bin:/usr/local/bin:/usr/bin:/bin", installation().display()))
        .current_dir(sandbox.home());
    command
}

/// A tiny model that is always there.
fn tiny() -> PathBuf {
    root().join("fixtures/tiny/llama_tied")
}
