//! What holds for every command: the envelope, usage errors, colours, quiet, closed pipes, signals.

use std::ffi::OsStr;
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use clap::CommandFactory;
use mlx_cache::cli::Cli;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::sandbox::{Outcome, Sandbox, finish, json};

const ESCAPE: char = '\u{1b}';

fn commands() -> Vec<String> {
    let commands: Vec<_> = Cli::command().get_subcommands().map(|it| it.get_name().to_owned()).collect();
    assert!(!commands.is_empty());
    commands
}

#[test]
fn every_command_explains_itself_and_takes_the_global_flags() {
    let sandbox = Sandbox::new();
    for command in commands() {
        let help = sandbox.run(&[&command, "--help"]);
        assert_eq!((help.status, help.stderr.as_str()), (0, ""), "{command}");
        for flag in ["--json", "--color", "--quiet", "--verbose"] {
            assert!(help.stdout.contains(flag), "{command} does not take {flag}");
        }
    }
    assert!(!sandbox.store().exists(), "help touches nothing");
}

#[test]
fn a_usage_error_under_json_is_an_envelope_of_its_command() {
    let sandbox = Sandbox::new();
    for command in commands() {
        let (status, envelope) = sandbox.json(&[&command, "--no-such-flag"]);
        assert_eq!(status, 2, "{command}");
        assert_eq!(envelope["command"], command.as_str());
        let error = &envelope["error"];
        assert_eq!((&error["code"], &error["retryable"]), (&"INVALID_REQUEST".into(), &false.into()));
        assert!(error["message"].as_str().is_some_and(|text| text.contains("--no-such-flag")), "{error}");
        assert!(error["hint"].is_string(), "{error}");
    }
    let (status, envelope) = sandbox.json(&["no-such-command"]);
    assert_eq!((status, &envelope["command"]), (2, &Value::Null));
    assert_eq!(sandbox.json(&["--color", "blue", "config"]).0, 2);
}

#[test]
fn a_usage_error_without_json_is_two_lines_on_stderr() {
    let sandbox = Sandbox::new();
    let Outcome { status, stdout, stderr } = sandbox.run(&["config", "--no-such-flag"]);
    assert_eq!((status, stdout.as_str()), (2, ""));
    let lines: Vec<_> = stderr.lines().collect();
    assert!(
        matches!(lines[..], [error, hint] if error.starts_with("error: unexpected argument '--no-such-flag'")
            && hint.starts_with("hint: ")),
        "{stderr}"
    );
}

#[test]
fn an_argument_that_is_not_utf_8_is_a_usage_error() {
    let sandbox = Sandbox::new();
    let args = [OsStr::new("config"), OsStr::new("get"), OsStr::from_bytes(b"\xff\xfe")];
    let (status, envelope) = json(sandbox.cmd(&args).arg("--json"));
    assert_eq!((status, &envelope["error"]["code"]), (2, &"INVALID_REQUEST".into()));
}

