//! `export` and `import`: a registry goes to another machine, and hostile files do nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::models::{COMMIT, add, data, listed, names, place, place_in_hub, refused};
use crate::sandbox::{Sandbox, assert_valid, finish, json as run_json};

/// A machine with a copied model, one in a folder, and one in the Hugging Face cache.
fn with_models() -> Sandbox {
    let sandbox = Sandbox::new();
    let copied = place(&sandbox, "llama_tied", "one");
    add(&sandbox, &copied, &["--copy", "--name", "org/copied"]);
    let folder = place(&sandbox, "llama_untied", "two");
    add(&sandbox, &folder, &["--name", "org/folder"]);
    let hub = place_in_hub(&sandbox, "llama_gqa", "models--org--hub", COMMIT);
    add(&sandbox, &hub, &[]);
    sandbox
}

fn export(sandbox: &Sandbox) -> Value {
    let outcome = sandbox.run(&["export"]);
    assert_eq!((outcome.status, outcome.stderr.as_str()), (0, ""), "{outcome:?}");
    let file: Value = serde_json::from_str(&outcome.stdout).expect("JSON");
    assert_valid(&file, "registry");
    file
}

fn copy_tree(from: &Path, to: &Path) {
    for entry in walkdir::WalkDir::new(from) {
        let entry = entry.expect("an entry");
        let to = to.join(entry.path().strip_prefix(from).expect("below"));
        if entry.file_type().is_dir() {
            fs::create_dir_all(to).expect("a folder");
        } else if entry.path_is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(entry.path()).expect("a link"), to).expect("linked");
        } else {
            fs::copy(entry.path(), to).expect("copied");
        }
    }
}

fn references(list: &Value) -> Vec<&str> {
    list.as_array().expect("a list").iter().filter_map(|it| it["reference"].as_str()).collect()
}

#[test]
fn what_is_here_is_registered_and_the_rest_is_listed_with_its_command() {
    let old = with_models();
    let report = data(&old, &["export", "models.json"]);
    assert_eq!((&report["snapshots"], &report["registry"]), (&3.into(), &Value::Null));
    let file = old.home().join("models.json");
    assert_valid(&serde_json::from_slice(&fs::read(&file).expect("a file")).expect("JSON"), "registry");

    // A machine that has the content of the store and the cache, in another place.
    let new = Sandbox::new();
    copy_tree(&old.store().join("blobs"), &new.store().join("blobs"));
    fs::set_permissions(new.store(), fs::Permissions::from_mode(0o700)).expect("private");
    copy_tree(&old.home().join(".cache/huggingface/hub"), &new.home().join("elsewhere/hub"));
    fs::copy(&file, new.home().join("models.json")).expect("copied");
    fs::remove_dir_all(old.home().join("two")).expect("removed");
    let import = |args: &[&str]| {
        let mut command = new.cmd(&[&["import", "models.json", "--json"], args].concat());
        let (status, envelope) = run_json(command.env("HF_HUB_CACHE", new.home().join("elsewhere/hub")));
        assert_eq!(status, 0, "{envelope}");
        envelope["data"].clone()
    };
    let plan = import(&["--dry-run"]);
    assert_eq!(references(&plan["registered"]), ["org/copied", "org/hub"]);
    assert!(!new.store().join("registry.db").exists(), "a dry run makes nothing");

    let report = import(&["--verify"]);
    assert_eq!(references(&report["registered"]), ["org/copied", "org/hub"], "{report}");
    assert_eq!(references(&report["missing"]), ["org/folder"]);
    assert!(
        report["missing"][0]["command"].as_str().expect("a command").contains("mlx-cache add"),
        "{report}"
    );
    assert_eq!(names(&listed(&new)), ["org/copied", "org/hub"]);
    let before: Vec<Value> = listed(&old);
    for model in listed(&new) {
        let same = before.iter().find(|it| it["reference"] == model["reference"]).expect("exported");
        for field in ["revision", "bytes", "files", "kind", "architecture", "parameters", "quantization"] {
            assert_eq!(model[field], same[field], "{field}");
        }
    }
    // What was hashed is remembered.
    assert_eq!(data(&new, &["verify", "--quick"])["summary"]["ok"], 2);
    assert_eq!(data(&new, &["show", "org/copied"])["runnable"], true);
    let again = import(&[]);
    assert!(again["registered"].as_array().expect("a list").iter().all(|it| it["already_known"] == true));
}

