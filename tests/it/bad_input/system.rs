//! Systems that have no room, and command lines that make no sense.

use std::fs::OpenOptions;
use std::process::Stdio;

use super::*;

#[test]
fn an_answer_that_cannot_be_written_is_an_error() {
    let sandbox = Sandbox::new();
    let model = copy_of("llama_tied", &sandbox);
    for json in [&[][..], &["--json"], &["--stream-json"]] {
        let full = OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
        let output = sandbox
            .cmd(&["run"])
            .arg(&model)
            .args(["Hi", "-n", "4"])
            .args(json)
            .stdin(Stdio::null())
            .stdout(full)
            .stderr(Stdio::piped())
            .output()
            .expect("mlx-cache runs");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.starts_with("error: cannot write"), "{json:?}: {stderr}");
        assert!(matches!(output.status.code(), Some(1 | 5)), "{json:?}: {output:?}");
    }
}

#[test]
fn memory_that_does_not_suffice_is_told_before_it_is_taken() {
    let sandbox = Sandbox::new();
    let model = copy_of("llama_tied", &sandbox);
    let ask = |args: &[&str]| {
        let mut command = sandbox.cmd::<&str>(&[]);
        command.arg("run").arg(&model).args(["Hi", "-n", "2", "--json"]).args(args);
        ended(&mut command)
    };
    let error = refused(&ask(&["--memory-limit", "100kB"]), "a limit", "INSUFFICIENT_MEMORY", "limit");
    assert!(error["hint"].is_string());
    refused(&ask(&["--context", "100000000000"]), "a context of 10^11", "INSUFFICIENT_MEMORY", "context");
    assert_eq!(ask(&["--memory-limit", "100kB", "--force"]).status.code(), Some(0));
}

#[test]
fn command_lines_that_make_no_sense() {
    let sandbox = Sandbox::new();
    for (args, told) in [
        (&["fly", "--json"][..], "fly"),
        (&["run", "a", "b", "c", "--json"], "'c'"),
        (&["run", "--json", "--json=yes"], "--json"),
        (&["run", "--max-tokens", "--json"], "--max-tokens"),
        (&["config", "--json", "--no-such-flag"], "--no-such-flag"),
        (&["--color", "sometimes", "config", "--json"], "sometimes"),
    ] {
        let output = ended(sandbox.cmd::<&str>(&[]).args(args));
        refused(&output, &format!("{args:?}"), "INVALID_REQUEST", told);
    }
}

#[test]
fn a_standard_output_that_is_closed_is_no_crash() {
    let sandbox = Sandbox::new();
    let model = copy_of("llama_tied", &sandbox);
    let mut command =
        crate::run::shell(&sandbox, "exec \"$0\" run \"$1\" Hi -n 2 >&- 2>&- </dev/null", &model);
    let output = command.output().expect("a shell");
    // The standard library opens /dev/null in its place.
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}
