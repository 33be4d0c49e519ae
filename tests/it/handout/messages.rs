//! What a new user reads when something is not as thought: it must be true, and its commands must work.

use crate::sandbox::{Sandbox, finish};

/// A small model that generates text.
const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/tiny/llama_mha");

/// The same, adopted where it lies.
fn with_adopted() -> Sandbox {
    let sandbox = Sandbox::new();
    let outcome = sandbox.run(&["add", MODEL, "--name", "org/tiny"]);
    assert_eq!(outcome.status, 0, "{}", outcome.stderr);
    sandbox
}

#[test]
fn a_list_of_nothing_says_whether_there_are_others() {
    let sandbox = Sandbox::new();
    let said = |sandbox: &Sandbox, args: &[&str]| sandbox.run(args).stdout;
    assert!(said(&sandbox, &["list"]).contains("mlx-cache add PATH"));
    let sandbox = with_adopted();
    for narrowed in [&["list", "--kind", "embedding"][..], &["list", "--source", "ollama"]] {
        let text = said(&sandbox, narrowed);
        assert!(text.contains("no such models") && text.contains("--source all"), "{text}");
    }
    assert!(said(&sandbox, &["list", "--source", "all"]).contains("org/tiny"));
}

#[test]
fn the_command_that_a_hint_names_helps() {
    let sandbox = with_adopted();
    std::fs::create_dir(sandbox.home().join("shelf")).expect("a folder");
    let link = ["link", "tiny", "--to", "shelf", "--yes"];
    let (_, error) = sandbox.error(&link);
    let hint = error["hint"].as_str().expect("a hint");
    let command = hint.split_once("with: mlx-cache ").expect("a command").1;
    let program = env!("CARGO_BIN_EXE_mlx-cache");
    let mut shell = std::process::Command::new("sh");
    let outcome = finish(shell.args(["-c", &format!("'{program}' {command}")]).env("HOME", sandbox.home()));
    assert_eq!(outcome.status, 0, "{command}: {}", outcome.stderr);
    assert_eq!(sandbox.run(&link).status, 0);
}

#[test]
fn an_error_tells_the_place_and_the_way_on() {
    let sandbox = with_adopted();
    let cases: [(&[&str], &str, &str); 9] = [
        // The name of an unfinished file tells nobody anything.
        (&["export", "none/all.json"], "create a file in", ""),
        (&["export", "."], ". is a folder", "name of a file"),
        (&["export", ".", "--force"], ". is a folder", "name of a file"),
        (&["import", "-"], "standard input is no export", "mlx-cache export"),
        (&["path", ""], "invalid model reference \"\": it is empty", "org/name"),
        (&["path", "tiny:"], "invalid file tag", "org/name:Q4_K_M"),
        (&["add", MODEL, "--name", "tiny"], "expected org/name", "org/name"),
        (&["add", "ollama"], "ollama keeps no models", "mlx-cache config"),
        (
            &["run", "tiny", "Hi", "--memory-limit", "1kB"],
            "but the memory limit allows 1.0 kB",
            "raise the limit",
        ),
    ];
    for (args, message, hint) in cases {
        let (_, error) = sandbox.error(args);
        let text = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
        assert!(text("message").contains(message), "{args:?}: {error}");
        assert!(!text("message").contains("-0.tmp"), "{args:?}: {error}");
        assert!(text("hint").contains(hint), "{args:?}: {error}");
    }
    // What is wrong with a flag is explained by the help of its command.
    let (_, error) = sandbox.error(&["gc", "--older-than", "soon"]);
    assert_eq!(error["hint"], "see `mlx-cache gc --help`");
}