#[test]
fn what_is_not_what_it_was_is_missing() {
    let old = with_models();
    let file = export(&old);
    let import = |args: &[&str]| {
        let new = Sandbox::new();
        copy_tree(&old.store().join("blobs"), &new.store().join("blobs"));
        fs::write(new.home().join("models.json"), file.to_string()).expect("written");
        let report = data(&new, &[&["import", "models.json"], args].concat());
        (report["registered"].as_array().expect("a list").len(), report["missing"].clone())
    };
    // Adopted models are where they were.
    let (registered, missing) = import(&[]);
    assert_eq!((registered, references(&missing)), (2, vec!["org/hub"]), "another home has another cache");
    assert_eq!(missing[0]["command"], format!("mlx-cache pull org/hub@{COMMIT}"), "{missing}");
    let weights = old.home().join("two/model.safetensors");
    let mut content = fs::read(&weights).expect("a file");
    *content.last_mut().expect("a byte") ^= 1;
    fs::write(&weights, &content).expect("written");
    assert_eq!(import(&[]).0, 2, "sizes agree");
    let (registered, missing) = import(&["--verify"]);
    assert_eq!((registered, references(&missing)), (1, vec!["org/folder", "org/hub"]));
    assert_eq!(missing[0]["bytes_missing"], content.len() as u64, "{missing}");
}

