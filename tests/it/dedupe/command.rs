//! The command as a user meets it.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::sandbox::Sandbox;

fn write(sandbox: &Sandbox, name: &str, content: &[u8]) -> PathBuf {
    let path = sandbox.home().join(name);
    fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
    fs::write(&path, content).expect("a file");
    path
}

/// Three equal files in three places, and one that only looks like them.
fn places(sandbox: &Sandbox) -> [PathBuf; 3] {
    let content = vec![9; 500_000];
    let digest = crate::models::sha256(&content);
    let mut near = content.clone();
    near[250_000] = 8;
    write(sandbox, ".lmstudio/models/publisher/name/near.gguf", &near);
    let hub = ".cache/huggingface/hub/models--org--name";
    write(sandbox, &format!("{hub}/refs/main"), "0".repeat(40).as_bytes());
    let blob = write(sandbox, &format!("{hub}/blobs/{digest}"), &content);
    let snapshot = sandbox.home().join(hub).join(format!("snapshots/{}", "0".repeat(40)));
    fs::create_dir_all(&snapshot).expect("folders");
    std::os::unix::fs::symlink(format!("../../blobs/{digest}"), snapshot.join("model.gguf")).expect("a link");
    let studio = write(sandbox, ".lmstudio/models/publisher/name/model.gguf", &content);
    let other = write(sandbox, "models/model.gguf", &content);
    [blob, studio, other]
}

fn data(sandbox: &Sandbox, args: &[&str]) -> Value {
    let (status, envelope) = sandbox.json(args);
    assert_eq!(status, 0, "{envelope}");
    envelope["data"].clone()
}

#[test]
fn it_shows_what_it_would_do_and_does_it_when_told() {
    let sandbox = Sandbox::new();
    let places = places(&sandbox);
    let plan = data(&sandbox, &["dedupe", "--path", "models"]);
    assert_eq!((&plan["applied"], &plan["bytes_reclaimable"]), (&false.into(), &1_000_000.into()), "{plan}");
    assert_eq!(plan["groups"][0]["keep"]["how"], "moves");
    assert_eq!(plan["groups"][0]["replace"].as_array().expect("files").len(), 3);
    assert!(places.iter().all(|path| !path.is_symlink()), "a plan changes nothing");

    let outcome = sandbox.run(&["dedupe", "--path", "models", "--apply"]);
    assert_eq!(outcome.status, 2, "{outcome:?}");
    assert!(
        outcome.stderr.contains("--yes") && outcome.stderr.contains("would replace 3 files"),
        "{outcome:?}"
    );
    assert!(places.iter().all(|path| !path.is_symlink()));

    let outcome = sandbox.run(&["dedupe", "--path", "models", "--apply", "--yes"]);
    assert!(outcome.stdout.contains("replaced 3 of 3 files, 1.0 MB reclaimed"), "{outcome:?}");
    for path in &places {
        let target = fs::read_link(path).expect("a link");
        assert!(target.starts_with(sandbox.store().join("links")), "{}", target.display());
        assert_eq!(fs::read(path).expect("the content").len(), 500_000);
    }
    let readme = fs::read_to_string(sandbox.store().join("README.txt")).expect("a word to the finder");
    assert!(readme.contains("mlx-cache dedupe --undo"));
    let outcome = sandbox.run(&["dedupe", "--path", "models"]);
    assert!(outcome.stdout.contains("nothing to do"), "{outcome:?}");
}

