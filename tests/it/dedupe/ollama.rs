//! A tree built to Ollama's rules, and a double of what its server does to it when it starts.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::hub::noise;
use crate::sandbox::Sandbox;

/// How long Ollama leaves files alone that nothing refers to.
const GRACE: Duration = Duration::from_hours(1);

/// Ollama's models below a home folder.
struct Models(PathBuf);

impl Models {
    fn new(sandbox: &Sandbox) -> Self {
        let root = sandbox.home().join(".ollama/models");
        fs::create_dir_all(root.join("blobs")).expect("folders");
        Self(root)
    }

    /// Stores content as a layer, old enough to be pruned; its digest.
    fn layer(&self, content: &[u8]) -> String {
        let digest = crate::models::sha256(content);
        let path = self.blob(&digest);
        fs::write(&path, content).expect("a layer");
        age(&path);
        digest
    }

    fn blob(&self, digest: &str) -> PathBuf {
        self.0.join(format!("blobs/sha256-{digest}"))
    }

    /// A model of one layer with weights.
    fn model(&self, name: &str, weights: &[u8]) -> String {
        let config = self.layer(format!(r#"{{"model_format":"gguf","model":"{name}"}}"#).as_bytes());
        let digest = self.layer(weights);
        let layer = |kind: &str, digest: &str, size: usize| json!({"mediaType": kind, "digest": format!("sha256:{digest}"), "size": size});
        let size = fs::metadata(self.blob(&config)).expect("a layer").len() as usize;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "config": layer("application/vnd.docker.container.image.v1+json", &config, size),
            "layers": [layer("application/vnd.ollama.image.model", &digest, weights.len())],
        });
        let path = self.0.join("manifests/registry.ollama.ai/library").join(name).join("latest");
        fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
        fs::write(path, manifest.to_string()).expect("a manifest");
        digest
    }

    /// What the server does when it starts (`PruneLayers` and `deleteUnusedLayers` in server/images.go,
    /// `PruneDirectory` for manifests): names in blobs/ that are no digests go if they are older than the
    /// grace period, by their own time and not by that of what a link leads to; so do digests that no
    /// manifest names; folders in blobs/ stay. A name is removed itself, not what it leads to.
    fn start(&self) {
        let mut used = BTreeSet::new();
        for entry in walkdir::WalkDir::new(self.0.join("manifests")).into_iter().flatten() {
            if entry.file_type().is_dir() {
                continue;
            }
            let manifest: Value =
                serde_json::from_slice(&fs::read(entry.path()).expect("a manifest")).expect("JSON");
            let layers = manifest["layers"].as_array().expect("layers").iter();
            for layer in layers.chain([&manifest["config"]]) {
                used.insert(layer["digest"].as_str().expect("a digest").replace(':', "-"));
            }
        }
        for entry in fs::read_dir(self.0.join("blobs")).expect("blobs").flatten() {
            let metadata = fs::symlink_metadata(entry.path()).expect("a name");
            let modified = metadata.modified().expect("a time");
            let is_young = SystemTime::now().duration_since(modified).is_ok_and(|age| age < GRACE);
            let name = entry.file_name().into_string().expect("UTF-8");
            if !metadata.is_dir() && !is_young && !used.contains(&name) {
                fs::remove_file(entry.path()).expect("removed");
            }
        }
    }

    /// What a run does: the weights are opened and read through whatever their name is. Their digest.
    fn load(&self, name: &str) -> String {
        let path = self.0.join("manifests/registry.ollama.ai/library").join(name).join("latest");
        let manifest: Value = serde_json::from_slice(&fs::read(path).expect("a manifest")).expect("JSON");
        let digest = manifest["layers"][0]["digest"].as_str().expect("a digest").replace("sha256:", "");
        let content = fs::read(self.blob(&digest)).expect("the weights");
        assert_eq!(content.len() as u64, manifest["layers"][0]["size"].as_u64().expect("a size"));
        crate::models::sha256(&content)
    }

    /// What `ollama rm` does: the manifest goes, and with it what no other one names.
    fn remove(&self, name: &str) {
        fs::remove_dir_all(self.0.join("manifests/registry.ollama.ai/library").join(name)).expect("removed");
        for entry in fs::read_dir(self.0.join("blobs")).expect("blobs").flatten() {
            if entry.file_type().expect("a type").is_file() {
                age(&entry.path());
            }
        }
        self.start();
    }

    fn names(&self) -> BTreeSet<String> {
        let blobs = fs::read_dir(self.0.join("blobs")).expect("blobs").flatten();
        blobs.map(|entry| entry.file_name().into_string().expect("UTF-8")).collect()
    }
}

