//! Stores in surroundings that are not as one would wish.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use super::*;
use crate::sandbox::finish;

/// Somebody who is not the owner. As root only such a child can be refused a file.
const NOBODY: u32 = 65534;

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).expect("a file").permissions().mode() & 0o777
}

#[test]
fn the_store_is_private_whatever_the_umask() {
    for umask in ["0000", "0022", "0777"] {
        let sandbox = Sandbox::new();
        place(&sandbox, "llama_tied", "tiny");
        let plain = sandbox.cmd(&["add", "tiny", "--copy"]);
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("umask {umask} && exec \"$0\" \"$@\"")]).arg(plain.get_program());
        shell.args(plain.get_args()).env_clear().env("HOME", sandbox.home()).current_dir(sandbox.home());
        succeeded(finish(&mut shell));
        for entry in walkdir::WalkDir::new(sandbox.store()) {
            let entry = entry.expect("an entry");
            let is_blob = entry.path().starts_with(sandbox.store().join("blobs"));
            let kind = entry.file_type();
            if kind.is_dir() {
                assert_eq!(mode(entry.path()), 0o700, "umask {umask}: {}", entry.path().display());
            } else if kind.is_file() && is_blob {
                assert_eq!(mode(entry.path()), 0o444, "umask {umask}: {}", entry.path().display());
            } else if entry.file_name() == "registry.db" {
                assert_eq!(mode(entry.path()), 0o600, "umask {umask}");
            }
        }
    }
}

#[test]
fn a_store_that_cannot_be_written_can_be_read() {
    let sandbox = Sandbox::new();
    let model = place(&sandbox, "llama_tied", "tiny");
    add(&sandbox, &model, &["--copy"]);
    let root = rustix::process::geteuid().is_root();
    let set = |folder: u32, file: u32| {
        for entry in walkdir::WalkDir::new(sandbox.home()).contents_first(true) {
            let entry = entry.expect("an entry");
            let mode = if entry.file_type().is_dir() { folder } else { file };
            if !entry.file_type().is_symlink() {
                fs::set_permissions(entry.path(), fs::Permissions::from_mode(mode)).expect("changed");
            }
        }
    };
    set(0o555, 0o444);
    let run = |args: &[&str]| {
        let mut command = sandbox.cmd(args);
        command.arg("--json");
        if root {
            command.uid(NOBODY).gid(NOBODY);
        }
        crate::sandbox::json(&mut command)
    };
    let (status, list) = run(&["list"]);
    let (shown_status, shown) = run(&["show", "tiny"]);
    let (add_status, refused) = run(&["add", "tiny", "--name", "me/other"]);
    let (rm_status, removed) = run(&["rm", "tiny", "--yes"]);
    set(0o755, 0o644);
    assert_eq!(status, 0, "{list}");
    assert_eq!(list["data"]["models"][0]["reference"], "local/tiny");
    assert_eq!(shown_status, 0, "{shown}");
    assert_eq!((add_status, &refused["error"]["code"]), (1, &"IO_ERROR".into()), "{refused}");
    assert_eq!((rm_status, &removed["error"]["code"]), (1, &"IO_ERROR".into()), "{removed}");
    assert_eq!(data(&sandbox, &["show", "tiny"])["runnable"], true);
}

#[test]
fn a_store_may_be_moved() {
    let sandbox = Sandbox::new();
    let model = place(&sandbox, "llama_tied", "tiny");
    add(&sandbox, &model, &["--copy"]);
    fs::remove_dir_all(model).expect("gone");
    let moved = sandbox.home().join("elsewhere");
    fs::rename(sandbox.store(), &moved).expect("moved");
    let mut command = sandbox.cmd(&["show", "tiny", "--json"]);
    let (status, shown) = crate::sandbox::json(command.env("MLX_CACHE_HOME", &moved));
    assert_eq!(status, 0, "{shown}");
    assert_eq!(shown["data"]["runnable"], true);
    assert!(shown["data"]["path"].as_str().expect("a path").starts_with(moved.to_str().expect("UTF-8")));
}
