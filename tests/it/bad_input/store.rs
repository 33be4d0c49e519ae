//! Stores that are damaged, newer, closed, full or in use.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;

use super::paths::NOBODY;
use super::*;

/// A sandbox with one model in its store, called `test/one`.
fn with_model() -> Sandbox {
    let sandbox = Sandbox::new();
    let model = copy_of("llama_tied", &sandbox);
    let outcome = finish(sandbox.cmd(&["add", "--copy", "--name", "test/one"]).arg(model));
    assert_eq!(outcome.status, 0, "{outcome:?}");
    sandbox
}

fn registry(sandbox: &Sandbox) -> PathBuf {
    sandbox.store().join("registry.db")
}

/// Every command that reads or writes the registry.
const COMMANDS: &[&[&str]] = &[
    &["list"],
    &["show", "test/one"],
    &["path", "test/one"],
    &["run", "test/one", "Hi", "-n", "2"],
    &["run", "test/on", "Hi", "-n", "2"],
    &["add", "model", "--name", "test/two"],
    &["rm", "test/one", "--yes"],
    &["status"],
];

fn json(sandbox: &Sandbox, args: &[&str]) -> Command {
    let mut command = sandbox.cmd(args);
    command.arg("--json");
    command
}

/// What is wrong, and how to bring it about.
type Case<T> = (&'static str, fn(&T));

#[test]
fn a_registry_of_a_newer_version_stops_every_command_and_is_not_changed() {
    let sandbox = with_model();
    let database = rusqlite::Connection::open(registry(&sandbox)).expect("a database");
    database.pragma_update(None, "user_version", 999).expect("changed");
    drop(database);
    let before = fs::read(registry(&sandbox)).expect("a file");
    for args in COMMANDS {
        let error = refused(&ended(&mut json(&sandbox, args)), args[0], "INVALID_REQUEST", "registry.db");
        assert!(error["message"].as_str().expect("a text").contains("999"), "{error}");
    }
    assert!(fs::read(registry(&sandbox)).expect("a file") == before);
}

#[test]
fn a_corrupt_registry_stops_every_command_with_a_way_out() {
    let spoil: [Case<Path>; 5] = [
        ("noise", |path| fs::write(path, noise(40_000)).expect("written")),
        ("text", |path| fs::write(path, "this is no database").expect("written")),
        ("empty", |path| fs::write(path, "").expect("written")),
        ("missing", |path| fs::remove_file(path).expect("gone")),
        ("cut off", |path| {
            let bytes = fs::read(path).expect("a file");
            fs::write(path, &bytes[..bytes.len() / 3]).expect("written");
        }),
    ];
    for (name, spoil) in spoil {
        let sandbox = with_model();
        spoil(&registry(&sandbox));
        for args in COMMANDS {
            let name = format!("{name}: {args:?}");
            let error = refused(&ended(&mut json(&sandbox, args)), &name, "INTEGRITY_FAILED", "registry.db");
            assert!(error["hint"].as_str().expect("a hint").contains("doctor --fix"), "{name}: {error}");
        }
    }
}

#[test]
fn stores_that_are_no_folders_or_closed_are_told_by_their_path() {
    let cases: [Case<Sandbox>; 3] = [
        ("a file in the place of the store", |sandbox| fs::write(sandbox.store(), "").expect("written")),
        ("a folder in the place of the registry", |sandbox| {
            fs::create_dir_all(registry(sandbox)).expect("a folder");
        }),
        ("a link to itself in the place of the store", |sandbox| {
            std::os::unix::fs::symlink(".mlx-cache", sandbox.store()).expect("a link");
        }),
    ];
    for (name, spoil) in cases {
        let sandbox = Sandbox::new();
        let model = copy_of("llama_tied", &sandbox);
        spoil(&sandbox);
        let mut add = json(&sandbox, &["add", "--copy"]);
        refused(&ended(add.arg(&model)), name, "IO_ERROR", ".mlx-cache");
    }
}

#[test]
fn a_store_of_somebody_else_is_told_by_its_path() {
    let sandbox = with_model();
    fs::set_permissions(sandbox.home(), fs::Permissions::from_mode(0o755)).expect("open");
    if rustix::process::geteuid().is_root() {
        for args in [&["list"][..], &["run", "test/one", "Hi"], &["add", "model"]] {
            let mut command = json(&sandbox, args);
            let output = ended(command.uid(NOBODY).gid(NOBODY));
            refused(&output, &format!("{args:?}"), "IO_ERROR", ".mlx-cache");
        }
    } else {
        fs::set_permissions(sandbox.store(), fs::Permissions::from_mode(0o000)).expect("closed");
        let output = ended(&mut json(&sandbox, &["list"]));
        fs::set_permissions(sandbox.store(), fs::Permissions::from_mode(0o700)).expect("open");
        refused(&output, "list", "IO_ERROR", ".mlx-cache");
    }
}

#[test]
fn a_full_disk_ends_a_copy_and_leaves_nothing_behind() {
    let sandbox = with_model();
    let model = sandbox.home().join("large");
    fs::create_dir(&model).expect("a folder");
    for entry in fs::read_dir(sandbox.home().join("model")).expect("the model") {
        let entry = entry.expect("an entry");
        fs::copy(entry.path(), model.join(entry.file_name())).expect("copied");
    }
    // Another content, so that it is not in the store yet.
    edit(&model.join("config.json"), |config| config["note"] = "another model".into());
    edit_weights(&model);
    let before = tree(&sandbox.store());
    // Blocks of 512 bytes: the weights have 600 of them.
    let mut command = crate::run::shell(
        &sandbox,
        "ulimit -f 300 && exec \"$0\" add \"$1\" --copy --name test/two --json </dev/null",
        &model,
    );
    refused(&ended(&mut command), "a full disk", "INSUFFICIENT_DISK", "");
    assert_eq!(tree(&sandbox.store()), before);
    assert_eq!(finish(&mut json(&sandbox, &["run", "test/one", "Hi", "-n", "2"])).status, 0);
}

/// Changes one weight.
fn edit_weights(model: &Path) {
    let path = model.join("model.safetensors");
    let mut bytes = fs::read(&path).expect("a file");
    let last = bytes.len() - 4;
    bytes[last..].copy_from_slice(&0.5_f32.to_le_bytes());
    fs::write(path, bytes).expect("written");
}

/// Every path below a folder, without SQLite's own files beside the registry.
/// All files and links below a folder; an empty folder of blobs is nothing.
fn tree(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = walkdir::WalkDir::new(folder)
        .into_iter()
        .map(|entry| entry.expect("an entry"))
        .filter(|entry| !entry.file_type().is_dir())
        .map(walkdir::DirEntry::into_path)
        .filter(|path| !path.to_string_lossy().contains("registry.db-"))
        .collect();
    paths.sort();
    paths
}

#[test]
fn many_processes_at_once_add_and_run_without_losing_anything() {
    let sandbox = Sandbox::new();
    let model = copy_of("llama_tied", &sandbox);
    thread::scope(|scope| {
        for index in 0..6 {
            let (sandbox, model) = (&sandbox, &model);
            scope.spawn(move || {
                let mut add = json(sandbox, &["add", "--copy", "--name", &format!("test/m{}", index % 3)]);
                let output = ended(add.arg(model));
                assert!(output.status.success(), "{output:?}");
                let output =
                    ended(&mut json(sandbox, &["run", &format!("test/m{}", index % 3), "Hi", "-n", "2"]));
                assert!(output.status.success(), "{output:?}");
                assert!(output.stderr.is_empty(), "{output:?}");
            });
        }
    });
    let (_, listed) = sandbox.json(&["list"]);
    let models = listed["data"]["models"].as_array().expect("a list");
    let mut names: Vec<_> = models.iter().filter_map(|model| model["reference"].as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["test/m0", "test/m1", "test/m2"]);
    let database = rusqlite::Connection::open(registry(&sandbox)).expect("a database");
    let sessions: i64 =
        database.query_row("SELECT count(*) FROM sessions", [], |row| row.get(0)).expect("a count");
    assert_eq!(sessions, 6);
}

#[test]
fn a_registry_that_another_process_holds_is_a_warning_after_an_answer() {
    let sandbox = with_model();
    let database = rusqlite::Connection::open(registry(&sandbox)).expect("a database");
    database.execute_batch("BEGIN IMMEDIATE").expect("held");
    let output = ended(&mut json(&sandbox, &["run", "test/one", "Hi", "-n", "2"]));
    assert!(output.status.success(), "{output:?}");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.starts_with("warning: ") && stderr.contains("registry"), "{stderr}");
    drop(database);
}