/// Makes a file older than the grace period.
fn age(path: &Path) {
    let old = SystemTime::now() - 3 * GRACE;
    fs::File::options().append(true).open(path).and_then(|file| file.set_modified(old)).expect("a time");
}

fn dedupe(sandbox: &Sandbox, strategy: &str) -> Value {
    let (status, envelope) =
        sandbox.json(&["dedupe", "--apply", "--yes", "--strategy", strategy, "--min-size", "0"]);
    assert_eq!(status, 0, "{envelope}");
    envelope["data"].clone()
}

#[test]
fn ollama_keeps_its_models_and_we_keep_ours() {
    for strategy in ["symlink", "hardlink"] {
        let sandbox = Sandbox::new();
        let models = Models::new(&sandbox);
        let weights = noise(5, 400_000);
        let digest = models.model("small", &weights);
        let other = models.model("other", &noise(6, 300_000));
        let unused = models.layer(&noise(7, 200_000));
        let partial = models.0.join(format!("blobs/sha256-{digest}-partial-0"));
        fs::write(&partial, "half").expect("a file");
        let studio = sandbox.home().join(".lmstudio/models/publisher/name");
        fs::create_dir_all(&studio).expect("folders");
        for (name, content) in [("small.gguf", &weights), ("unused.gguf", &noise(7, 200_000))] {
            fs::write(studio.join(name), content).expect("a file");
        }
        let before = models.names();
        let time = |digest: &str| {
            let metadata = fs::symlink_metadata(models.blob(digest)).expect("a layer");
            metadata.modified().expect("a time")
        };
        let old = (time(&digest), time(&unused));

        let data = dedupe(&sandbox, strategy);
        assert_eq!(data["groups"].as_array().expect("groups").len(), 2, "{strategy}: {data}");
        assert_eq!(data["bytes_reclaimed"], 600_000, "{strategy}: {data}");
        assert_eq!(models.names(), before, "{strategy}: a name of ours is among theirs");
        if strategy == "symlink" {
            assert!(models.blob(&digest).is_symlink());
            assert_eq!((time(&digest), time(&unused)), old, "its age decides whether it is pruned");
        }
        models.start();
        assert_eq!(models.load("small"), digest);
        assert_eq!(models.load("other"), other);
        // Names of one file have one age: Ollama takes the unused one for young as long as the other is.
        let is_pruned = models.blob(&unused).symlink_metadata().is_err();
        assert_eq!(is_pruned, strategy == "symlink", "Ollama prunes what it does not use");
        assert!(partial.exists(), "it is young");
        assert_eq!(fs::read(studio.join("unused.gguf")).expect("LM Studio's"), noise(7, 200_000));

        models.remove("small");
        assert!(models.blob(&digest).symlink_metadata().is_err());
        assert_eq!(fs::read(studio.join("small.gguf")).expect("LM Studio's"), weights);
        // What Ollama has deleted is forgotten; the rest comes back.
        let (status, envelope) = sandbox.json(&["dedupe", "--undo", "--yes"]);
        assert_eq!(status, 0, "{envelope}");
        for link in envelope["data"]["undone"].as_array().expect("links") {
            let is_ollamas = link["path"].as_str().expect("a path").contains(".ollama");
            assert_eq!(link["outcome"], if is_ollamas { "forgotten" } else { "restored" }, "{link}");
        }
        assert_eq!(fs::read(studio.join("small.gguf")).expect("LM Studio's"), weights);
        assert!(!studio.join("small.gguf").is_symlink());
        assert_eq!(models.load("other"), other);
    }
}

#[test]
fn shards_that_ollama_links_itself_are_left_alone() {
    let sandbox = Sandbox::new();
    let models = Models::new(&sandbox);
    let weights = noise(5, 400_000);
    let digest = models.model("split", &weights);
    // Newer releases give shards second names in a folder of their own.
    let splits = models.0.join("blobs/splits").join(&digest);
    fs::create_dir_all(&splits).expect("folders");
    fs::hard_link(models.blob(&digest), splits.join("model-00001-of-00002.gguf")).expect("a hard link");
    let copy = sandbox.home().join("models/copy.gguf");
    fs::create_dir_all(copy.parent().expect("a parent")).expect("folders");
    fs::write(&copy, &weights).expect("a file");
    let (_, envelope) = sandbox.json(&["dedupe", "--path", "models"]);
    let skipped = envelope["data"]["skipped"].as_array().expect("skipped");
    let reason = skipped.iter().find(|file| file["path"].as_str().expect("a path").contains(&digest));
    assert!(
        reason.is_some_and(|file| file["reason"].as_str().expect("a reason").contains("names")),
        "{envelope}"
    );
    assert!(envelope["data"]["groups"].as_array().expect("groups").is_empty(), "{envelope}");
}
