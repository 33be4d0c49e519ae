use super::*;
use crate::models::{COMMIT, data, place, place_in_hub, refused};

/// The statuses of the entries of a report.
fn statuses(report: &Value) -> Vec<&str> {
    let entries = report["entries"].as_array().expect("a list").iter();
    entries.filter_map(|entry| entry["status"].as_str()).collect()
}

/// A model in the store by this name.
fn stored(sandbox: &Sandbox, fixture: &str, name: &str) -> PathBuf {
    let from = place(
        sandbox,
        fixture,
        &format!("from/{}", Path::new(fixture).file_name().expect("a name").display()),
    );
    let added = data(sandbox, &["add", from.to_str().expect("UTF-8"), "--copy", "--name", name]);
    fs::remove_dir_all(sandbox.home().join("from")).expect("gone");
    PathBuf::from(added["models"][0]["path"].as_str().expect("a path"))
}

/// Names under the store's links/.
fn names_for_links(sandbox: &Sandbox) -> usize {
    let names = walkdir::WalkDir::new(sandbox.store().join("links")).into_iter().filter_map(Result::ok);
    names.filter(|entry| entry.file_type().is_file()).count()
}

#[test]
fn a_folder_of_links_is_loaded_by_any_tool_and_taken_away_again() {
    let sandbox = Sandbox::new();
    stored(&sandbox, "llama_tied", "me/tiny");
    let target = sandbox.home().join("shelf");
    fs::create_dir(&target).expect("a folder");
    fs::write(target.join("mine"), "x").expect("written");
    let (before, args) = (picture(&target), ["link", "me/tiny", "--to", "shelf"]);
    let planned = data(&sandbox, &[&args[..], &["--dry-run"]].concat());
    assert_eq!((&planned["dry_run"], statuses(&planned)), (&true.into(), vec!["made"; 4]));
    refused(&sandbox, &args, "INVALID_REQUEST", "no terminal");
    assert_eq!(picture(&target), before, "nothing happens before it is asked for");

    let made = data(&sandbox, &[&args[..], &["--yes"]].concat());
    assert_eq!((&made["to"], statuses(&made)), (&"folder".into(), vec!["made"; 4]));
    let model = target.join("tiny");
    let weights = model.join("model.safetensors");
    let name = fs::read_link(&weights).expect("a link");
    assert!(
        name.starts_with(sandbox.store().canonicalize().expect("a store").join("links/folder")),
        "{name:?}"
    );
    assert_eq!(names_for_links(&sandbox), 4, "each link has a name of its own");
    let run = data(&sandbox, &["run", model.to_str().expect("UTF-8"), "Hi", "-n", "2"]);
    assert_eq!(run["usage"]["generated_tokens"], 2);
    // Again: nothing is left to do, so nothing is asked.
    assert_eq!(statuses(&data(&sandbox, &args)), vec!["present"; 4]);

    // A tool that deletes through its link takes away one name, not the content.
    fs::remove_file(&name).expect("gone");
    assert!(
        data(&sandbox, &["verify"])["checked"].as_array().is_some_and(|checked| checked[0]["status"] == "ok")
    );
    let undone = data(&sandbox, &[&args[..], &["--undo", "--yes"]].concat());
    assert!(statuses(&undone).iter().all(|status| matches!(*status, "removed" | "kept")), "{undone}");
    let _ = fs::remove_file(&weights);
    let _ = fs::remove_dir(&model);
    assert_eq!(picture(&target), before);
    assert_eq!(names_for_links(&sandbox), 0);
    data(&sandbox, &["run", "me/tiny", "Hi", "-n", "1"]);
}

#[test]
fn a_model_that_goes_leaves_files_of_their_own_to_whom_it_was_shown() {
    let sandbox = Sandbox::new();
    stored(&sandbox, "llama_tied", "me/tiny");
    let shelf = sandbox.home().join("shelf");
    fs::create_dir(&shelf).expect("a folder");
    data(&sandbox, &["link", "me/tiny", "--to", "shelf", "--yes"]);
    refused(&sandbox, &["rm", "me/tiny", "--yes"], "LOCKED", "shelf");
    let removed = data(&sandbox, &["rm", "me/tiny", "--restore-links", "--yes"]);
    assert_eq!(removed["restored"].as_array().expect("a list").len(), 4, "{removed}");
    for file in fs::read_dir(shelf.join("tiny")).expect("a folder").map(|file| file.expect("a file").path()) {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/tiny/llama_tied");
        let content = fs::read(fixture.join(file.file_name().expect("a name"))).expect("a fixture");
        assert!(fs::symlink_metadata(&file).expect("a file").is_file(), "{}", file.display());
        assert_eq!(fs::read(&file).expect("a file"), content, "{}", file.display());
    }
    assert_eq!(names_for_links(&sandbox), 0);
}

