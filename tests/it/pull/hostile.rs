//! Servers that mean harm: an error with a code, little memory, and nothing written outside the store.

use std::process::Stdio;

use serde_json::json;

use super::*;
use crate::hub::{ALWAYS, Content, Fault, On, Seen};

/// What a listing that cannot be meant well may end with.
const DISHONEST: &[&str] = &["INTEGRITY_FAILED", "BOUNDARY_VIOLATION", "HUB_UNAVAILABLE"];

/// An entry of a tree that is as it should be but for these fields.
fn entry(path: &str, changes: &Value) -> Value {
    let content = Content::from("{}");
    let mut entry = json!({"type": "file", "oid": content.git_sha1(), "size": 2, "path": path});
    for (key, value) in changes.as_object().expect("an object") {
        entry[key] = value.clone();
    }
    entry
}

fn plain(path: &str) -> Value {
    entry(path, &json!({}))
}

/// Pulls from a hub that lists these entries beside a harmless one; the error.
fn refuses(entries: &[Value], flags: &[&str]) -> Value {
    let sandbox = Sandbox::new();
    let canary = sandbox.home().join("canary");
    fs::write(&canary, "as it was").expect("written");
    let listing = [&[plain("config.json")], entries].concat();
    let hub = Hub::with(Repository::new("org/evil").file("config.json", "{}"));
    hub.fault(On::Tree, ALWAYS, Fault::body(serde_json::to_vec(&listing).expect("JSON")));
    // Whatever is asked for can be had.
    hub.fault(On::Payloads, ALWAYS, Fault::body("{}"));
    for entry in entries {
        if let Some(path) = entry["path"].as_str().filter(|path| path.len() < 4096) {
            hub.fault(On::Address(path.to_owned()), ALWAYS, Fault::body("{}"));
        }
    }
    let before = surroundings(&sandbox);
    let error = refused(&sandbox, &hub, &[&["org/evil"], flags].concat(), DISHONEST);
    assert_eq!(surroundings(&sandbox), before, "something was written outside the store");
    assert_eq!(fs::read_to_string(&canary).expect("still there"), "as it was");
    assert_eq!(stored(&sandbox), 0, "{error}");
    assert!(error.to_string().len() < 10_000, "an error of {} bytes", error.to_string().len());
    assert!(!error["message"].as_str().expect("a text").contains(['\0', '\n', '\u{1b}']), "{error}");
    error
}

#[test]
fn paths_that_lead_elsewhere_are_refused() {
    let up = "../".repeat(8);
    let long = "n".repeat(10_000_000);
    let deep = "d/".repeat(5_000) + "x.json";
    let paths = [
        "../config.json",
        "a/../../config.json",
        "..",
        ".",
        "",
        "/",
        "/tmp/mlx-cache-was-here.json",
        "a//b.json",
        "a/./b.json",
        "./tokenizer.json",
        "tokenizer.json/",
        "nul\0.json",
        "tokenizer\n.json",
        "escape\u{1b}[2J.json",
        "back\\slash.json",
        "..\\config.json",
        "C:\\windows.json",
        "turned\u{202e}nosj.json",
        &(up.clone() + "canary"),
        &(up + "escaped.json"),
        &deep,
        &long,
    ];
    for_each(paths.iter().map(|path| plain(path)).collect(), |entry| {
        refuses(std::slice::from_ref(entry), &["--all-files"]);
    });
    assert!(!Path::new("/tmp/mlx-cache-was-here.json").exists());
}

