//! `gc`: what goes, what stays, and what another process is just about to use.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::models::{add, blobs, data, listed, names, place, refused, sha256};
use crate::sandbox::Sandbox;

/// The kinds of what was removed, in order, and the bytes freed.
fn collected(report: &Value) -> (Vec<String>, u64) {
    let mut kinds: Vec<String> = report["removed"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|it| it["kind"].as_str().expect("a kind").to_owned())
        .collect();
    kinds.sort();
    (kinds, report["bytes_freed"].as_u64().expect("a size"))
}

/// A store with a model, and content of this many bytes that nothing uses.
fn with_garbage(bytes: usize) -> (Sandbox, PathBuf) {
    let sandbox = Sandbox::new();
    let source = place(&sandbox, "llama_tied", "tiny");
    add(&sandbox, &source, &["--copy"]);
    let content = vec![7; bytes];
    let name = sha256(&content);
    let blob = sandbox.store().join("blobs/sha256").join(&name[..2]).join(&name);
    fs::create_dir_all(blob.parent().expect("a folder")).expect("a folder");
    fs::write(&blob, content).expect("written");
    (sandbox, blob)
}

#[test]
fn unused_content_goes_and_used_content_stays() {
    let (sandbox, blob) = with_garbage(1000);
    let before = blobs(&sandbox).len();
    let plan = data(&sandbox, &["gc", "--dry-run"]);
    assert_eq!(collected(&plan), (vec!["blob".to_owned()], 1000));
    assert!(blob.exists() && plan["dry_run"] == true);

    let outcome = sandbox.run(&["gc"]);
    assert_eq!(outcome.status, 2, "{outcome:?}");
    assert!(outcome.stderr.contains("would remove unused content") && outcome.stderr.contains("--yes"));
    refused(&sandbox, &["gc"], "INVALID_REQUEST", "terminal");
    assert!(blob.exists());

    let report = data(&sandbox, &["gc", "--yes"]);
    assert_eq!(collected(&report), (vec!["blob".to_owned()], 1000));
    assert_eq!(blobs(&sandbox).len(), before - 1);
    assert_eq!(data(&sandbox, &["verify"])["summary"]["ok"], 1);
    assert_eq!(collected(&data(&sandbox, &["gc", "--yes"])), (Vec::new(), 0));
    // Nothing to ask about.
    assert_eq!(sandbox.run(&["gc"]).status, 0);
}

#[test]
fn what_dead_processes_left_goes() {
    let (sandbox, blob) = with_garbage(10);
    fs::remove_file(blob).expect("removed");
    let store = sandbox.store();
    fs::write(store.join("incomplete/.4000000-0.tmp"), "half a model").expect("written");
    fs::write(store.join("locks/abc.lock"), "").expect("written");
    let hidden = store.join("models/local/local/tiny/.4000000-1.tmp");
    fs::create_dir(&hidden).expect("a folder");
    symlink("nothing", hidden.join("model.safetensors")).expect("linked");
    fs::create_dir_all(store.join("models/huggingface.co/org/empty/main")).expect("folders");
    let broken = store.join("models/local/org/broken/0123");
    fs::create_dir_all(&broken).expect("folders");
    symlink("../../../../../blobs/sha256/ab/nothing", broken.join("x.safetensors")).expect("linked");

    let report = data(&sandbox, &["gc", "--yes"]);
    let (kinds, bytes) = collected(&report);
    assert_eq!((kinds.join(" ").as_str(), bytes), ("folder folder folder lock unfinished", 12), "{report}");
    let left: Vec<_> = fs::read_dir(store.join("models"))
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    assert!(!hidden.exists() && !broken.exists(), "{left:?}");
    assert_eq!(fs::read_dir(store.join("incomplete")).expect("a folder").count(), 0);
    assert_eq!(fs::read_dir(store.join("locks")).expect("a folder").count(), 0);
    assert!(!store.join("models/huggingface.co").exists());
    assert_eq!(names(&listed(&sandbox)), ["local/tiny"]);
    assert_eq!(data(&sandbox, &["verify"])["summary"]["ok"], 1);
}

#[test]
fn what_a_running_process_writes_stays() {
    let (sandbox, blob) = with_garbage(10);
    let store = sandbox.store();
    let unfinished = store.join("incomplete/.1-0.tmp");
    fs::write(&unfinished, "half").expect("written");
    let writer = fs::File::open(&unfinished).expect("open");
    writer.lock().expect("locked");
    let lock = store.join("locks/abc.lock");
    let holder = fs::File::create(&lock).expect("a lock");
    holder.lock().expect("locked");
    // As whoever brings content in does.
    let coming = fs::File::open(store.join("blobs/sha256")).expect("the folder");
    coming.lock_shared().expect("locked");

    let report = data(&sandbox, &["gc", "--yes"]);
    assert_eq!(collected(&report), (Vec::new(), 0), "{report}");
    let kept = report["kept"].as_array().expect("a list").len();
    assert_eq!(kept, 2, "{report}");
    assert!(blob.exists() && unfinished.exists() && lock.exists());
    drop((writer, holder, coming));
    let (kinds, _) = collected(&data(&sandbox, &["gc", "--yes"]));
    assert_eq!(kinds, ["blob", "lock", "unfinished"]);
}

