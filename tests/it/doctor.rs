//! `doctor`, through the program.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use mlx_cache::store::Store;
use serde_json::Value;

use crate::sandbox::{Sandbox, finish, json};

fn check<'a>(envelope: &'a Value, name: &str) -> &'a Value {
    let checks = envelope["data"]["checks"].as_array().expect("checks");
    checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("no check {name}"))
}

fn status(envelope: &Value, name: &str) -> String {
    check(envelope, name)["status"].as_str().expect("a status").to_owned()
}

fn with_store() -> Sandbox {
    let sandbox = Sandbox::new();
    Store::at(&sandbox.store()).create().expect("a store");
    sandbox
}

#[test]
fn on_a_sound_machine_nothing_fails_and_nothing_is_made() {
    let sandbox = Sandbox::new();
    let (exit, envelope) = sandbox.json(&["doctor"]);
    assert_eq!((exit, &envelope["data"]["summary"]["fail"]), (0, &0.into()), "{envelope}");
    let checks = envelope["data"]["checks"].as_array().expect("checks").len();
    let summary = &envelope["data"]["summary"];
    let counted: u64 = ["ok", "warn", "fail"].iter().map(|key| summary[key].as_u64().expect("a count")).sum();
    assert_eq!(counted, checks as u64);
    assert!(check(&envelope, "mlx")["detail"].as_str().is_some_and(|text| text.starts_with("MLX 0.")));
    assert_eq!(status(&envelope, "blas"), "ok", "{envelope}");
    assert!(!sandbox.store().exists());
}

#[test]
fn a_store_that_others_can_read_fails_and_is_repaired() {
    let sandbox = with_store();
    fs::set_permissions(sandbox.store(), fs::Permissions::from_mode(0o755)).expect("chmod");
    let (exit, envelope) = sandbox.json(&["doctor"]);
    assert_eq!((exit, envelope["status"].as_str()), (1, Some("ok")));
    assert_eq!(status(&envelope, "store"), "fail");
    assert!(check(&envelope, "store")["fix"].as_str().is_some_and(|fix| fix.contains("--fix")));
    let (exit, envelope) = sandbox.json(&["doctor", "--fix"]);
    assert_eq!((exit, status(&envelope, "store").as_str()), (0, "ok"));
    assert!(check(&envelope, "store")["fixed"].is_string());
    assert_eq!(fs::metadata(sandbox.store()).expect("the store").permissions().mode() & 0o777, 0o700);
}

#[test]
fn a_damaged_registry_fails_and_is_rebuilt_with_the_old_one_kept() {
    let sandbox = with_store();
    let registry = sandbox.store().join("registry.db");
    let damaged = vec![b'x'; 8192];
    fs::write(&registry, &damaged).expect("damage");
    for rest in ["registry.db-wal", "registry.db-shm"] {
        let _ = fs::remove_file(sandbox.store().join(rest));
    }
    assert_eq!(sandbox.error(&["status"]).1["code"], "INTEGRITY_FAILED");
    let (exit, envelope) = sandbox.json(&["doctor"]);
    assert_eq!((exit, status(&envelope, "registry").as_str()), (1, "fail"), "{envelope}");
    assert_eq!(fs::read(&registry).expect("registry"), damaged, "doctor alone changes nothing");
    let (exit, envelope) = sandbox.json(&["doctor", "--fix"]);
    assert_eq!((exit, status(&envelope, "registry").as_str()), (0, "ok"), "{envelope}");
    let kept = fs::read_dir(sandbox.store())
        .expect("the store")
        .filter_map(|entry| fs::read(entry.expect("an entry").path()).ok())
        .any(|content| content == damaged);
    assert!(kept, "the old registry is kept");
    assert_eq!(sandbox.json(&["status"]).0, 0);
}

#[test]
fn links_that_lead_nowhere_fail() {
    let sandbox = with_store();
    let folder = sandbox.store().join("models/hf.co/org/name/main");
    fs::create_dir_all(&folder).expect("a snapshot");
    symlink("../../../../../blobs/sha256/ab/abcd", folder.join("model.safetensors")).expect("a link");
    let (exit, envelope) = sandbox.json(&["doctor"]);
    assert_eq!((exit, status(&envelope, "links").as_str()), (1, "fail"), "{envelope}");
    assert!(
        check(&envelope, "links")["detail"].as_str().is_some_and(|text| text.contains("model.safetensors"))
    );
}

