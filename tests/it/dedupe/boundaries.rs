//! What must not be touched is not: other users' files, other filesystems, links that lead out, what other
//! programs write, and the store itself.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::sandbox::Sandbox;

fn content(kind: u8) -> Vec<u8> {
    vec![kind; 100_000]
}

fn write(sandbox: &Sandbox, name: &str, kind: u8) -> PathBuf {
    let path = sandbox.home().join(name);
    fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
    fs::write(&path, content(kind)).expect("a file");
    path
}

fn dedupe(sandbox: &Sandbox, args: &[&str]) -> Value {
    let (status, envelope) = sandbox.json(&[&["dedupe"], args].concat());
    assert_eq!(status, 0, "{envelope}");
    envelope["data"].clone()
}

/// The reason why a file was passed over.
fn reason(data: &Value, path: &Path) -> String {
    let skipped = data["skipped"].as_array().expect("skipped");
    let found = skipped.iter().find(|file| file["path"].as_str() == path.to_str());
    found.unwrap_or_else(|| panic!("{} is not in {data}", path.display()))["reason"]
        .as_str()
        .expect("a reason")
        .to_owned()
}

fn groups(data: &Value) -> usize {
    data["groups"].as_array().expect("groups").len()
}

#[test]
fn roots_may_be_links_lie_in_one_another_and_be_named_with_detours() {
    let sandbox = Sandbox::new();
    let home = sandbox.home().canonicalize().expect("a path");
    write(&sandbox, "real/a/one.gguf", 1);
    write(&sandbox, "real/two.gguf", 1);
    symlink("real", sandbox.home().join("link")).expect("a link");
    let paths = ["--path", "link", "--path", "real/a", "--path", "real/a/../", "--path", "real"];
    let data = dedupe(&sandbox, &[&paths[..], &["--apply", "--yes"]].concat());
    assert_eq!((groups(&data), &data["bytes_reclaimed"]), (1, &100_000.into()), "{data}");
    let replaced = data["groups"][0]["replace"].as_array().expect("files");
    assert_eq!(replaced.len(), 2, "each file once: {data}");
    for file in replaced {
        assert!(Path::new(file["path"].as_str().expect("a path")).starts_with(home.join("real")), "{data}");
    }
    assert!(sandbox.home().join("link").is_symlink());
    assert_eq!(fs::read(sandbox.home().join("link/a/one.gguf")).expect("a file"), content(1));
}

#[test]
fn the_store_is_no_folder_to_dedupe() {
    let sandbox = Sandbox::new();
    write(&sandbox, "models/one.gguf", 1);
    write(&sandbox, "models/two.gguf", 1);
    dedupe(&sandbox, &["--path", "models", "--apply", "--yes"]);
    let (status, error) = sandbox.error(&["dedupe", "--path", ".mlx-cache/blobs"]);
    assert!(status == 2 || status == 8, "{error}");
    // A folder with the store in it is looked through but for the store.
    let before = fs::read_link(sandbox.home().join("models/one.gguf")).expect("a link");
    let data = dedupe(&sandbox, &["--path", ".", "--apply", "--yes", "--min-size", "0"]);
    assert_eq!(groups(&data), 0, "{data}");
    assert_eq!(fs::read_link(sandbox.home().join("models/one.gguf")).expect("a link"), before);
}

#[test]
fn a_cache_named_as_a_folder_keeps_the_rules_of_its_tool() {
    let sandbox = Sandbox::new();
    let hub = ".cache/huggingface/hub/models--org--name";
    let blob = write(&sandbox, &format!("{hub}/blobs/{}", "a".repeat(40)), 1);
    fs::create_dir_all(sandbox.home().join(hub).join("snapshots/c1")).expect("folders");
    let entry = sandbox.home().join(hub).join("snapshots/c1/model.gguf");
    symlink(format!("../../blobs/{}", "a".repeat(40)), &entry).expect("a link");
    write(&sandbox, "copy/model.gguf", 1);
    let data = dedupe(&sandbox, &["--path", ".", "--source", "store", "--apply", "--yes"]);
    assert_eq!(groups(&data), 0, "the cache was not asked for: {data}");
    let data = dedupe(&sandbox, &["--path", ".", "--apply", "--yes"]);
    assert_eq!(groups(&data), 1, "{data}");
    assert!(blob.is_symlink());
    assert_eq!(fs::read_link(&entry).expect("a link"), Path::new("../../blobs").join("a".repeat(40)));
    assert_eq!(fs::read(&entry).expect("a file"), content(1));
}

#[test]
fn what_is_open_for_writing_is_left_alone() {
    let sandbox = Sandbox::new();
    let home = sandbox.home().canonicalize().expect("a path");
    write(&sandbox, "models/one.gguf", 1);
    let open = write(&sandbox, "models/two.gguf", 1);
    let writer = fs::File::options().append(true).open(&open).expect("open");
    let data = dedupe(&sandbox, &["--path", "models", "--apply", "--yes"]);
    if cfg!(any(target_os = "linux", target_os = "macos")) {
        assert!(reason(&data, &home.join("models/two.gguf")).contains("open in another program"), "{data}");
        assert!(!open.is_symlink());
    }
    drop(writer);
    let data = dedupe(&sandbox, &["--path", "models", "--apply", "--yes"]);
    assert_eq!(data["bytes_reclaimed"], 100_000, "{data}");
}