#[test]
fn nothing_of_another_tool_is_replaced() {
    let sandbox = Sandbox::new();
    stored(&sandbox, "llama_tied", "me/tiny");
    let target = sandbox.home().join("shelf");
    fs::create_dir_all(target.join("tiny")).expect("a folder");
    fs::write(target.join("tiny/model.safetensors"), "mine").expect("written");
    refused(&sandbox, &["link", "me/tiny", "--to", "shelf", "--yes"], "INVALID_REQUEST", "is there already");
    assert_eq!(fs::read(target.join("tiny/model.safetensors")).expect("still there"), b"mine");
    assert_eq!(fs::read_dir(target.join("tiny")).expect("a folder").count(), 1);
    // Nor is anything made by way of a link that leads out.
    fs::remove_dir_all(target.join("tiny")).expect("gone");
    fs::create_dir(sandbox.home().join("elsewhere")).expect("a folder");
    link(sandbox.home().join("elsewhere"), &target.join("tiny"));
    refused(&sandbox, &["link", "me/tiny", "--to", "shelf", "--yes"], "BOUNDARY_VIOLATION", "tiny");
    assert_eq!(fs::read_dir(sandbox.home().join("elsewhere")).expect("a folder").count(), 0);
    for (args, code, told) in [
        (["link", "me/tiny", "--to", "absent"], "FILE_NOT_FOUND", "absent"),
        (["link", "me/tiny", "--to", "ollama"], "FILE_NOT_FOUND", "Ollama"),
        (["link", "me/tiny", "--to", "lmstudio"], "FILE_NOT_FOUND", "LM Studio"),
        (["link", "me/tiny", "--to", "hf"], "INVALID_REQUEST", "commit"),
        (["link", "me/absent", "--to", "hf"], "MODEL_NOT_FOUND", "me/absent"),
    ] {
        refused(&sandbox, &args, code, told);
    }
    let adopted = place_in_hub(&sandbox, "llama_gqa", "models--org--tiny", COMMIT);
    data(&sandbox, &["add", adopted.to_str().expect("UTF-8")]);
    refused(&sandbox, &["link", "org/tiny", "--to", "shelf"], "INVALID_REQUEST", "store does not hold");
}

#[test]
fn a_commit_of_the_hub_becomes_a_snapshot_of_its_cache() {
    let sandbox = Sandbox::new();
    let hub = sandbox.home().join(".cache/huggingface/hub");
    let from = place_in_hub(&sandbox, "llama_tied", "models--org--tiny", COMMIT);
    data(&sandbox, &["add", from.to_str().expect("UTF-8"), "--copy"]);
    fs::remove_dir_all(sandbox.home().join(".cache")).expect("gone");
    let args = ["link", "org/tiny", "--to", "hf"];
    assert_eq!(statuses(&data(&sandbox, &[&args[..], &["--dry-run"]].concat())), vec!["made"; 9]);
    assert!(!hub.exists());
    let made = data(&sandbox, &[&args[..], &["--yes"]].concat());
    assert_eq!((&made["name"], statuses(&made)), (&"org/tiny".into(), vec!["made"; 9]));

    let repository = hub.join("models--org--tiny");
    assert_eq!(fs::read(repository.join("refs/main")).expect("a ref"), COMMIT.as_bytes());
    let snapshot = repository.join("snapshots").join(COMMIT);
    let weights = fs::read(snapshot.join("model.safetensors")).expect("content");
    let blob = fs::read_link(snapshot.join("model.safetensors")).expect("a link");
    assert_eq!(blob, Path::new("../../blobs").join(sha256(&weights)));
    // Git's name for a small file: printf 'blob 3\0abc' | sha1sum.
    let config = fs::read_link(snapshot.join("config.json")).expect("a link");
    assert_eq!(config.file_name().expect("a name").len(), 40);
    let listed = data(&sandbox, &["list", "--source", "hf"])["models"].clone();
    assert_eq!((&listed[0]["reference"], &listed[0]["revision"]), (&"org/tiny".into(), &COMMIT.into()));
    assert_eq!(data(&sandbox, &["show", "org/tiny"])["used_by"], json!(["hf"]));
    let verified = data(&sandbox, &["verify", "--source", "hf"])["checked"].clone();
    assert_eq!(verified[0]["status"], "ok", "{verified}");

    let undone = data(&sandbox, &[&args[..], &["--undo", "--yes"]].concat());
    assert_eq!(statuses(&undone), vec!["removed"; 9]);
    assert_eq!(fs::read_dir(&hub).expect("a folder").count(), 0);
    assert_eq!(names_for_links(&sandbox), 0);
    // Another commit as main stays, and is told of.
    fs::create_dir_all(repository.join("refs")).expect("a folder");
    fs::write(repository.join("refs/main"), COMMIT.replace("12f", "22f")).expect("written");
    let beside = data(&sandbox, &[&args[..], &["--yes"]].concat());
    assert_eq!(beside["entries"].as_array().expect("a list").len(), 8);
    assert!(beside["notes"][0].as_str().is_some_and(|note| note.contains(COMMIT)), "{beside}");
}