#[test]
fn entries_that_make_no_sense_are_refused() {
    let cases = [
        // Two of one name, and one name for a file and a folder.
        vec![plain("tokenizer.json"), plain("tokenizer.json")],
        vec![plain("tokenizer.json"), entry("tokenizer.json", &json!({"size": 3}))],
        vec![plain("a.json"), plain("a.json/b.json")],
        vec![plain("a.json/b.json"), plain("a.json")],
        vec![plain("a.json/b.json/c.json"), plain("a.json")],
        // Sizes.
        vec![entry("tokenizer.json", &json!({"size": -1}))],
        vec![entry("tokenizer.json", &json!({"size": 1e300}))],
        vec![entry("tokenizer.json", &json!({"size": 0.5}))],
        vec![entry("tokenizer.json", &json!({"size": "2"}))],
        vec![entry("tokenizer.json", &json!({"size": null}))],
        vec![entry("tokenizer.json", &json!({"lfs": {"oid": "a".repeat(64), "size": -2, "pointerSize": 1}}))],
        // Checksums.
        vec![entry("tokenizer.json", &json!({"oid": "../../../../canary"}))],
        vec![entry("tokenizer.json", &json!({"oid": "A".repeat(39)}))],
        vec![entry("tokenizer.json", &json!({"oid": null}))],
        vec![entry(
            "tokenizer.json",
            &json!({"lfs": {"oid": "../../../canary", "size": 2, "pointerSize": 1}}),
        )],
        vec![entry("tokenizer.json", &json!({"lfs": {"oid": "g".repeat(64), "size": 2, "pointerSize": 1}}))],
        vec![entry("tokenizer.json", &json!({"lfs": {"size": 2}}))],
        // Shapes.
        vec![json!(null)],
        vec![json!([])],
        vec![json!("tokenizer.json")],
        vec![json!({"type": "file"})],
        vec![entry("tokenizer.json", &json!({"path": ["tokenizer.json"]}))],
        vec![entry("tokenizer.json", &json!({"path": {}}))],
    ];
    for_each(cases.to_vec(), |entries| {
        refuses(entries, &["--all-files"]);
    });
}

#[test]
fn sizes_beyond_any_disk_are_refused_before_anything_is_fetched() {
    for sizes in [&[1_u64 << 60][..], &[u64::MAX / 2, u64::MAX / 2, 2 << 40], &[i64::MAX as u64]] {
        let sandbox = Sandbox::new();
        let mut repository = Repository::tiny("org/huge");
        for (at, size) in sizes.iter().enumerate() {
            repository =
                repository.large(&format!("model-0000{at}-of-00009.safetensors"), Content::claimed(*size));
        }
        let hub = Hub::with(repository);
        let error = refused(&sandbox, &hub, &["org/huge"], &["INSUFFICIENT_DISK", "INTEGRITY_FAILED"]);
        assert_eq!(hub.traffic(), 0, "{error}");
        assert_eq!((stored(&sandbox), left_in(&sandbox, "incomplete").len()), (0, 0));
    }
    // A small one that says it is huge ends the same way, whatever it does then.
    let sandbox = Sandbox::new();
    let hub = Hub::with(Repository::new("org/huge").large("model.safetensors", Content::claimed(1 << 50)));
    let error = refused(&sandbox, &hub, &["org/huge"], &["INSUFFICIENT_DISK"]);
    assert_eq!(number(&error["details"], "bytes_needed"), 1 << 50, "{error}");
    assert!(number(&error["details"], "bytes_free") < 1 << 50);
}

#[test]
fn answers_that_are_no_answers_are_errors() {
    const NO_ANSWER: &[&str] =
        &["HUB_UNAVAILABLE", "INTEGRITY_FAILED", "NETWORK_ERROR", "BOUNDARY_VIOLATION", "SERVER_CRASHED"];
    let nested = |text: &str| text.repeat(200_000).into_bytes();
    let mut cases = Vec::new();
    for on in [On::Info, On::Tree] {
        for body in [
            b"".to_vec(),
            b"<html>Welcome to the hotel, please log in</html>".to_vec(),
            b"null".to_vec(),
            b"{}".to_vec(),
            b"42".to_vec(),
            b"[[[".to_vec(),
            b"{\"sha\": \"../../../..\"}".to_vec(),
            b"{\"sha\": \"main\", \"id\": \"org/tiny\"}".to_vec(),
            b"{\"sha\": 7}".to_vec(),
            b"[{\"type\": \"file\"".to_vec(),
            b"\xff\xfe\x00".to_vec(),
            nested("["),
            nested("{\"a\":"),
        ] {
            cases.push((on.clone(), Fault::body(body)));
        }
        let first = if on == On::Info { "{\"sha\": \"" } else { "[{\"path\": \"" };
        cases.push((on.clone(), Fault::Endless { first: first.into(), then: vec![b'a'; 1 << 16] }));
        cases.push((on.clone(), Fault::Endless { first: b"[".to_vec(), then: b"[".repeat(1 << 16) }));
        let entry = serde_json::to_string(&plain("a.json")).expect("JSON") + ",";
        cases.push((on, Fault::Endless { first: b"[".to_vec(), then: entry.repeat(500).into_bytes() }));
    }
    for_each(cases, |(on, fault)| {
        let (sandbox, hub) = (Sandbox::new(), Hub::with(Repository::tiny("org/tiny")));
        hub.fault(on.clone(), ALWAYS, fault.clone());
        let mut limited = command(&sandbox, &hub, &["org/tiny"]);
        let error = fails(&sandbox, &mut limited, NO_ANSWER);
        assert_eq!(stored(&sandbox), 0);
        assert!(error.to_string().len() < 10_000, "an error of {} bytes", error.to_string().len());
    });
}

