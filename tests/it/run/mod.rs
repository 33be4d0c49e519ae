//! `run`, as a user meets it.

mod adapters;
mod answers;
mod batch;
mod chat;
mod drafts;
mod formats;
mod prompt_cache;
mod reasoning;
mod requests;
mod sampling;
mod stopping;

use std::ffi::OsStr;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::sandbox::{self, Sandbox};

/// A tiny random model: a context of 256 tokens, of which most are single bytes, and a chat template.
fn tiny() -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/tiny/llama_tied");
    path.to_str().expect("a path in UTF-8").to_owned()
}

/// SmolLM2-135M-Instruct as GGUF.
fn smollm2() -> String {
    sandbox::smollm2().to_str().expect("a path in UTF-8").to_owned()
}

/// `mlx-cache run ARGS` with nothing on standard input.
fn run(home: &Sandbox, args: &[&str]) -> Output {
    command(home, args).stdin(Stdio::null()).output().expect("mlx-cache runs")
}

/// `mlx-cache run ARGS` with these bytes on standard input.
fn run_with_input(home: &Sandbox, args: &[&str], input: &[u8]) -> Output {
    let mut child = command(home, args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("mlx-cache runs");
    // The program may refuse the arguments and never read.
    let _ = child.stdin.take().expect("a pipe").write_all(input);
    child.wait_with_output().expect("mlx-cache ends")
}

fn command(home: &Sandbox, args: &[&str]) -> Command {
    let mut command = home.cmd(&["run"]);
    command.args(args);
    command
}

/// A shell script whose `$0` is the program and `$1` what is given.
pub fn shell(home: &Sandbox, script: &str, argument: &(impl AsRef<OsStr> + ?Sized)) -> Command {
    let program = home.cmd::<&str>(&[]).get_program().to_owned();
    let mut command = Command::new("/bin/sh");
    command
        .env_clear()
        .env("HOME", home.home())
        .current_dir(home.home())
        .arg("-c")
        .arg(script)
        .arg(program)
        .arg(argument);
    command
}

/// Registers a model under a name.
fn add(home: &Sandbox, path: &str, name: &str) {
    let outcome = home.run(&["add", path, "--name", name]);
    assert_eq!(outcome.status, 0, "{outcome:?}");
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

/// The data of a command that did its work.
fn data(output: &Output) -> Value {
    assert!(output.status.success(), "{output:?}");
    let mut envelope = sandbox::envelope(text(&output.stdout));
    assert_eq!(envelope["status"], "ok");
    envelope["data"].take()
}

/// The error of a command that failed with this status.
fn error(output: &Output, status: i32) -> Value {
    assert_eq!(output.status.code(), Some(status), "{output:?}");
    let mut envelope = sandbox::envelope(text(&output.stdout));
    assert_eq!(envelope["status"], "error");
    envelope["error"].take()
}
