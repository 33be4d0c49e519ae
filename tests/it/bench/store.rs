//! `bench --store`: the disk and the registry on it.

use std::fs::{self, File};

use super::{bench, tests};
use crate::sandbox::Sandbox;

const QUICK: [&str; 5] = ["--store", "-r", "2", "--warmup", "0"];

#[test]
fn the_disk_is_measured_without_a_model_and_left_as_it_was() {
    let sandbox = Sandbox::new();
    // What a killed measurement left goes.
    let left = sandbox.store().join("incomplete/bench");
    fs::create_dir_all(&left).expect("a folder");
    fs::write(left.join("registry.db"), "left").expect("written");

    let data = bench(&sandbox, &QUICK);
    let names = tests(&data);
    for test in ["write", "hash", "copy", "link", "registry-write", "registry-read"] {
        assert!(names.contains(&test), "{test}: {names:?}");
    }
    for result in data["results"].as_array().expect("results") {
        assert_eq!(
            (&result["model"], result["samples"].as_array().map(Vec::len)),
            (&"store".into(), Some(2))
        );
        assert!(result["min"].as_f64() > Some(0.0) && result["p95"].as_f64() >= result["median"].as_f64());
        let unit = result["unit"].as_str().expect("a unit");
        assert!(["MB/s", "links/s", "rows/s", "s"].contains(&unit), "{result}");
    }
    assert_eq!(data["environment"]["device"], "disk");
    for folder in ["incomplete", "locks", "blobs/sha256", "models"] {
        let path = sandbox.store().join(folder);
        assert_eq!(fs::read_dir(&path).map_or(0, Iterator::count), 0, "{folder}");
    }

    // They are kept under a name of their own, and compared.
    let args = [&QUICK[..], &["--compare", "last", "--plot", "disk.svg"]].concat();
    let data = bench(&sandbox, &args);
    assert!(data["baseline"]["changes"].as_array().is_some_and(|changes| changes.len() >= 6), "{data}");
    assert!(fs::read_to_string(sandbox.home().join("disk.svg")).expect("a chart").contains("registry-read"));
    let history = bench(&sandbox, &["--history", "store"]);
    assert_eq!(history["history"].as_array().map(Vec::len), Some(2));
    assert_eq!(history["history"][0]["model"]["reference"], "store");
    let table = sandbox.run(&["bench", "--history", "store"]).stdout;
    assert!(table.contains(" MB/s") && table.contains(" rows/s"), "{table}");
}

#[test]
fn two_at_once_would_measure_each_other() {
    let sandbox = Sandbox::new();
    let locks = sandbox.store().join("locks");
    fs::create_dir_all(&locks).expect("a folder");
    let held = File::create(locks.join("bench.lock")).expect("a file");
    held.lock().expect("the lock");
    assert_eq!(sandbox.error(&["bench", "--store"]).1["code"], "LOCKED");
    drop(held);
    assert_eq!(sandbox.run(&[&["bench"], &QUICK[..]].concat()).status, 0);
}