#[test]
fn models_whose_files_are_gone_are_told_by_their_path() {
    let sandbox = Sandbox::new();
    let model = copy_of("llama_tied", &sandbox);
    let outcome = finish(sandbox.cmd(&["add", "--name", "test/adopted"]).arg(&model));
    assert_eq!(outcome.status, 0, "{outcome:?}");
    fs::remove_dir_all(&model).expect("gone");
    let output = ended(&mut json(&sandbox, &["run", "test/adopted", "Hi"]));
    refused(&output, "an adopted folder that is gone", "FILE_NOT_FOUND", model.to_str().expect("UTF-8"));

    let sandbox = with_model();
    fs::remove_dir_all(sandbox.store().join("blobs")).expect("gone");
    let output = ended(&mut json(&sandbox, &["run", "test/one", "Hi"]));
    refused(&output, "blobs that are gone", "INTEGRITY_FAILED", "test/one");
}

#[test]
fn what_cannot_be_added_is_told_and_leaves_nothing() {
    let sandbox = with_model();
    fs::create_dir(sandbox.home().join("empty")).expect("a folder");
    fs::write(sandbox.home().join("noise.gguf"), noise(4096)).expect("written");
    let before = tree(&sandbox.store());
    let cases: [(&[&str], &str, &str); 9] = [
        (&["nothing"], "FILE_NOT_FOUND", "nothing"),
        (&["empty"], "FILE_NOT_FOUND", "empty"),
        (&["noise.gguf"], "INTEGRITY_FAILED", "noise.gguf"),
        (&["noise.gguf", "--copy"], "INTEGRITY_FAILED", "noise.gguf"),
        (&["/dev/zero"], "INTEGRITY_FAILED", "/dev/zero"),
        (&["model", "--name", "../../x"], "INVALID_REQUEST", "../../x"),
        (&["model", "--name", "one"], "INVALID_REQUEST", "one"),
        (&["model", "--name", "a/b\u{202e}"], "INVALID_REQUEST", "a/b"),
        (&["model", "--name", ""], "INVALID_REQUEST", ""),
    ];
    for (args, code, told) in cases {
        let output = ended(&mut json(&sandbox, &[&["add"], args].concat()));
        refused(&output, &format!("{args:?}"), code, told);
    }
    assert_eq!(tree(&sandbox.store()), before);
}
