//! What is on the machine already is not fetched.

use std::os::unix::fs::symlink;

use super::*;
use crate::hub::noise;
use crate::sandbox::make_fifo;

fn model() -> Repository {
    Repository::tiny("org/tiny").large("model-00002-of-00002.safetensors", noise(1, 2_000_000))
}

/// Fails unless a pull takes this much from the machine and the rest from the hub.
fn assert_reused(sandbox: &Sandbox, hub: &Hub, repository: &Repository, reused: u64) -> Value {
    hub.forget();
    let pulled = pull_one(sandbox, hub, &["org/tiny"]);
    assert_all(&folder(&pulled), repository);
    assert_eq!(number(&pulled, "bytes_reused"), reused, "{pulled}");
    assert_eq!(number(&pulled, "bytes_downloaded"), repository.bytes() - reused, "{pulled}");
    assert_eq!(hub.traffic(), repository.bytes() - reused);
    pulled
}

/// Puts a file of the repository under this path of the sandbox's home.
fn place(sandbox: &Sandbox, at: &str, content: &[u8]) -> PathBuf {
    let path = sandbox.home().join(at);
    fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
    fs::write(&path, content).expect("written");
    path
}

/// The repository in the sandbox's Hugging Face cache, as that lays it out.
fn place_in_hugging_face(sandbox: &Sandbox, repository: &Repository, commit: &str) -> PathBuf {
    let root = sandbox.home().join(".cache/huggingface/hub/models--org--tiny");
    for path in repository.paths() {
        let content = crate::hub::Content::from(repository.content(&path));
        let is_large = path.ends_with(".safetensors");
        let name = if is_large { content.sha256() } else { content.git_sha1() };
        place(
            sandbox,
            &format!(".cache/huggingface/hub/models--org--tiny/blobs/{name}"),
            &repository.content(&path),
        );
        let link = root.join("snapshots").join(commit).join(&path);
        fs::create_dir_all(link.parent().expect("a folder")).expect("folders");
        symlink(Path::new("../../blobs").join(name), link).expect("linked");
    }
    fs::create_dir_all(root.join("refs")).expect("a folder");
    fs::write(root.join("refs/main"), commit).expect("written");
    root
}

#[test]
fn from_the_store() {
    let (sandbox, repository) = (Sandbox::new(), model());
    let hub = Hub::with(repository.clone());
    let tiny = Repository::tiny("my/tiny");
    for path in tiny.paths() {
        place(&sandbox, &format!("my/{path}"), &tiny.content(&path));
    }
    let (status, added) = sandbox.json(&["add", "my", "--copy"]);
    assert_eq!(status, 0, "{added}");
    fs::remove_dir_all(sandbox.home().join("my")).expect("gone");
    assert_reused(&sandbox, &hub, &repository, tiny.bytes());
    // Both models are whole, and the content is there once.
    assert_eq!(stored(&sandbox), repository.bytes());
}

#[test]
fn from_a_model_that_was_added_where_it_lies() {
    let (sandbox, repository) = (Sandbox::new(), model());
    let hub = Hub::with(repository.clone());
    let tiny = Repository::tiny("my/tiny");
    for path in tiny.paths() {
        place(&sandbox, &format!("my/{path}"), &tiny.content(&path));
    }
    let (status, added) = sandbox.json(&["add", "my"]);
    assert_eq!(status, 0, "{added}");
    let weights = tiny.content("model.safetensors").len() as u64;
    assert_reused(&sandbox, &hub, &repository, weights);
}

#[test]
fn from_the_cache_of_hugging_face() {
    let (sandbox, repository) = (Sandbox::new(), model());
    let hub = Hub::with(repository.clone());
    let root = place_in_hugging_face(&sandbox, &repository, &repository.main());
    let before = surroundings(&sandbox);
    assert_reused(&sandbox, &hub, &repository, repository.bytes());
    assert_eq!(surroundings(&sandbox), before, "the cache was changed");
    // What was taken is ours: it does not change with the cache.
    for (_, path) in files_of(&root.join("blobs")) {
        fs::remove_file(path).expect("gone");
    }
    in_order(&sandbox);
}

#[test]
fn from_another_commit_in_that_cache() {
    let (sandbox, repository) = (Sandbox::new(), model());
    let hub = Hub::with(repository.clone());
    let changed = repository.clone().file("config.json", "{\"another\": 1}");
    place_in_hugging_face(&sandbox, &changed, "0123456789012345678901234567890123456789");
    let own = repository.content("config.json").len() as u64;
    assert_reused(&sandbox, &hub, &repository, repository.bytes() - own);
}

