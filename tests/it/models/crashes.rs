//! A process that ends in the middle of an `add`, by any signal.

use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::*;

/// A model of several files with this much content in all, each of its own.
fn large_model(sandbox: &Sandbox, megabytes: usize) -> PathBuf {
    const SHARDS: usize = 6;
    let folder = sandbox.home().join("large");
    fs::create_dir(&folder).expect("a folder");
    fs::write(folder.join("config.json"), r#"{"model_type": "large"}"#).expect("written");
    let length = megabytes * 1_000_000 / SHARDS;
    for shard in 0..SHARDS {
        let header =
            format!(r#"{{"w{shard}":{{"dtype":"U8","shape":[{length}],"data_offsets":[0,{length}]}}}}"#);
        let mut content = (header.len() as u64).to_le_bytes().to_vec();
        content.extend(header.as_bytes());
        content.extend((0..length).map(|at| (at * (shard + 3)) as u8));
        fs::write(folder.join(format!("model-{shard}.safetensors")), content).expect("written");
    }
    folder
}

fn start(sandbox: &Sandbox, args: &[&str]) -> Child {
    sandbox.cmd(args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("mlx-cache runs")
}

#[test]
fn killed_at_any_moment_it_leaves_the_old_state_or_the_new_one() {
    let sandbox = Sandbox::new();
    let model = large_model(&sandbox, 48);
    let started = Instant::now();
    add(&sandbox, &model, &["--copy"]);
    let whole = started.elapsed();
    data(&sandbox, &["rm", "large", "--yes"]);

    let mut cut_short = 0;
    for step in 0..16 {
        let mut child = start(&sandbox, &["add", "large", "--copy"]);
        thread::sleep(whole * step / 14);
        child.kill().expect("killed");
        cut_short += i32::from(!child.wait().expect("ended").success());

        let known = listed(&sandbox);
        assert!(known.len() <= 1, "{known:?}");
        for blob in blobs(&sandbox) {
            let name = blob.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
            assert_eq!(sha256(&fs::read(&blob).expect("a blob")), name, "half a blob is visible");
        }
        if !known.is_empty() {
            data(&sandbox, &["rm", "large", "--yes"]);
        }
    }
    assert!(cut_short >= 4, "only {cut_short} were cut short");

    let added = add(&sandbox, &model, &["--copy"]);
    let path = Path::new(added["path"].as_str().expect("a path"));
    for entry in fs::read_dir(&model).expect("a folder") {
        let entry = entry.expect("an entry");
        let copied = fs::read(path.join(entry.file_name())).expect("a copy");
        assert!(copied == fs::read(entry.path()).expect("the original"), "{}", entry.path().display());
    }
}

#[test]
fn interrupted_it_ends_with_130_and_takes_back_what_it_copied() {
    let sandbox = Sandbox::new();
    large_model(&sandbox, 200);
    let child = start(&sandbox, &["add", "large", "--copy"]);
    let incomplete = sandbox.store().join("incomplete");
    let is_copying = || fs::read_dir(&incomplete).is_ok_and(|mut files| files.next().is_some());
    let started = Instant::now();
    while !is_copying() && started.elapsed() < Duration::from_secs(30) {
        thread::sleep(Duration::from_millis(1));
    }
    let pid = Pid::from_child(&child);
    kill_process(pid, Signal::INT).expect("interrupted");
    let output = child.wait_with_output().expect("ended");
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    assert!(listed(&sandbox).is_empty());
    assert!(blobs(&sandbox).is_empty());
    assert!(!is_copying());
}

#[test]
fn two_at_once_copy_into_one_model() {
    let sandbox = Sandbox::new();
    large_model(&sandbox, 24);
    let children: Vec<Child> = (0..4).map(|_| start(&sandbox, &["add", "large", "--copy"])).collect();
    for child in children {
        let output = child.wait_with_output().expect("ended");
        assert!(output.status.success(), "{output:?}");
    }
    assert_eq!(names(&listed(&sandbox)), ["local/large"]);
    assert_eq!(blobs(&sandbox).len(), 7);
    for folder in ["incomplete", "locks"] {
        let left = fs::read_dir(sandbox.store().join(folder)).expect("a folder").count();
        assert_eq!(left, 0, "{folder}");
    }
}