#[test]
fn links_that_lead_out_of_the_store_are_a_boundary_violation() {
    let sandbox = with_store();
    let folder = sandbox.store().join("models/huggingface.co/org/name/main");
    fs::create_dir_all(&folder).expect("a snapshot");
    symlink("/etc/hostname", folder.join("model.safetensors")).expect("a link");
    let (exit, envelope) = sandbox.json(&["doctor"]);
    assert_eq!((exit, status(&envelope, "links").as_str()), (1, "fail"), "{envelope}");
    let detail = check(&envelope, "links")["detail"].as_str().expect("a text").to_owned();
    assert!(detail.contains("BOUNDARY_VIOLATION") && detail.contains("model.safetensors"), "{detail}");
}

#[test]
fn unfinished_files_of_dead_processes_are_told_of_and_removed() {
    let sandbox = with_store();
    let left = sandbox.store().join("incomplete/.4000000-0.tmp");
    fs::write(&left, "half a mod").expect("an unfinished file");
    let (exit, envelope) = sandbox.json(&["doctor"]);
    assert_eq!((exit, status(&envelope, "incomplete").as_str()), (0, "warn"), "{envelope}");
    let (_, envelope) = sandbox.json(&["doctor", "--fix"]);
    assert_eq!(status(&envelope, "incomplete"), "ok");
    assert!(!left.exists());
}

#[test]
fn broken_settings_are_a_failed_check() {
    let sandbox = Sandbox::new();
    sandbox.config("threads = 'all'\n");
    let (exit, envelope) = sandbox.json(&["doctor"]);
    assert_eq!((exit, status(&envelope, "settings").as_str()), (1, "fail"));
    assert!(check(&envelope, "settings")["detail"].as_str().is_some_and(|text| text.contains("line 1")));
}

#[test]
fn a_gpu_that_is_set_but_not_there_fails() {
    let sandbox = Sandbox::new();
    let (_, envelope) = sandbox.json(&["doctor"]);
    if check(&envelope, "device")["detail"].as_str().is_some_and(|text| text.starts_with("GPU")) {
        // With a GPU the setting is sound, and this test has nothing to show but that.
        let (_, envelope) = json(sandbox.cmd(&["doctor", "--json"]).env("MLX_CACHE_DEVICE", "gpu"));
        assert_eq!(status(&envelope, "device"), "ok");
        return;
    }
    let (exit, envelope) = json(sandbox.cmd(&["doctor", "--json"]).env("MLX_CACHE_DEVICE", "gpu"));
    assert_eq!((exit, status(&envelope, "device").as_str()), (1, "fail"));
}

#[test]
fn a_token_is_present_and_never_shown() {
    let sandbox = Sandbox::new();
    for args in [vec!["doctor"], vec!["doctor", "--json"], vec!["doctor", "--verbose"]] {
        let outcome = finish(sandbox.cmd(&args).env("HF_TOKEN", "hf_verysecret"));
        let all = outcome.stdout + &outcome.stderr;
        assert!(all.contains("present, from HF_TOKEN") && !all.contains("verysecret"), "{all}");
    }
    let (_, envelope) = json(sandbox.cmd(&["doctor", "--json"]).env("HF_TOKEN", "two words"));
    assert_eq!(status(&envelope, "token"), "warn");
}

#[test]
fn an_unreachable_hub_is_a_warning_and_offline_it_is_not_asked() {
    let sandbox = Sandbox::new();
    // Nothing listens on port 1, and nothing leaves the machine.
    let (exit, envelope) = json(
        sandbox
            .cmd(&["doctor", "--json"])
            .env_remove("MLX_CACHE_OFFLINE")
            .env("HF_ENDPOINT", "http://127.0.0.1:1"),
    );
    assert_eq!((exit, status(&envelope, "hub").as_str()), (0, "warn"), "{envelope}");
    let (_, envelope) = sandbox.json(&["doctor"]);
    assert!(check(&envelope, "hub")["detail"].as_str().is_some_and(|text| text.contains("offline")));
}