#[test]
fn endless_answers_are_not_kept_in_memory() {
    let (sandbox, hub) = (Sandbox::new(), Hub::with(Repository::tiny("org/tiny")));
    hub.fault(On::Tree, ALWAYS, Fault::Endless { first: b"[\"".to_vec(), then: vec![b'a'; 1 << 16] });
    let plain = command(&sandbox, &hub, &["org/tiny"]);
    let mut shell = Command::new("sh");
    // So many KiB of memory are plenty for the program, and little for a list without an end.
    shell
        .args(["-c", "ulimit -v 4000000 2>/dev/null; exec \"$0\" \"$@\""])
        .arg(plain.get_program())
        .args(plain.get_args());
    shell.env_clear().current_dir(sandbox.home()).stdin(Stdio::null());
    for (name, value) in plain.get_envs() {
        shell.env(name, value.unwrap_or_default());
    }
    shell.env_remove("MLX_CACHE_OFFLINE");
    fails(
        &sandbox,
        &mut shell,
        &["HUB_UNAVAILABLE", "INTEGRITY_FAILED", "BOUNDARY_VIOLATION", "SERVER_CRASHED"],
    );
    let sent: u64 = hub.seen().iter().filter(|seen| seen.on == On::Tree).map(Seen::sent).sum();
    assert!(sent < 1 << 30, "{sent} bytes of one list were read");
}

#[test]
fn pages_that_go_round_in_circles_come_to_an_end() {
    let (sandbox, hub) = (Sandbox::new(), Hub::with(Repository::tiny("org/tiny")));
    let endpoint = hub.endpoint();
    for next in [
        format!("<{endpoint}/api/models/org/tiny/tree/main?cursor=0>; rel=\"next\""),
        "<>; rel=\"next\"".to_owned(),
        "<file:///etc/passwd>; rel=\"next\"".to_owned(),
        "<ftp://localhost/>; rel=\"next\"".to_owned(),
        "<http://[::1/>; rel=\"next\"".to_owned(),
    ] {
        hub.heal();
        hub.forget();
        let body = serde_json::to_vec(&[plain("config.json")]).expect("JSON");
        hub.fault(On::Tree, ALWAYS, Fault::Answer { status: 200, headers: vec![("Link", next)], body });
        let codes = &["HUB_UNAVAILABLE", "INTEGRITY_FAILED", "BOUNDARY_VIOLATION", "NETWORK_ERROR"];
        refused(&sandbox, &hub, &["org/tiny"], codes);
        assert!(hub.requests(&On::Tree) < 20_000);
    }
}

