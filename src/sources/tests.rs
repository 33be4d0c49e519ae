use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::*;

fn write(root: &Path, path: &str, bytes: usize) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
    fs::write(path, vec![0; bytes]).expect("file");
}

#[test]
fn a_hub_cache_counts_whole_blobs_of_models_once() {
    let hub = tempfile::tempdir().expect("folder");
    write(hub.path(), "models--org--one/blobs/aa", 100);
    write(hub.path(), "models--org--one/blobs/bb.incomplete", 1000);
    write(hub.path(), "models--org--one/refs/main", 40);
    write(hub.path(), "datasets--org--two/blobs/cc", 5000);
    let snapshot = hub.path().join("models--org--one/snapshots/c1");
    fs::create_dir_all(&snapshot).expect("snapshot");
    symlink("../../blobs/aa", snapshot.join("model.safetensors")).expect("link");
    write(hub.path(), "models--org--three/snapshots/c2/config.json", 7);
    let survey = HuggingFace::at(hub.path()).survey();
    assert_eq!(survey, Survey { models: 2, bytes: 107, unreadable: 0 });
}

#[test]
fn ollama_counts_tags_and_whole_blobs() {
    let models = tempfile::tempdir().expect("folder");
    write(models.path(), "manifests/registry.ollama.ai/library/smollm2/135m", 300);
    write(models.path(), "manifests/registry.ollama.ai/library/smollm2/latest", 300);
    write(models.path(), "blobs/sha256-aa", 100);
    write(models.path(), "blobs/sha256-bb-partial-0", 1000);
    let survey = Ollama::at(models.path()).survey();
    assert_eq!(survey, Survey { models: 2, bytes: 100, unreadable: 0 });
}

#[test]
fn lm_studio_counts_folders_with_weights_and_hard_links_once() {
    let models = tempfile::tempdir().expect("folder");
    write(models.path(), "publisher/one/a.gguf", 100);
    fs::hard_link(models.path().join("publisher/one/a.gguf"), models.path().join("publisher/one/b.gguf"))
        .expect("hard link");
    write(models.path(), "publisher/notes/readme.md", 5);
    let survey = LmStudio::at(models.path()).survey();
    assert_eq!(survey, Survey { models: 1, bytes: 105, unreadable: 0 });
}

#[test]
fn only_what_exists_is_present() {
    let home = tempfile::tempdir().expect("folder");
    let at = |name: &str| home.path().join(name);
    let locations = Locations { hugging_face: at("hub"), ollama: at("ollama"), lm_studio: at("lm") };
    let own = |sources: Vec<Box<dyn Source>>| {
        sources
            .iter()
            .filter(|found| found.root().starts_with(home.path()))
            .map(|found| found.name())
            .collect::<Vec<_>>()
    };
    assert!(own(present(&locations)).is_empty());
    fs::create_dir(at("lm")).expect("folder");
    let found = present(&locations);
    assert_eq!(own(present(&locations)), ["lmstudio"]);
    assert!(found.iter().all(|source| source.root() != at("lm") || source.is_own()));
}
