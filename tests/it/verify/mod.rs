//! `verify`: damage of each kind, put into a store and into other tools' caches, is found, and nothing else is.

mod foreign;
mod hub;
mod repair;
mod store;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::models::{add, data, place};
use crate::sandbox::Sandbox;

/// What a test does to a file.
type Spoil = fn(&Path);

/// Damage that a test does, by what it should be called.
type Damage = (&'static str, Spoil);

/// Runs verify: the exit status and `data`.
fn verify(sandbox: &Sandbox, args: &[&str]) -> (i32, Value) {
    let (status, envelope) = sandbox.json(&[&["verify"], args].concat());
    assert_eq!(envelope["status"], "ok", "{args:?}: {envelope}");
    (status, envelope["data"].clone())
}

/// All problems as (path, kind), in order.
fn problems(report: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    report["checked"]
        .as_array()
        .expect("a list")
        .iter()
        .flat_map(|checked| checked["problems"].as_array().expect("a list"))
        .map(|problem| (text(&problem["path"]), text(&problem["kind"])))
        .collect()
}

/// Fails unless verify finds exactly this, and ends with 4.
fn finds(sandbox: &Sandbox, args: &[&str], expected: &[(&str, &str)]) -> Value {
    let (status, report) = verify(sandbox, args);
    let found = problems(&report);
    let found: Vec<_> = found.iter().map(|(path, kind)| (path.as_str(), kind.as_str())).collect();
    assert_eq!((status, found.as_slice()), (4, expected), "{args:?}: {report}");
    report
}

/// Fails unless verify finds nothing wrong.
fn is_sound(sandbox: &Sandbox, args: &[&str]) -> Value {
    let (status, report) = verify(sandbox, args);
    assert_eq!((status, problems(&report)), (0, Vec::new()), "{args:?}: {report}");
    report
}

/// Writes a file that may be read-only, keeping its mode.
fn write(path: &Path, content: impl AsRef<[u8]>) {
    let mode = fs::metadata(path).expect("a file").permissions();
    fs::set_permissions(path, Permissions::from_mode(0o644)).expect("writable");
    fs::write(path, content).expect("written");
    fs::set_permissions(path, mode).expect("the old mode");
}

/// Changes one byte in the middle.
fn flip(path: &Path) {
    let mut content = fs::read(path).expect("a file");
    let middle = content.len() / 2;
    content[middle] ^= 1;
    write(path, content);
}

/// Removes the last byte.
fn cut(path: &Path) {
    let content = fs::read(path).expect("a file");
    write(path, &content[..content.len() - 1]);
}

/// Puts what a clone without git-lfs leaves in place of the content.
fn point(path: &Path) {
    write(
        path,
        format!("version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 9\n", "ab".repeat(32)),
    );
}

/// A header that does not fit, in a file of the same size.
fn spoil_header(path: &Path) {
    let mut content = fs::read(path).expect("a file");
    content[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    write(path, content);
}

/// Where a file of a model really lies.
fn content_of(model: &Path, file: &str) -> PathBuf {
    fs::canonicalize(model.join(file)).expect("a file")
}