#[test]
fn files_of_other_users_are_left_alone() {
    if !rustix::process::geteuid().is_root() {
        // Only root can make a file another user's; who is not root finds one.
        let sandbox = Sandbox::new();
        let data = dedupe(&sandbox, &["--path", "/usr/share"]);
        assert_eq!(groups(&data), 0, "{data}");
        return;
    }
    let sandbox = Sandbox::new();
    let home = sandbox.home().canonicalize().expect("a path");
    write(&sandbox, "models/one.gguf", 1);
    let other = write(&sandbox, "models/two.gguf", 1);
    std::os::unix::fs::chown(&other, Some(4321), Some(4321)).expect("another owner");
    let data = dedupe(&sandbox, &["--path", "models", "--apply", "--yes"]);
    assert!(reason(&data, &home.join("models/two.gguf")).contains("another user"), "{data}");
    write(&sandbox, "theirs/one.gguf", 2);
    write(&sandbox, "theirs/two.gguf", 2);
    std::os::unix::fs::chown(sandbox.home().join("theirs"), Some(4321), Some(4321)).expect("another owner");
    let data = dedupe(&sandbox, &["--path", "theirs", "--apply", "--yes"]);
    assert!(reason(&data, &home.join("theirs")).contains("another user"), "{data}");
    assert_eq!(groups(&data), 0, "{data}");
}

#[test]
fn names_outside_bind_a_file() {
    let sandbox = Sandbox::new();
    let home = sandbox.home().canonicalize().expect("a path");
    let bound = write(&sandbox, "models/one.gguf", 1);
    write(&sandbox, "models/two.gguf", 1);
    write(&sandbox, "models/three.gguf", 1);
    fs::create_dir(sandbox.home().join("elsewhere")).expect("a folder");
    fs::hard_link(&bound, sandbox.home().join("elsewhere/name")).expect("a hard link");
    let data = dedupe(&sandbox, &["--path", "models", "--apply", "--yes"]);
    assert!(reason(&data, &home.join("models/one.gguf")).contains("outside"), "{data}");
    assert!(!bound.is_symlink());
    assert_eq!(data["bytes_reclaimed"], 100_000, "{data}");
}

/// A folder on another filesystem than the sandbox, if the system has one that everybody may write to.
#[cfg(target_os = "linux")]
fn other_filesystem(sandbox: &Sandbox) -> Option<tempfile::TempDir> {
    let device = |path: &Path| mlx_cache::fs::entry_at(path).map(|entry| entry.stamp.device).ok();
    let folder = tempfile::tempdir_in("/dev/shm").ok()?;
    (device(folder.path()) != device(sandbox.home())).then_some(folder)
}

#[test]
#[cfg(target_os = "linux")]
fn across_filesystems_only_symlinks_lead_and_only_when_asked_for() {
    let sandbox = Sandbox::new();
    let other = other_filesystem(&sandbox).expect("/dev/shm is another filesystem than the temporary folder");
    let far: Vec<PathBuf> = ["one.gguf", "two.gguf"].map(|name| other.path().join(name)).to_vec();
    for path in &far {
        fs::write(path, content(1)).expect("a file");
    }
    let near = write(&sandbox, "models/near.gguf", 1);
    let far_root = other.path().to_str().expect("UTF-8");
    let roots = ["--path", "models", "--path", far_root];
    let near_path = near.canonicalize().expect("a path");

    let data = dedupe(&sandbox, &[&roots[..], &["--strategy", "auto"]].concat());
    assert!(reason(&data, &near_path).contains("another filesystem"), "{data}");
    assert_eq!(data["bytes_reclaimable"], 100_000, "the two that lie together: {data}");
    let data = dedupe(&sandbox, &[&roots[..], &["--apply", "--yes"]].concat());
    assert_eq!(data["bytes_reclaimed"], 200_000, "{data}");
    for path in far.iter().chain([&near]) {
        assert!(path.is_symlink() && fs::read(path).expect("a file") == content(1), "{}", path.display());
    }
    assert_eq!(fs::read_dir(other.path()).expect("a folder").count(), 2);
    let (status, envelope) = sandbox.json(&["dedupe", "--undo", "--yes"]);
    assert_eq!(status, 0, "{envelope}");
    for path in far.iter().chain([&near]) {
        assert!(!path.is_symlink() && fs::read(path).expect("a file") == content(1), "{}", path.display());
    }
    assert_eq!(fs::read_dir(other.path()).expect("a folder").count(), 2);

    // Alone on the other filesystem: one is copied into the store, two come back.
    fs::remove_file(&near).expect("removed");
    let data = dedupe(&sandbox, &["--path", far_root, "--apply", "--yes"]);
    assert_eq!(
        (&data["groups"][0]["keep"]["how"], &data["bytes_reclaimed"]),
        (&"copies".into(), &100_000.into())
    );
    sandbox.json(&["dedupe", "--undo", "--yes"]);
    assert!(far.iter().all(|path| !path.is_symlink() && fs::read(path).expect("a file") == content(1)));
}
