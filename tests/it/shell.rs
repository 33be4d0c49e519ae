//! What shells and `man` get: completions and the manual's pages.

use std::path::Path;
use std::process::Command;

use crate::sandbox::{Sandbox, finish};

/// What bash offers after these words, of which the last is being typed.
fn offered(sandbox: &Sandbox, words: &[&str]) -> Vec<String> {
    let binary = Path::new(env!("CARGO_BIN_EXE_mlx-cache"));
    let script = r#"
        source <(mlx-cache completions bash)
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_TYPE=9
        _clap_complete_mlx_cache mlx-cache "${!#}" ""
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-c", script, "bash", "mlx-cache"])
        .args(words)
        .env_clear()
        .env("HOME", sandbox.home())
        .env("PATH", format!("{}:/usr/bin:/bin", binary.parent().expect("a folder").display()))
        .current_dir(sandbox.home());
    let outcome = finish(&mut bash);
    assert_eq!((outcome.status, outcome.stderr.as_str()), (0, ""), "{}", outcome.stdout);
    outcome.stdout.lines().map(|line| line.trim().to_owned()).collect()
}

#[test]
fn bash_completes_commands_flags_and_names_of_models() {
    let sandbox = Sandbox::new();
    assert_eq!(offered(&sandbox, &["ru"]), ["run"]);
    assert_eq!(offered(&sandbox, &["list", "--rev"]), ["--reverse"]);
    assert!(offered(&sandbox, &["show", "tiny"]).concat().is_empty(), "there is no model yet");

    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/tiny/llama_mha");
    let model = model.to_str().expect("UTF-8");
    assert_eq!(sandbox.run(&["add", model, "--name", "Some/Tiny"]).status, 0);
    assert_eq!(offered(&sandbox, &["show", "some/t"]), ["Some/Tiny"]);
    assert_eq!(offered(&sandbox, &["run", "Some/"]), ["Some/Tiny"]);

    // A store that cannot be read is no reason to print into the line being typed.
    std::fs::write(sandbox.store().join("registry.db"), "no database").expect("written");
    assert!(offered(&sandbox, &["show", "some/t"]).concat().is_empty());
}

#[test]
fn the_manual_is_written_where_it_is_asked_for() {
    let sandbox = Sandbox::new();
    let (status, envelope) = sandbox.json(&["man", "pages/man1"]);
    assert_eq!(status, 0, "{envelope}");
    let files = envelope["data"]["files"].as_array().expect("a list");
    assert!(files.iter().any(|file| file == "mlx-cache-run.1"), "{envelope}");
    for file in files {
        let path = sandbox.home().join("pages/man1").join(file.as_str().expect("a name"));
        let text = std::fs::read_to_string(&path).expect("a page");
        assert!(text.contains(".SH NAME") && text.contains(".SH \"EXIT STATUS\""), "{}", path.display());
    }
}
