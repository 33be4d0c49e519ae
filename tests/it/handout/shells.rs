//! Completions in the real shells, as `make install` puts them where these look.

use std::process::Command;

use super::{bare, installation, tiny};
use crate::sandbox::{Sandbox, finish};
use crate::terminal::Terminal;

const PROMPT: &str = "ready> ";

/// What is begun, and what the key completes it to.
const BEGUN: &[(&str, &[&str])] = &[
    ("mlx-cache stat", &["mlx-cache", "status"]),
    ("mlx-cache list --rev", &["mlx-cache", "list", "--reverse"]),
    ("mlx-cache show Some/T", &["mlx-cache", "show", "Some/Tiny"]),
    ("mlx-cache run --temp 0 Some/T", &["mlx-cache", "run", "--temp", "0", "Some/Tiny"]),
];

/// A home with a model called Some/Tiny in its store.
fn home() -> Sandbox {
    let sandbox = Sandbox::new();
    let mut add = bare("mlx-cache", &sandbox);
    let outcome = finish(add.arg("add").arg(tiny()).args(["--name", "Some/Tiny"]));
    assert_eq!(outcome.status, 0, "{outcome:?}");
    sandbox
}

/// Types each beginning and the key that completes; what the shell then has as words must be the expected.
fn assert_completes(shell: Command, set_up: &str) {
    let mut terminal = Terminal::start(shell, 24, 200);
    // Quoted apart, so that the echo of what is typed is not taken for its output.
    terminal.type_line(&format!("{set_up}; printf 'set %s\\n' up"));
    terminal.wait_for("set up");
    for (begun, words) in BEGUN {
        // The line's words are printed rather than run: Ctrl-A goes to its beginning.
        terminal.type_keys(&format!("{begun}\t\u{1}printf '<%s>' \r"));
        let expected = format!("<{}>", words.join("><"));
        terminal.wait_for(&expected);
    }
    terminal.type_line("exit 0");
    terminal.end();
}

fn bash(sandbox: &Sandbox) -> Command {
    let mut bash = bare("bash", sandbox);
    bash.args(["--noprofile", "--norc", "-i"]).env("PS1", PROMPT).env("TERM", "dumb");
    bash
}

fn zsh(sandbox: &Sandbox) -> Command {
    let mut zsh = bare("zsh", sandbox);
    zsh.args(["-f", "-i"]).env("PS1", PROMPT).env("TERM", "dumb");
    zsh
}

#[test]
fn bash_completes_after_the_installed_script() {
    let sandbox = home();
    let script = installation().join("share/bash-completion/completions/mlx-cache");
    assert_completes(bash(&sandbox), &format!("source '{}'", script.display()));
}

#[test]
fn bash_completes_after_the_printed_script() {
    let sandbox = home();
    assert_completes(bash(&sandbox), "source <(mlx-cache completions bash)");
}

#[test]
fn zsh_completes_from_its_functions_at_the_first_press_of_the_key() {
    let sandbox = home();
    let functions = installation().join("share/zsh/site-functions");
    let set_up = format!("fpath=('{}' $fpath); autoload -Uz compinit; compinit -u -D", functions.display());
    assert_completes(zsh(&sandbox), &set_up);
}

#[test]
fn zsh_completes_after_the_printed_script() {
    let sandbox = home();
    let set_up = "autoload -Uz compinit; compinit -u -D; source <(mlx-cache completions zsh)";
    assert_completes(zsh(&sandbox), set_up);
}

#[test]
fn fish_completes_from_its_vendors_folder() {
    let sandbox = home();
    let ask = |begun: &str, set_up: &str| {
        let mut fish = bare("fish", &sandbox);
        fish.arg("--command").arg(format!("{set_up}; complete --do-complete '{begun}'"));
        fish.env("XDG_DATA_DIRS", format!("{}/share", installation().display()));
        let outcome = finish(&mut fish);
        assert_eq!((outcome.status, outcome.stderr.as_str()), (0, ""), "{}", outcome.stdout);
        // A candidate a line, a tab before what it means.
        let word = |line: &str| line.split('\t').next().unwrap_or_default().to_owned();
        outcome.stdout.lines().map(word).collect::<Vec<_>>()
    };
    for set_up in ["true", "complete --erase mlx-cache; mlx-cache completions fish | source"] {
        for (begun, words) in BEGUN {
            let last = words.last().expect("words");
            assert_eq!(ask(begun, set_up), [*last], "{begun}");
        }
    }
    assert!(ask("mlx-cache show Other", "true").is_empty());
}
