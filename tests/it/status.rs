//! `status`, through the program.

use std::fs;
use std::path::Path;

use mlx_cache::store::Store;

use crate::sandbox::Sandbox;

fn write(root: &Path, path: &str, bytes: usize) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
    fs::write(path, vec![0; bytes]).expect("a file");
}

#[test]
fn without_a_store_it_shows_zeros_and_makes_nothing() {
    let sandbox = Sandbox::new();
    let (status, envelope) = sandbox.json(&["status"]);
    assert_eq!(status, 0);
    let store = &envelope["data"]["store"];
    assert_eq!((&store["bytes"], &store["models"], &store["blobs"]), (&0.into(), &0.into(), &0.into()));
    assert!(envelope["data"]["disk"]["free"].as_u64() <= envelope["data"]["disk"]["total"].as_u64());
    assert!(!sandbox.store().exists());
}

#[test]
fn the_caches_of_other_tools_are_found_and_measured() {
    let sandbox = Sandbox::new();
    write(sandbox.home(), ".cache/huggingface/hub/models--org--one/blobs/aa", 1000);
    let snapshot = sandbox.home().join(".cache/huggingface/hub/models--org--one/snapshots/c1");
    fs::create_dir_all(&snapshot).expect("folders");
    std::os::unix::fs::symlink("../../blobs/aa", snapshot.join("model.safetensors")).expect("a link");
    let blob = "0".repeat(64);
    write(sandbox.home(), &format!(".ollama/models/blobs/sha256-{blob}"), 200);
    let manifest = sandbox.home().join(".ollama/models/manifests/registry.ollama.ai/library/x/latest");
    fs::create_dir_all(manifest.parent().expect("a parent")).expect("folders");
    fs::write(manifest, format!("{{\"layers\": [{{\"digest\": \"sha256:{blob}\"}}]}}")).expect("a manifest");
    write(sandbox.home(), ".lmstudio/models/publisher/name/x.gguf", 30);
    let (_, envelope) = sandbox.json(&["status"]);
    let sources = envelope["data"]["sources"].as_array().expect("sources");
    for (name, bytes) in [("hf", 1000), ("ollama", 200), ("lmstudio", 30)] {
        let source = sources.iter().find(|it| {
            it["name"] == name
                && it["path"].as_str().is_some_and(|path| Path::new(path).starts_with(sandbox.home()))
        });
        let source = source.unwrap_or_else(|| panic!("{name} is not among {sources:?}"));
        assert_eq!(
            (&source["models"], &source["bytes"], &source["own"]),
            (&1.into(), &bytes.into(), &true.into())
        );
    }
    let text = sandbox.run(&["status"]).stdout;
    assert!(text.contains("1.0 kB") && text.contains("lmstudio"), "{text}");
}

#[test]
fn a_registry_of_a_newer_version_is_refused_and_not_changed() {
    let sandbox = Sandbox::new();
    drop(Store::at(&sandbox.store()).create().expect("a store"));
    let registry = sandbox.store().join("registry.db");
    let connection = rusqlite::Connection::open(&registry).expect("the registry");
    connection.pragma_update(None, "user_version", 999).expect("a newer version");
    connection.close().expect("closed");
    let before = fs::read(&registry).expect("the registry");
    let (status, error) = sandbox.error(&["status"]);
    assert_eq!(
        (status, &error["code"], &error["details"]["schema"]),
        (2, &"INVALID_REQUEST".into(), &999.into())
    );
    assert_eq!(fs::read(&registry).expect("the registry"), before);
    assert_eq!(sandbox.json(&["doctor", "--fix"]).0, 1, "doctor does not repair what is not broken");
    assert_eq!(fs::read(&registry).expect("the registry"), before);
}