#[test]
fn a_group_or_a_path_can_be_undone_by_itself() {
    let sandbox = Sandbox::new();
    let [blob, studio, other] = places(&sandbox);
    let digest = crate::models::sha256(&vec![9; 500_000]);
    data(&sandbox, &["dedupe", "--path", "models", "--apply", "--yes"]);
    let undone = data(&sandbox, &["dedupe", "--undo", "models", "--yes"]);
    assert_eq!(undone["undone"].as_array().expect("links").len(), 1, "{undone}");
    assert!(!other.is_symlink() && studio.is_symlink() && blob.is_symlink());
    let (status, error) = sandbox.error(&["dedupe", "--undo", "models", "--yes"]);
    assert_eq!((status, &error["code"]), (3, &"FILE_NOT_FOUND".into()), "{error}");
    let (status, error) = sandbox.error(&["dedupe", "--undo", &digest[..12]]);
    assert_eq!(status, 2, "nobody can be asked: {error}");
    let undone = data(&sandbox, &["dedupe", "--undo", &digest[..12], "--yes"]);
    assert_eq!(undone["undone"].as_array().expect("links").len(), 2, "{undone}");
    assert!(!studio.is_symlink() && !blob.is_symlink());
    assert!(!sandbox.store().join("blobs/sha256").join(&digest[..2]).join(&digest).exists());
    assert_eq!(data(&sandbox, &["dedupe", "--undo", "--yes"])["undone"], Value::Array(Vec::new()));
}

#[test]
fn content_that_others_use_outlives_its_model() {
    let sandbox = Sandbox::new();
    let fixture = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/tiny/llama_tied");
    let copy = sandbox.home().join(".lmstudio/models/publisher/tiny");
    fs::create_dir_all(&copy).expect("folders");
    for name in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        fs::copy(fixture.join(name), copy.join(name)).expect("a copy");
    }
    let weights = fs::read(copy.join("model.safetensors")).expect("weights");
    data(&sandbox, &["add", copy.to_str().expect("UTF-8"), "--copy", "--name", "org/tiny"]);
    let deduped = data(&sandbox, &["dedupe", "--apply", "--yes", "--min-size", "0"]);
    assert_eq!(deduped["groups"][0]["keep"]["how"], "stored", "{deduped}");
    assert!(copy.join("model.safetensors").is_symlink());

    let (status, error) = sandbox.error(&["rm", "org/tiny", "--yes"]);
    assert_eq!((status, &error["code"]), (9, &"LOCKED".into()), "{error}");
    let outcome = sandbox.run(&["gc", "--yes"]);
    assert_eq!(outcome.status, 0, "{outcome:?}");
    assert_eq!(fs::read(copy.join("model.safetensors")).expect("LM Studio's"), weights);
    data(&sandbox, &["rm", "org/tiny", "--yes", "--restore-links"]);
    assert!(!copy.join("model.safetensors").is_symlink());
    assert_eq!(fs::read(copy.join("model.safetensors")).expect("LM Studio's"), weights);
}

#[test]
fn a_claim_is_never_trusted() {
    let sandbox = Sandbox::new();
    let content = vec![9; 500_000];
    let digest = crate::models::sha256(&content);
    let blobs = ".ollama/models/blobs";
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "config": {"mediaType": "x", "digest": format!("sha256:{digest}"), "size": 500_000},
        "layers": [{"mediaType": "application/vnd.ollama.image.model", "digest": format!("sha256:{digest}"), "size": 500_000}],
    });
    write(
        &sandbox,
        ".ollama/models/manifests/registry.ollama.ai/library/m/latest",
        manifest.to_string().as_bytes(),
    );
    // Of the right size, but not what its name says.
    let wrong = write(&sandbox, &format!("{blobs}/sha256-{digest}"), &vec![1; 500_000]);
    let right =
        write(&sandbox, &format!(".cache/huggingface/hub/models--org--name/blobs/{digest}"), &content);
    let plan = data(&sandbox, &["dedupe"]);
    assert_eq!(plan["groups"].as_array().expect("groups").len(), 1, "the names say so: {plan}");
    let done = data(&sandbox, &["dedupe", "--apply", "--yes"]);
    let skipped = done["skipped"].as_array().expect("skipped");
    assert!(
        skipped.iter().any(|file| file["reason"].as_str().is_some_and(|why| why.contains("SHA-256"))),
        "{done}"
    );
    assert_eq!(fs::read(&wrong).expect("a file"), vec![1; 500_000]);
    assert_eq!(fs::read(&right).expect("a file"), content);
    assert!(!wrong.is_symlink());
}

