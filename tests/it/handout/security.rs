//! What docs/security.md promises and no other test shows, and that the tests it names exist.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::{root, tiny};
use crate::hub::{Hub, Repository};
use crate::models::{COMMIT, place_in_hub};
use crate::sandbox::{Sandbox, finish};

/// Commands that between them make everything that a store has.
const TYPICAL: &str = "\
    \"$0\" pull org/name
    \"$0\" add \"$1\" --copy --name copied/tiny
    \"$0\" add hf
    \"$0\" config set threads 1
    \"$0\" run copied/tiny Hi -n 2 --temp 0
    \"$0\" bench copied/tiny -p 8 -g 2 -r 1 --warmup 0
    \"$0\" verify
    \"$0\" dedupe --min-size 0 --apply --yes
    \"$0\" export export.json
    \"$0\" gc --yes
    \"$0\" dedupe --undo --yes
    \"$0\" rm org/name --yes";

/// A shell in a cleared environment that runs these commands and ends at the first that fails.
fn shell(sandbox: &Sandbox, hub: &Hub, script: &str) -> Command {
    let mut shell = Command::new("sh");
    shell
        .args(["-e", "-c", script, env!("CARGO_BIN_EXE_mlx-cache")])
        .arg(tiny())
        .env_clear()
        .env("HOME", sandbox.home())
        .env("HF_ENDPOINT", hub.endpoint())
        .current_dir(sandbox.home());
    shell
}

fn hub() -> Hub {
    Hub::with(Repository::tiny("org/name"))
}

#[test]
fn what_is_made_belongs_to_its_owner_alone() {
    for umask in ["000", "077"] {
        let (sandbox, hub) = (Sandbox::new(), hub());
        place_in_hub(&sandbox, "llama_tied", "models--some--tiny", COMMIT);
        // Looked at after each command: what is made in between counts too.
        for command in TYPICAL.lines() {
            let outcome = finish(&mut shell(&sandbox, &hub, &format!("umask {umask}\n{command}")));
            assert_eq!(outcome.status, 0, "{command}: {outcome:?}");
            for entry in walkdir::WalkDir::new(sandbox.store()) {
                let entry = entry.expect("an entry");
                let mode = fs::symlink_metadata(entry.path()).expect("metadata").permissions().mode() & 0o777;
                let content =
                    ["blobs", "links"].iter().any(|it| entry.path().starts_with(sandbox.store().join(it)));
                let expected = match entry.file_type() {
                    kind if kind.is_symlink() => continue,
                    kind if kind.is_dir() => 0o700,
                    _ if content => 0o444,
                    // Settings and remarks may be read by whoever gets here, who is only the owner.
                    _ => mode & 0o644,
                };
                assert_eq!(mode, expected, "umask {umask}, {command}: {}", entry.path().display());
            }
        }
        let files = walkdir::WalkDir::new(sandbox.store()).into_iter().filter_map(Result::ok);
        assert!(files.count() > 15, "the walk sees a store");
    }
}

#[test]
fn no_temporary_file_is_made_in_shared_folders() {
    let (sandbox, hub) = (Sandbox::new(), hub());
    place_in_hub(&sandbox, "llama_tied", "models--some--tiny", COMMIT);
    // No folder: whatever would be made in it fails, also for root.
    let nowhere = sandbox.home().join("nowhere");
    fs::write(&nowhere, "a file").expect("a file");
    let mut shell = shell(&sandbox, &hub, TYPICAL);
    for variable in ["TMPDIR", "TMP", "TEMP", "SQLITE_TMPDIR", "XDG_RUNTIME_DIR"] {
        shell.env(variable, &nowhere);
    }
    let outcome = finish(&mut shell);
    assert_eq!(outcome.status, 0, "{outcome:?}");
}

#[test]
fn no_code_asks_for_the_shared_folder() {
    let mut looked_at = 0;
    for entry in walkdir::WalkDir::new(root().join("src")) {
        let path = entry.expect("an entry").into_path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a source");
            let program = text.split("#[cfg(test)]").next().unwrap_or_default();
            for word in ["temp_dir()", "\"/tmp", "\"/var/tmp"] {
                assert!(!program.contains(word), "{} has {word}", path.display());
            }
            looked_at += 1;
        }
    }
    assert!(looked_at > 100);
}

#[test]
fn the_tests_that_the_security_notes_name_exist() {
    let notes = fs::read_to_string(root().join("docs/security.md")).expect("the notes");
    let this = std::env::current_exe().expect("this program");
    let list = finish(Command::new(this).arg("--list")).stdout;
    let named: Vec<&str> = notes.split('`').skip(1).step_by(2).filter(|code| code.contains("::")).collect();
    assert!(named.len() > 30, "{}", named.len());
    for test in named {
        assert!(list.lines().any(|line| line == format!("{test}: test")), "there is no test {test}");
    }
    for line in notes.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| ---")) {
        assert!(line.contains("::") || line.ends_with("| tests |"), "no test covers: {line}");
    }
}
