//! Models of other tools, in trees that are built to each tool's rules: listed, added where they lie, run,
//! and shared with `link`.

mod add;
mod hostile;
mod link;
mod list;
mod python;
mod run;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::models::sha256;
use crate::sandbox::Sandbox;

/// Ollama's registry, its folder of models that belong to nobody, and a model's place among them.
const SMOLLM2: &str = "registry.ollama.ai/library/smollm2/135m";

/// Ollama's models in a sandbox.
pub struct OllamaTree<'a>(pub &'a Sandbox);

impl OllamaTree<'_> {
    pub fn root(&self) -> PathBuf {
        self.0.home().join(".ollama/models")
    }

    /// A layer with this content, as a manifest names it.
    pub fn layer(&self, kind: &str, content: &[u8]) -> Value {
        let digest = sha256(content);
        let blob = self.blob(&digest);
        fs::create_dir_all(blob.parent().expect("a parent")).expect("folders");
        fs::write(blob, content).expect("a blob");
        json!({"mediaType": format!("application/vnd.ollama.image.{kind}"), "digest": format!("sha256:{digest}"),
               "size": content.len()})
    }

    pub fn blob(&self, digest: &str) -> PathBuf {
        self.root().join(format!("blobs/sha256-{digest}"))
    }

    /// Writes a manifest with these layers at `place`: host, namespace, name and tag.
    pub fn manifest(&self, place: &str, layers: &[Value]) {
        let config = json!({"model_format": "gguf", "model_family": "llama", "os": "linux"}).to_string();
        let mut config = self.layer("config", config.as_bytes());
        config["mediaType"] = "application/vnd.docker.container.image.v1+json".into();
        let manifest = json!({"schemaVersion": 2, "config": config, "layers": layers,
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json"});
        self.write(place, &manifest.to_string());
    }

    /// Writes anything in the place of a manifest.
    pub fn write(&self, place: &str, text: &str) {
        let path = self.root().join("manifests").join(place);
        fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
        fs::write(path, text).expect("a manifest");
    }
}

/// The bytes of a tiny model in one GGUF file.
pub fn tiny_gguf() -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/tiny/gguf/llama_Q8_0.gguf");
    fs::read(path).expect("a fixture")
}

/// A snapshot in the sandbox's Hugging Face cache, without blobs, as the hub's client makes it where there
/// are no links.
pub fn place_without_links(sandbox: &Sandbox, fixture: &str, repository: &str, commit: &str) -> PathBuf {
    let place = format!(".cache/huggingface/hub/{repository}/snapshots/{commit}");
    crate::models::place(sandbox, fixture, &place)
}

/// Says that the branch `main` is at this commit.
pub fn set_main(sandbox: &Sandbox, repository: &str, commit: &str) {
    let refs = sandbox.home().join(".cache/huggingface/hub").join(repository).join("refs");
    fs::create_dir_all(&refs).expect("a folder");
    fs::write(refs.join("main"), commit).expect("a ref");
}

/// Every name below a folder with what it is: a change of any of them shows.
pub fn picture(root: &Path) -> Vec<String> {
    walkdir::WalkDir::new(root)
        .sort_by_file_name()
        .into_iter()
        .map(|entry| {
            let entry = entry.expect("an entry");
            let path = entry.path().display();
            if entry.file_type().is_symlink() {
                return format!("{path} -> {}", fs::read_link(entry.path()).expect("a link").display());
            }
            if entry.file_type().is_file() {
                let metadata = entry.metadata().expect("metadata");
                let modified = metadata.modified().expect("a time");
                // A real model is too much to be read each time.
                let content = if metadata.len() < 1 << 20 {
                    fs::read(entry.path()).expect("a file")
                } else {
                    Vec::new()
                };
                return format!("{path} {modified:?} {} {}", metadata.len(), sha256(&content));
            }
            path.to_string()
        })
        .collect()
}

pub fn link(target: impl AsRef<Path>, path: &Path) {
    fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
    symlink(target, path).expect("linked");
}