#[test]
fn what_was_read_is_remembered_until_it_changes() {
    let sandbox = Sandbox::new();
    let [_, studio, _] = places(&sandbox);
    let first = data(&sandbox, &["dedupe", "--path", "models"]);
    assert!(first["bytes_read"].as_u64() > Some(1_000_000), "{first}");
    let second = data(&sandbox, &["dedupe", "--path", "models"]);
    assert_eq!((&second["bytes_read"], &second["groups"]), (&0.into(), &first["groups"]));
    fs::write(&studio, vec![7; 500_000]).expect("written");
    let third = data(&sandbox, &["dedupe", "--path", "models"]);
    assert_eq!(third["groups"][0]["replace"].as_array().expect("files").len(), 2, "{third}");
}

#[test]
fn status_estimates_what_could_be_reclaimed() {
    let sandbox = Sandbox::new();
    places(&sandbox);
    let estimate = |sandbox: &Sandbox| data(sandbox, &["status"])["reclaimable_bytes"].clone();
    assert_eq!(estimate(&sandbox), 0, "of LM Studio's file nothing is known yet");
    data(&sandbox, &["dedupe"]);
    assert_eq!(estimate(&sandbox), 500_000);
    assert!(sandbox.run(&["status"]).stdout.contains("about 500 kB"));
    data(&sandbox, &["dedupe", "--apply", "--yes"]);
    assert_eq!(estimate(&sandbox), 0);
}

#[test]
fn doctor_tells_of_links_that_their_tools_changed_and_of_links_that_lead_out() {
    let sandbox = Sandbox::new();
    let [blob, studio, other] = places(&sandbox);
    data(&sandbox, &["dedupe", "--path", "models", "--apply", "--yes"]);
    let check = |args: &[&str], name: &str| {
        let (_, envelope) = sandbox.json(args);
        let checks = envelope["data"]["checks"].as_array().expect("checks").clone();
        checks.into_iter().find(|check| check["name"] == name).expect("a check")
    };
    assert_eq!(check(&["doctor"], "linked files")["status"], "ok");
    assert_eq!(check(&["doctor"], "boundaries")["status"], "ok");

    // One tool deletes, one replaces, one deletes through its link as older huggingface_hub releases do.
    fs::remove_file(&studio).expect("removed");
    fs::remove_file(&other).expect("removed");
    fs::write(&other, "new").expect("written");
    fs::remove_file(fs::read_link(&blob).expect("a link")).expect("removed");
    let found = check(&["doctor"], "linked files");
    assert_eq!(found["status"], "warn");
    assert!(found["detail"].as_str().is_some_and(|text| text.contains("3 of 3")), "{found}");
    let fixed = check(&["doctor", "--fix"], "linked files");
    assert_eq!((&fixed["status"], fixed["fixed"].is_string()), (&"ok".into(), true), "{fixed}");
    assert!(blob.symlink_metadata().is_err() && studio.symlink_metadata().is_err());
    assert_eq!(fs::read(&other).expect("the new file"), b"new");

    let outside = write(&sandbox, "outside/secret.gguf", b"secret");
    std::os::unix::fs::symlink(outside, studio).expect("a link");
    let found = check(&["doctor"], "boundaries");
    assert_eq!(found["status"], "fail");
    assert!(found["detail"].as_str().is_some_and(|text| text.starts_with("BOUNDARY_VIOLATION")), "{found}");
}

#[test]
fn what_is_not_there_is_told() {
    let sandbox = Sandbox::new();
    let (status, error) = sandbox.error(&["dedupe", "--source", "ollama"]);
    assert_eq!((status, &error["code"]), (3, &"FILE_NOT_FOUND".into()), "{error}");
    let (status, _) = sandbox.error(&["dedupe", "--path", "absent"]);
    assert_eq!(status, 3);
    let (status, _) = sandbox.error(&["dedupe", "--undo", "--apply"]);
    assert_eq!(status, 2);
    assert_eq!(data(&sandbox, &["dedupe"])["groups"], Value::Array(Vec::new()));
    assert!(!sandbox.store().exists(), "nothing was made by looking at nothing");
}
