//! `pull`, as a user meets it, from a hub on the loopback that the tests can disturb.
//!
//! After every pull, whatever came of it, the store is looked at: all content has the digest that it is
//! named by, and every model that can be seen is whole.

mod access;
mod crashes;
mod disturbed;
mod full;
mod hostile;
mod missing;
mod plain;
mod python;
mod reports;
mod reuse;
mod selection;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::thread;

use serde_json::Value;
use sha2::Digest;

use crate::hub::{Hub, Repository};
use crate::sandbox::{Outcome, Sandbox, finish, json};

/// Seconds without anything after which a connection is given up on.
const PATIENCE: &str = "1";
const TOKEN: &str = "hf_abcdefghijklmnopqrstuvwxyzabcdefgh";

/// The program, told of the hub and allowed to use the network.
fn online<S: AsRef<std::ffi::OsStr>>(sandbox: &Sandbox, hub: &Hub, args: &[S]) -> Command {
    let mut command = sandbox.cmd(args);
    command
        .env_remove("MLX_CACHE_OFFLINE")
        .env("HF_ENDPOINT", hub.endpoint())
        .env("MLX_CACHE_HTTP_TIMEOUT", PATIENCE);
    command
}

/// `mlx-cache pull ARGS --json`, not run yet.
fn command(sandbox: &Sandbox, hub: &Hub, args: &[&str]) -> Command {
    let mut command = online(sandbox, hub, &["pull"]);
    command.args(args).arg("--json");
    command
}

/// Pulls with success; the report's `models`.
fn pull(sandbox: &Sandbox, hub: &Hub, args: &[&str]) -> Vec<Value> {
    done(sandbox, &mut command(sandbox, hub, args))
}

/// Runs a prepared pull that succeeds; the report's `models`.
fn done(sandbox: &Sandbox, command: &mut Command) -> Vec<Value> {
    let (status, envelope) = json(command);
    assert_eq!(status, 0, "{command:?}: {envelope}");
    in_order(sandbox);
    envelope["data"]["models"].as_array().expect("a list").clone()
}

/// Pulls one model with success; what is reported of it.
fn pull_one(sandbox: &Sandbox, hub: &Hub, args: &[&str]) -> Value {
    let models = pull(sandbox, hub, args);
    assert_eq!(models.len(), 1, "{models:?}");
    models[0].clone()
}

/// Fails unless the pull fails with one of these codes; its error.
fn refused(sandbox: &Sandbox, hub: &Hub, args: &[&str], codes: &[&str]) -> Value {
    fails(sandbox, &mut command(sandbox, hub, args), codes)
}

/// Fails unless the prepared pull fails with one of these codes; its error.
fn fails(sandbox: &Sandbox, command: &mut Command, codes: &[&str]) -> Value {
    let (status, envelope) = json(command);
    let error = envelope["error"].clone();
    assert!(codes.iter().any(|code| error["code"] == *code), "not {codes:?}: {envelope}");
    assert_ne!(status, 0);
    assert!(error["hint"].is_string(), "no hint: {error}");
    in_order(sandbox);
    error
}

/// The names of files of a snapshot, by their paths in it.
fn files_of(folder: &Path) -> BTreeMap<String, PathBuf> {
    walkdir::WalkDir::new(folder)
        .into_iter()
        .map(|entry| entry.expect("a folder that can be read"))
        .filter(|entry| !entry.file_type().is_dir())
        .map(|entry| {
            let inside = entry.path().strip_prefix(folder).expect("below the folder");
            (inside.to_str().expect("UTF-8").to_owned(), entry.path().to_owned())
        })
        .collect()
}

/// Fails unless the model has exactly these files of the repository, byte for byte.
fn assert_exact(folder: &Path, repository: &Repository, paths: &[&str]) {
    let found = files_of(folder);
    let mut wanted: Vec<&str> = paths.to_vec();
    wanted.sort_unstable();
    assert_eq!(found.keys().map(String::as_str).collect::<Vec<_>>(), wanted);
    for (path, place) in found {
        let content = fs::read(&place).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert!(content == repository.content(&path), "{path} is not what the hub has");
    }
}

/// The same of all files of the repository.
fn assert_all(folder: &Path, repository: &Repository) {
    let paths = repository.paths();
    assert_exact(folder, repository, &paths.iter().map(String::as_str).collect::<Vec<_>>());
}

/// The folder that a pull reports.
fn folder(model: &Value) -> PathBuf {
    PathBuf::from(model["snapshot_path"].as_str().expect("a path"))
}