#[test]
fn redirects_that_go_round_in_circles_or_to_files_come_to_an_end() {
    let endless = Hub::with(Repository::tiny("org/tiny"));
    for (on, location) in [
        (On::Address("config.json".to_owned()), "/org/tiny/resolve/main/config.json".to_owned()),
        (On::Info, "/api/models/org/tiny".to_owned()),
        (On::Address("model.safetensors".to_owned()), "file:///etc/passwd".to_owned()),
        (On::Address("model.safetensors".to_owned()), "http://".to_owned()),
        (On::Address("model.safetensors".to_owned()), "\u{1}".to_owned()),
        (On::Payload("model.safetensors".to_owned()), String::new()),
    ] {
        let sandbox = Sandbox::new();
        endless.heal();
        endless.forget();
        endless.fault(on.clone(), ALWAYS, Fault::redirect(location.as_str()));
        refused(
            &sandbox,
            &endless,
            &["org/tiny"],
            &["HUB_UNAVAILABLE", "NETWORK_ERROR", "INTEGRITY_FAILED", "SERVER_CRASHED"],
        );
        assert!(endless.seen().len() < 1000, "{on:?} {location}: {} requests", endless.seen().len());
    }
}

/// Makes a store that knows a model of the user's own.
fn with_a_registry(sandbox: &Sandbox) -> (i32, Value) {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/tiny/gguf/llama_Q8_0.gguf");
    sandbox.json(&["add", own.to_str().expect("UTF-8"), "--name", "me/own"])
}

#[test]
fn links_in_the_store_lead_nowhere_else() {
    use std::os::unix::fs::symlink;
    let outside = tempfile::tempdir().expect("a folder");
    fs::write(outside.path().join("config.json"), "not ours").expect("written");
    let repository = Repository::tiny("org/tiny");
    // Each of these may have been placed by somebody who knows where a pull will write.
    for place in ["models/huggingface.co", "models/huggingface.co/org", "models/huggingface.co/org/tiny"] {
        let (sandbox, hub) = (Sandbox::new(), Hub::with(repository.clone()));
        let (status, added) = with_a_registry(&sandbox);
        assert_eq!(status, 0, "{added}");
        let link = sandbox.store().join(place);
        fs::create_dir_all(link.parent().expect("a folder")).expect("folders");
        symlink(outside.path(), &link).expect("linked");
        let outcome = run(&mut command(&sandbox, &hub, &["org/tiny"]));
        assert!(matches!(outcome.status, 0 | 1 | 8), "{place}: {outcome:?}");
        let inside: Vec<String> = files_of(outside.path()).into_keys().collect();
        assert_eq!(inside, ["config.json"], "{place}: something was written outside the store");
    }
    // A part that is a link, and a lock that is one.
    let (sandbox, hub) = (Sandbox::new(), Hub::with(repository.clone()));
    assert_eq!(with_a_registry(&sandbox).0, 0);
    let digest = sha256(&repository.content("model.safetensors"));
    let victim = outside.path().join("config.json");
    for folder in ["incomplete", "locks"] {
        let folder = sandbox.store().join(folder);
        fs::create_dir_all(&folder).expect("a folder");
        for name in [
            digest.clone(),
            format!("{digest}.lock"),
            format!("{digest}.part"),
            format!("{digest}.incomplete"),
        ] {
            symlink(&victim, folder.join(name)).expect("linked");
        }
    }
    let outcome = run(&mut command(&sandbox, &hub, &["org/tiny"]));
    assert!(matches!(outcome.status, 0 | 1 | 8), "{outcome:?}");
    assert_eq!(fs::read_to_string(&victim).expect("still there"), "not ours");
}

#[test]
fn names_of_models_lead_nowhere_else() {
    let (sandbox, hub) = (Sandbox::new(), Hub::with(Repository::tiny("org/tiny")));
    for name in [
        "../etc",
        "org/..",
        "org/a/../../b",
        "/etc",
        "org/na\u{202e}me",
        "org/tiny@../..",
        "org/tiny:../x.gguf",
        "..",
        "",
    ] {
        let before = surroundings(&sandbox);
        refused(&sandbox, &hub, &[name], &["INVALID_REQUEST", "MODEL_NOT_FOUND"]);
        refused(&sandbox, &hub, &["org/tiny", "--revision", "../../x"], &["INVALID_REQUEST"]);
        assert_eq!(surroundings(&sandbox), before);
    }
    assert!(hub.seen().is_empty(), "{:?}", hub.seen());
}