#[test]
fn from_ollama() {
    let (sandbox, repository) = (Sandbox::new(), model());
    let hub = Hub::with(repository.clone());
    let content = repository.content("model-00002-of-00002.safetensors");
    let digest = sha256(&content);
    place(&sandbox, &format!(".ollama/models/blobs/sha256-{digest}"), &content);
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "digest": format!("sha256:{digest}"), "size": content.len()},
        "layers": [{"mediaType": "application/vnd.ollama.image.model", "digest": format!("sha256:{digest}"), "size": content.len()}],
    });
    place(
        &sandbox,
        ".ollama/models/manifests/registry.ollama.ai/library/tiny/latest",
        manifest.to_string().as_bytes(),
    );
    let before = surroundings(&sandbox);
    assert_reused(&sandbox, &hub, &repository, content.len() as u64);
    assert_eq!(surroundings(&sandbox), before, "Ollama's models were changed");
}

#[test]
fn from_lm_studio() {
    let (sandbox, repository) = (Sandbox::new(), model());
    let hub = Hub::with(repository.clone());
    let content = repository.content("model-00002-of-00002.safetensors");
    place(&sandbox, ".lmstudio/models/org/tiny/model-00002-of-00002.safetensors", &content);
    let before = surroundings(&sandbox);
    assert_reused(&sandbox, &hub, &repository, content.len() as u64);
    assert_eq!(surroundings(&sandbox), before, "LM Studio's models were changed");
}

#[test]
fn what_only_claims_to_be_it_is_fetched() {
    let (sandbox, repository) = (Sandbox::new(), model());
    let hub = Hub::with(repository.clone());
    let root = place_in_hugging_face(&sandbox, &repository, &repository.main());
    let digest = sha256(&repository.content("model-00002-of-00002.safetensors"));
    // The right name and length, one wrong bit.
    let blob = root.join("blobs").join(&digest);
    let mut content = fs::read(&blob).expect("a blob");
    content[1_000_000] ^= 1;
    fs::write(&blob, &content).expect("damaged");
    place(&sandbox, &format!(".ollama/models/blobs/sha256-{digest}"), &content[..1000]);
    place(&sandbox, ".lmstudio/models/org/tiny/model-00002-of-00002.safetensors", &content);
    assert_reused(&sandbox, &hub, &repository, repository.bytes() - 2_000_000);
    assert_eq!(fs::read(&blob).expect("still there"), content, "the cache was changed");
}

#[test]
fn links_and_devices_in_foreign_caches_are_left_alone() {
    let (sandbox, repository) = (Sandbox::new(), model());
    let hub = Hub::with(repository.clone());
    let digest = sha256(&repository.content("model-00002-of-00002.safetensors"));
    let blobs = sandbox.home().join(".cache/huggingface/hub/models--org--tiny/blobs");
    fs::create_dir_all(&blobs).expect("a folder");
    make_fifo(&blobs.join(&digest));
    let ollama = sandbox.home().join(".ollama/models/blobs");
    fs::create_dir_all(&ollama).expect("a folder");
    symlink("/dev/zero", ollama.join(format!("sha256-{digest}"))).expect("linked");
    fs::create_dir_all(sandbox.home().join(format!(".lmstudio/models/org/tiny/{digest}"))).expect("a folder");
    assert_reused(&sandbox, &hub, &repository, 0);
}

#[test]
fn a_dry_run_says_how_much_is_here() {
    let (sandbox, repository) = (Sandbox::new(), model());
    let hub = Hub::with(repository.clone());
    place_in_hugging_face(&sandbox, &repository, &repository.main());
    let before = surroundings(&sandbox);
    let planned = pull_one(&sandbox, &hub, &["org/tiny", "--dry-run"]);
    assert_eq!(hub.traffic(), 0);
    assert_eq!(surroundings(&sandbox), before);
    assert_eq!(number(&planned, "bytes_total"), repository.bytes(), "{planned}");
    assert_eq!(number(&planned, "bytes_reused"), repository.bytes(), "{planned}");
    assert!(sandbox.json(&["list"]).1["data"]["models"].as_array().expect("a list").is_empty());
    assert_eq!(stored(&sandbox), 0);
}