/// Fails unless all content in the store has its digest for a name, and all that can be seen of models is
/// whole, read-only and registered.
fn in_order(sandbox: &Sandbox) {
    let blobs = sandbox.store().join("blobs/sha256");
    for (name, path) in files_of_store(&blobs) {
        let metadata = fs::symlink_metadata(&path).expect("a blob");
        assert!(metadata.is_file(), "{name} is no file");
        assert_eq!(metadata.permissions().mode() & 0o777, 0o444, "{name}");
        let (fan, digest) = name.split_once('/').expect("a folder of two digits");
        assert!(digest.starts_with(fan), "{name}");
        assert_eq!(sha256(&fs::read(&path).expect("content")), digest, "a visible blob is not whole");
    }
    let mut listed = sandbox.json(&["list"]).1["data"]["models"].as_array().expect("a list").clone();
    listed.retain(|model| {
        model["path"].as_str().is_some_and(|path| Path::new(path).starts_with(sandbox.store()))
    });
    for model in &listed {
        assert_eq!(model["status"], "ok", "{model}");
    }
    let models = sandbox.store().join("models");
    for (name, path) in files_of_store(&models) {
        if name
            .split('/')
            .any(|part| part.starts_with('.') && Path::new(part).extension().is_some_and(|end| end == "tmp"))
        {
            // Hidden, left by a process that was killed.
            continue;
        }
        let content = path.canonicalize().unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(content.starts_with(blobs.canonicalize().expect("blobs")), "{name} leads out of the store");
        let known = listed.iter().any(|model| {
            let registered = model["path"].as_str().expect("a path");
            // The first part of a split file stands for all.
            let is_part = registered.split_once("-00001-of-").is_some_and(|(stem, rest)| {
                path.to_str().is_some_and(|path| path.starts_with(stem) && path.ends_with(rest))
            });
            is_part || path.starts_with(registered)
        });
        assert!(known, "{name} is visible but not registered");
    }
}

fn files_of_store(folder: &Path) -> BTreeMap<String, PathBuf> {
    if folder.exists() { files_of(folder) } else { BTreeMap::new() }
}

/// Everything in the sandbox but the store, with what would show a change.
fn surroundings(sandbox: &Sandbox) -> BTreeMap<PathBuf, (u64, u64, i64, u32)> {
    walkdir::WalkDir::new(sandbox.home())
        .min_depth(1)
        .into_iter()
        .filter_entry(|entry| entry.path() != sandbox.store())
        .map(|entry| {
            let entry = entry.expect("a folder that can be read");
            let found = entry.metadata().expect("metadata");
            (entry.into_path(), (found.ino(), found.len(), found.mtime_nsec(), found.mode()))
        })
        .collect()
}

fn sha256(bytes: &[u8]) -> String {
    mlx_cache::ids::Digest::from_bytes(sha2::Sha256::digest(bytes).into()).to_string()
}

/// Bytes of content in the store.
fn stored(sandbox: &Sandbox) -> u64 {
    let blobs = files_of_store(&sandbox.store().join("blobs"));
    blobs.values().map(|path| fs::metadata(path).expect("a blob").len()).sum()
}

/// What lies in one of the store's folders for things on their way.
fn left_in(sandbox: &Sandbox, name: &str) -> Vec<String> {
    files_of_store(&sandbox.store().join(name)).into_keys().collect()
}

/// Runs a test for each case, several at a time since most of them wait most of the time; every case that
/// fails is told.
fn for_each<T: Send + std::fmt::Debug>(cases: Vec<T>, test: impl Fn(&T) + Sync) {
    let (queue, failed) = (Mutex::new(cases), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                loop {
                    let Some(case) = queue.lock().expect("the queue").pop() else { break };
                    let name = format!("{case:?}");
                    if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(&case))).is_err() {
                        failed.lock().expect("the list").push(name);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("the list");
    assert!(failed.is_empty(), "{} cases failed: {failed:#?}", failed.len());
}

fn number(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or_else(|| panic!("no number {key}: {value}"))
}

fn run(command: &mut Command) -> Outcome {
    finish(command)
}

/// Runs a program on a terminal of its own, with these keys typed ahead: its status and what was shown.
fn on_terminal(mut command: Command, keys: &str) -> (Option<i32>, String) {
    let (mut pty, terminal) = pty_process::blocking::open().expect("a terminal");
    pty.resize(pty_process::Size::new(24, 100)).expect("a size");
    command.env("TERM", "xterm-256color").env("NO_COLOR", "1");
    let mut child = pty_process::blocking::Command::from(command).spawn(terminal).expect("it starts");
    pty.write_all(keys.as_bytes()).expect("keys");
    let (mut shown, mut piece) = (Vec::new(), [0; 4096]);
    // The read fails once the child has closed its side.
    while let Ok(length @ 1..) = pty.read(&mut piece) {
        shown.extend_from_slice(&piece[..length]);
    }
    (child.wait().expect("it ends").code(), String::from_utf8_lossy(&shown).into_owned())
}