#[test]
fn short_help_names_every_command() {
    let sandbox = Sandbox::new();
    let help = sandbox.run(&["-h"]);
    assert_eq!(help.status, 0);
    assert!(commands().iter().all(|command| help.stdout.contains(command.as_str())), "{}", help.stdout);
    let version = sandbox.run(&["--version"]);
    assert_eq!(version.stdout, format!("mlx-cache {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn colours_follow_the_flag_then_the_environment_then_the_terminal() {
    let sandbox = Sandbox::new();
    let colored = |args: &[&str], variables: &[(&str, &str)]| {
        let outcome = finish(sandbox.cmd(args).envs(variables.iter().copied()));
        assert_eq!(outcome.status, 0);
        outcome.stdout.contains(ESCAPE)
    };
    assert!(!colored(&["config"], &[]), "a pipe is no terminal");
    assert!(colored(&["config", "--color", "always"], &[]));
    assert!(colored(&["config"], &[("CLICOLOR_FORCE", "1")]));
    assert!(!colored(&["config"], &[("CLICOLOR_FORCE", "0")]));
    assert!(!colored(&["config"], &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]));
    assert!(colored(&["config", "--color=always"], &[("NO_COLOR", "1")]));
    assert!(!colored(&["config", "--color", "never"], &[("CLICOLOR_FORCE", "1")]));
    assert!(colored(&["config", "--help", "--color", "always"], &[]));
    assert!(!colored(&["config", "--json", "--color", "always"], &[]), "JSON has no colours");
}

#[test]
fn errors_have_colours_only_where_they_are_asked_for() {
    let sandbox = Sandbox::new();
    assert!(!sandbox.run(&["config", "get", "nonsense"]).stderr.contains(ESCAPE));
    assert!(sandbox.run(&["config", "get", "nonsense", "--color", "always"]).stderr.contains(ESCAPE));
}

#[test]
fn quiet_leaves_data_and_errors() {
    let sandbox = Sandbox::new();
    let loud = sandbox.run(&["config", "unset", "threads"]);
    assert!(loud.stderr.starts_with("warning: "), "{}", loud.stderr);
    let quiet = sandbox.run(&["config", "unset", "threads", "--quiet"]);
    assert_eq!((quiet.status, quiet.stderr.as_str()), (0, ""));
    assert!(sandbox.run(&["config", "-q"]).stdout.contains("threads"));
    assert!(sandbox.run(&["config", "get", "nonsense", "-q"]).stderr.starts_with("error: "));
    assert_eq!(sandbox.run(&["config", "-q", "-v"]).status, 2);
}

#[test]
fn a_closed_pipe_ends_quietly() {
    let sandbox = Sandbox::new();
    for args in [vec!["config"], vec!["config", "--json"], vec!["--help"], vec!["nonsense", "--json"]] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let outcome = finish(sandbox.cmd(&args).stdout(writer).stderr(Stdio::piped()));
        assert_eq!((outcome.status, outcome.stderr.as_str()), (141, ""), "{args:?}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn output_that_does_not_fit_on_the_disk_is_an_error() {
    let sandbox = Sandbox::new();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
    let outcome = finish(sandbox.cmd(&["config"]).stdout(full).stderr(Stdio::piped()));
    assert_eq!(outcome.status, 5);
    assert!(outcome.stderr.starts_with("error: cannot write standard output: "), "{}", outcome.stderr);
}

#[test]
fn a_signal_ends_a_wait_at_once_with_130() {
    // A hub that takes the connection and says nothing.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
    for signal in [Signal::INT, Signal::TERM] {
        let sandbox = Sandbox::new();
        let mut command = sandbox.cmd(&["doctor"]);
        command.env_remove("MLX_CACHE_OFFLINE").env("HF_ENDPOINT", &endpoint);
        let child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
        let connection = listener.accept().expect("a connection");
        let start = Instant::now();
        let pid = Pid::from_child(&child);
        kill_process(pid, signal).expect("signal");
        let output = child.wait_with_output().expect("an end");
        assert_eq!(output.status.code(), Some(130));
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b""[..], &b""[..]));
        drop(connection);
    }
}

#[test]
fn without_a_home_the_error_says_what_to_set() {
    let sandbox = Sandbox::new();
    let (status, envelope) = json(sandbox.cmd(&["config", "--json"]).env_remove("HOME"));
    assert_eq!((status, &envelope["error"]["code"]), (2, &"INVALID_REQUEST".into()));
    assert!(envelope["error"]["hint"].as_str().is_some_and(|hint| hint.contains("MLX_CACHE_HOME")));
    let elsewhere = sandbox.home().join("elsewhere");
    let (status, envelope) =
        json(sandbox.cmd(&["config", "--json"]).env_remove("HOME").env("MLX_CACHE_HOME", &elsewhere));
    assert_eq!(status, 0);
    assert_eq!(envelope["data"]["file"].as_str(), elsewhere.join("config.toml").to_str());
}

#[test]
fn broken_settings_stop_every_command_that_does_not_tell_about_them() {
    let sandbox = Sandbox::new();
    sandbox.config("nonsense = 1\n");
    for command in commands() {
        if ["config", "doctor"].contains(&command.as_str()) {
            let (status, envelope) = sandbox.json(&[&command]);
            assert_eq!(envelope["status"], "ok", "{command}");
            assert!(status == 0 || command == "doctor");
        }
    }
    for args in [vec!["config", "set", "threads", "1"], vec!["status"]] {
        let (status, error) = sandbox.error(&args);
        assert_eq!(status, 2);
        assert!(error["message"].as_str().is_some_and(|text| text.contains("line 1")), "{error}");
    }
}