#[test]
fn ollama_gets_a_manifest_and_lm_studio_a_folder() {
    let sandbox = Sandbox::new();
    let path = stored(&sandbox, "gguf/llama_Q8_0.gguf", "me/tiny");
    let content = fs::read(&path).expect("content");
    let tree = OllamaTree(&sandbox);
    let other = tree.layer("model", b"another");
    tree.manifest(SMOLLM2, &[other]);
    let before = picture(&tree.root());
    let args = ["link", "me/tiny", "--to", "ollama"];
    let made = data(&sandbox, &[&args[..], &["--yes"]].concat());
    assert_eq!(made["name"], "me/tiny:Q8_0");
    let manifest = tree.root().join("manifests/registry.ollama.ai/me/tiny/Q8_0");
    let manifest: Value = serde_json::from_slice(&fs::read(manifest).expect("a manifest")).expect("JSON");
    assert_eq!(manifest["schemaVersion"], 2);
    // Every layer is a blob of the size and the content that its name says.
    let layers = manifest["layers"].as_array().expect("layers").iter().chain([&manifest["config"]]);
    for layer in layers {
        let digest = layer["digest"].as_str().expect("a digest").strip_prefix("sha256:").expect("SHA-256");
        let bytes = fs::read(tree.blob(digest)).expect("a blob");
        assert_eq!((sha256(&bytes).as_str(), layer["size"].as_u64()), (digest, Some(bytes.len() as u64)));
    }
    assert!(tree.blob(&sha256(&content)).is_symlink());
    let reference = "ollama:me/tiny:Q8_0";
    assert_eq!(data(&sandbox, &["run", reference, "Hi", "-n", "2"])["usage"]["generated_tokens"], 2);
    assert_eq!(data(&sandbox, &["show", "me/tiny"])["used_by"], json!(["ollama"]));

    fs::create_dir_all(sandbox.home().join(".lmstudio/models")).expect("a folder");
    let studio = data(&sandbox, &["link", "me/tiny", "--to", "lmstudio", "--yes"]);
    assert_eq!(studio["name"], "lmstudio:me/tiny");
    let file = sandbox.home().join(".lmstudio/models/me/tiny").join(path.file_name().expect("a name"));
    assert_eq!(fs::read(file).expect("a link"), content);
    assert_eq!(data(&sandbox, &["show", "me/tiny"])["used_by"], json!(["lmstudio", "ollama"]));

    let undone = data(&sandbox, &[&args[..], &["--undo", "--yes"]].concat());
    assert!(statuses(&undone).iter().all(|status| *status == "removed"), "{undone}");
    assert_eq!(picture(&tree.root()), before, "others' models stay as they were");
    data(&sandbox, &["link", "me/tiny", "--to", "lmstudio", "--undo", "--yes"]);
    assert_eq!(fs::read_dir(sandbox.home().join(".lmstudio/models")).expect("a folder").count(), 0);
    assert_eq!(names_for_links(&sandbox), 0);
    refused(&sandbox, &["link", "me/tiny", "--to", "hf"], "INVALID_REQUEST", "commit");
    stored(&sandbox, "llama_tied", "me/plain");
    refused(&sandbox, &["link", "me/plain", "--to", "ollama"], "MODEL_UNSUPPORTED", "GGUF");
}