#[test]
fn an_export_goes_through_a_pipe() {
    let old = with_models();
    let file = export(&old);
    let envelope = data(&old, &["export"]);
    assert_eq!(envelope["registry"]["snapshots"], file["snapshots"]);
    let new = Sandbox::new();
    let mut child = new
        .cmd(&["import", "-", "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    std::io::Write::write_all(&mut child.stdin.take().expect("a pipe"), file.to_string().as_bytes())
        .expect("written");
    let output = child.wait_with_output().expect("ended");
    assert!(output.status.success(), "{output:?}");
    // The folder is where it was; the rest has to be brought.
    assert_eq!(names(&listed(&new)), ["org/folder"]);
}

#[test]
fn a_file_that_exists_is_replaced_only_when_asked_to() {
    let sandbox = with_models();
    fs::write(sandbox.home().join("notes.txt"), "mine").expect("written");
    refused(&sandbox, &["export", "notes.txt"], "INVALID_REQUEST", "notes.txt");
    assert_eq!(fs::read(sandbox.home().join("notes.txt")).expect("a file"), b"mine");
    data(&sandbox, &["export", "notes.txt", "--force"]);
    let outcome = finish(&mut Sandbox::new().cmd(&["export"]));
    assert_eq!(outcome.status, 0, "an empty registry is exported too: {outcome:?}");
}

#[test]
fn a_hostile_file_is_an_error_and_registers_nothing() {
    type Spoil = fn(&mut Value);
    let spoil: [(&str, Spoil); 24] = [
        ("INVALID_REQUEST", |file| file["kind"] = "another".into()),
        ("INVALID_REQUEST", |file| file["version"] = 2.into()),
        ("INVALID_REQUEST", |file| file["version"] = (-1).into()),
        ("INVALID_REQUEST", |file| file["snapshots"] = json!({})),
        ("INVALID_REQUEST", |file| file["snapshots"][0]["host"] = "../..".into()),
        ("INVALID_REQUEST", |file| file["snapshots"][0]["org"] = "..".into()),
        ("INVALID_REQUEST", |file| file["snapshots"][0]["name"] = "a/b".into()),
        ("INVALID_REQUEST", |file| file["snapshots"][0]["name"] = "a\u{0}b".into()),
        ("INVALID_REQUEST", |file| file["snapshots"][0]["revision"] = "../../x".into()),
        ("INVALID_REQUEST", |file| file["snapshots"][0]["origin"] = "stolen".into()),
        ("INVALID_REQUEST", |file| file["snapshots"][0]["files"] = json!([])),
        ("INVALID_REQUEST", |file| file["snapshots"][0]["files"][0]["path"] = "../../../etc/passwd".into()),
        ("INVALID_REQUEST", |file| file["snapshots"][0]["files"][0]["path"] = "/etc/passwd".into()),
        ("INVALID_REQUEST", |file| file["snapshots"][0]["files"][0]["digest"] = "ab".into()),
        ("INVALID_REQUEST", |file| file["snapshots"][0]["files"][0]["bytes"] = (-5).into()),
        ("INVALID_REQUEST", |file| file["snapshots"][0]["files"][0]["bytes"] = u64::MAX.into()),
        ("INVALID_REQUEST", |file| {
            let first = file["snapshots"][0]["files"][0].clone();
            file["snapshots"][0]["files"].as_array_mut().expect("a list").push(first);
        }),
        ("INVALID_REQUEST", |file| {
            let first = file["snapshots"][0].clone();
            file["snapshots"].as_array_mut().expect("a list").push(first);
        }),
        ("INVALID_REQUEST", |file| file["snapshots"][0]["entry"] = "other.gguf".into()),
        ("INVALID_REQUEST", |file| file["snapshots"][0]["architecture"] = "x".repeat(5000).into()),
        ("INVALID_REQUEST", |file| file["snapshots"][1]["place"] = Value::Null),
        ("BOUNDARY_VIOLATION", |file| file["snapshots"][1]["place"]["path"] = "relative".into()),
        ("BOUNDARY_VIOLATION", |file| file["snapshots"][1]["place"]["path"] = "/a/../etc".into()),
        ("BOUNDARY_VIOLATION", |file| {
            file["snapshots"][1]["place"] = json!({ "cache": "hf", "path": "../../etc" });
        }),
    ];
    let old = with_models();
    let mut good = export(&old);
    let order = ["org/copied", "org/folder", "org/hub"];
    for (at, name) in order.iter().enumerate() {
        let full = |it: &Value| {
            format!("{}/{}", it["org"].as_str().expect("org"), it["name"].as_str().expect("name"))
        };
        assert_eq!(full(&good["snapshots"][at]), *name);
    }
    let new = Sandbox::new();
    copy_tree(&old.store().join("blobs"), &new.store().join("blobs"));
    let path = new.home().join("models.json");
    for (at, (code, spoil)) in spoil.into_iter().enumerate() {
        let mut file = good.clone();
        spoil(&mut file);
        fs::write(&path, file.to_string()).expect("written");
        let (_, error) = new.error(&["import", "models.json"]);
        assert_eq!(error["code"], code, "case {at}: {error}");
        assert!(error["message"].as_str().is_some_and(|text| text.len() < 1000), "case {at}: {error}");
    }
    for content in ["", "{", "[]", "null", "\u{0}", &"[".repeat(100_000)] {
        fs::write(&path, content).expect("written");
        refused(&new, &["import", "models.json"], "INVALID_REQUEST", "models.json");
    }
    // Into our own store.
    good["snapshots"][1]["place"]["path"] = new.store().join("blobs").to_str().expect("UTF-8").into();
    fs::write(&path, good.to_string()).expect("written");
    refused(&new, &["import", "models.json"], "BOUNDARY_VIOLATION", "blobs");
    refused(&new, &["import", "absent.json"], "FILE_NOT_FOUND", "absent.json");
    refused(&new, &["import", "/dev/zero"], "IO_ERROR", "/dev/zero");
    assert!(!new.store().join("registry.db").exists(), "nothing was registered");
}

#[test]
fn a_name_that_another_model_has_is_not_taken() {
    let old = with_models();
    let file = export(&old);
    let new = Sandbox::new();
    fs::write(new.home().join("models.json"), file.to_string()).expect("written");
    let other = place(&new, "mistral", "other");
    add(&new, &other, &["--name", "org/folder"]);
    let report = data(&new, &["import", "models.json"]);
    let missing = report["missing"].as_array().expect("a list");
    let folder = missing.iter().find(|it| it["reference"] == "org/folder").expect("listed");
    assert!(folder["reason"].as_str().expect("a reason").contains("another model"), "{folder}");
    assert_eq!(folder["command"], Value::Null);
    assert_eq!(listed(&new).len(), 1);
}
