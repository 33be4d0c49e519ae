//! Models that are added, listed, shown, found and removed, as a user does it.

mod add;
mod crashes;
mod list;
mod references;
mod removal;
mod show;
mod surroundings;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::Digest;

use crate::sandbox::{Outcome, Sandbox};

/// A commit of a repository that does not exist.
pub const COMMIT: &str = "12fd25f77366fa6b3b4b768ec3050bf629380bac";

/// Copies a tiny model to this path below the sandbox's home.
pub fn place(sandbox: &Sandbox, fixture: &str, to: &str) -> PathBuf {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/tiny").join(fixture);
    let to = sandbox.home().join(to);
    fs::create_dir_all(to.parent().expect("a parent")).expect("folders");
    if from.is_file() {
        fs::copy(&from, &to).expect("copied");
        return to;
    }
    fs::create_dir(&to).expect("a folder");
    for entry in fs::read_dir(&from).expect("a fixture") {
        let entry = entry.expect("an entry");
        if entry.file_name() != "golden.safetensors" {
            fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
        }
    }
    to
}

/// Copies a tiny model into the sandbox's Hugging Face cache, as that lays models out.
pub fn place_in_hub(sandbox: &Sandbox, fixture: &str, repository: &str, commit: &str) -> PathBuf {
    let repository = sandbox.home().join(".cache/huggingface/hub").join(repository);
    let (blobs, snapshot) = (repository.join("blobs"), repository.join("snapshots").join(commit));
    fs::create_dir_all(&blobs).expect("a folder");
    fs::create_dir_all(&snapshot).expect("a folder");
    let plain = place(sandbox, fixture, "plain");
    for entry in fs::read_dir(&plain).expect("a model") {
        let entry = entry.expect("an entry");
        let name = sha256(&fs::read(entry.path()).expect("a file"));
        fs::rename(entry.path(), blobs.join(&name)).expect("moved");
        symlink(Path::new("../../blobs").join(&name), snapshot.join(entry.file_name())).expect("linked");
    }
    fs::remove_dir(plain).expect("empty");
    snapshot
}

pub fn sha256(bytes: &[u8]) -> String {
    mlx_cache::ids::Digest::from_bytes(sha2::Sha256::digest(bytes).into()).to_string()
}

/// Runs a command that succeeds; its `data`.
pub fn data(sandbox: &Sandbox, args: &[&str]) -> Value {
    let (status, envelope) = sandbox.json(args);
    assert_eq!(status, 0, "{args:?}: {envelope}");
    envelope["data"].clone()
}

/// Adds a model; what is reported of it.
pub fn add(sandbox: &Sandbox, path: &Path, flags: &[&str]) -> Value {
    let path = path.to_str().expect("a path in UTF-8");
    data(sandbox, &[&["add", path], flags].concat())["models"][0].clone()
}

/// The models that `list` shows.
pub fn listed(sandbox: &Sandbox) -> Vec<Value> {
    data(sandbox, &["list"])["models"].as_array().expect("a list").clone()
}

pub fn names(models: &[Value]) -> Vec<&str> {
    models.iter().filter_map(|model| model["reference"].as_str()).collect()
}

/// The content in the store: files below blobs/.
pub fn blobs(sandbox: &Sandbox) -> Vec<PathBuf> {
    walkdir::WalkDir::new(sandbox.store().join("blobs"))
        .into_iter()
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_file())
        .map(walkdir::DirEntry::into_path)
        .collect()
}

/// Fails unless the command failed with this code and says this; returns its error.
pub fn refused(sandbox: &Sandbox, args: &[&str], code: &str, told: &str) -> Value {
    let (_, error) = sandbox.error(args);
    assert_eq!(error["code"], code, "{args:?}: {error}");
    assert!(error["message"].as_str().is_some_and(|text| text.contains(told)), "{args:?}: {error}");
    error
}

pub fn succeeded(outcome: Outcome) -> String {
    assert_eq!(outcome.status, 0, "{outcome:?}");
    outcome.stdout
}