#[test]
fn a_whole_model_that_the_registry_does_not_know_stays() {
    let (sandbox, blob) = with_garbage(10);
    fs::remove_file(blob).expect("removed");
    // As a process leaves it that ends between the folder and the rows.
    let database = rusqlite::Connection::open(sandbox.store().join("registry.db")).expect("a database");
    database.execute_batch("PRAGMA foreign_keys = on; DELETE FROM models").expect("forgotten");
    drop(database);
    assert!(listed(&sandbox).is_empty());
    let report = data(&sandbox, &["gc", "--yes"]);
    assert_eq!(collected(&report), (Vec::new(), 0), "{report}");
    assert!(report["kept"][0]["reason"].as_str().expect("a reason").contains("doctor --fix"), "{report}");
    let (_, envelope) = sandbox.json(&["doctor", "--fix"]);
    assert_eq!(names(&listed(&sandbox)), ["local/tiny"], "{envelope}");
    assert_eq!(data(&sandbox, &["verify"])["summary"]["ok"], 1);
}

#[test]
fn files_of_the_user_below_models_stay() {
    let (sandbox, blob) = with_garbage(10);
    fs::remove_file(blob).expect("removed");
    let mine = sandbox.store().join("models/local/org/mine/abc/notes.txt");
    fs::create_dir_all(mine.parent().expect("a folder")).expect("folders");
    fs::write(&mine, "mine").expect("written");
    let report = data(&sandbox, &["gc", "--yes"]);
    assert_eq!(collected(&report), (Vec::new(), 0), "{report}");
    assert!(mine.exists());
}

#[test]
fn a_store_without_a_registry_is_no_garbage() {
    let sandbox = Sandbox::new();
    assert_eq!(collected(&data(&sandbox, &["gc", "--yes"])), (Vec::new(), 0));
    assert!(!sandbox.store().exists(), "gc makes no store");
    let (sandbox, blob) = with_garbage(10);
    fs::remove_file(sandbox.store().join("registry.db")).expect("removed");
    refused(&sandbox, &["gc", "--yes"], "INTEGRITY_FAILED", "registry.db");
    assert!(blob.exists());
}

/// A model of several megabytes, so that copying it takes a while.
fn large_model(sandbox: &Sandbox, name: &str, seed: usize) -> PathBuf {
    let folder = place(sandbox, "llama_tied", name);
    for file in 0..4 {
        let content: Vec<u8> = (0..4_000_000).map(|at: usize| (at * (seed + file * 7 + 3)) as u8).collect();
        fs::write(folder.join(format!("extra-{file}.txt")), content).expect("written");
    }
    folder
}

fn start(sandbox: &Sandbox, args: &[&str]) -> Child {
    sandbox.cmd(args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("mlx-cache runs")
}

#[test]
fn an_add_that_runs_meanwhile_loses_nothing() {
    let sandbox = Sandbox::new();
    for round in 0..3 {
        let name = format!("large{round}");
        let model = large_model(&sandbox, &name, round);
        let mut adding = start(&sandbox, &["add", &name, "--copy"]);
        let mut collections = 0;
        while adding.try_wait().expect("a status").is_none() {
            data(&sandbox, &["gc", "--yes"]);
            collections += 1;
        }
        let output = adding.wait_with_output().expect("ended");
        assert!(output.status.success(), "{output:?}");
        assert!(collections > 0, "gc never ran beside it");
        same_content(&sandbox, &name, &model);
    }
    assert_eq!(data(&sandbox, &["verify"])["summary"]["ok"], 3);
}

/// The copy in the store has the bytes of the original.
fn same_content(sandbox: &Sandbox, name: &str, original: &Path) {
    let path = data(sandbox, &["path", name])["path"].as_str().expect("a path").to_owned();
    for entry in fs::read_dir(original).expect("a folder") {
        let entry = entry.expect("an entry");
        let copy = fs::read(Path::new(&path).join(entry.file_name())).expect("a copy");
        assert!(copy == fs::read(entry.path()).expect("the original"), "{}", entry.path().display());
    }
}

#[test]
fn an_add_that_was_killed_leaves_nothing_that_gc_does_not_find() {
    let sandbox = Sandbox::new();
    large_model(&sandbox, "large", 1);
    for step in 0..8 {
        let mut adding = start(&sandbox, &["add", "large", "--copy"]);
        std::thread::sleep(Duration::from_millis(15 * step));
        adding.kill().expect("killed");
        adding.wait().expect("ended");
        data(&sandbox, &["gc", "--yes"]);
        if listed(&sandbox).is_empty() {
            // A whole folder that is not registered stays, with its content.
            let kept = data(&sandbox, &["gc", "--yes"])["kept"].as_array().expect("a list").len();
            assert_eq!(blobs(&sandbox).is_empty(), kept == 0);
        } else {
            assert_eq!(data(&sandbox, &["verify"])["summary"]["ok"], 1);
            data(&sandbox, &["rm", "large", "--yes"]);
        }
        for folder in ["incomplete", "locks"] {
            let left = fs::read_dir(sandbox.store().join(folder)).map_or(0, Iterator::count);
            assert_eq!(left, 0, "{folder}");
        }
    }
}
