use super::*;
use crate::models::{COMMIT, data, place, place_in_hub, refused};

#[test]
fn hostile_manifests_lead_nowhere() {
    let sandbox = Sandbox::new();
    let tree = OllamaTree(&sandbox);
    let good = tree.layer("model", &tiny_gguf());
    tree.manifest(SMOLLM2, std::slice::from_ref(&good));
    fs::write(sandbox.home().join("secret"), "GGUF").expect("written");
    let with = |change: &dyn Fn(&mut Value)| {
        let mut layer = good.clone();
        change(&mut layer);
        json!({"schemaVersion": 2, "layers": [layer]}).to_string()
    };
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for (name, text) in [
        ("up", with(&|layer| layer["digest"] = "sha256:../../../../secret".into())),
        ("absolute", with(&|layer| layer["digest"] = "/etc/passwd".into())),
        ("nul", with(&|layer| layer["digest"] = "sha256:\u{0}".into())),
        ("number", with(&|layer| layer["digest"] = 7.into())),
        ("size", with(&|layer| layer["size"] = "1e400".into())),
        (
            "name",
            with(&|layer| {
                layer["mediaType"] = "application/vnd.ollama.image.json".into();
                layer["name"] = "../../../../.bashrc".into();
            }),
        ),
        ("empty", String::new()),
        ("deep", deep),
        ("array", format!("{{\"layers\": [{}0]}}", "0,".repeat(1_000_000))),
        ("many", format!("{{\"layers\": [{}{good}]}}", format!("{good},").repeat(60_000))),
        ("rubbish", "\u{0}\u{1}\u{2}".to_owned()),
    ] {
        tree.write(&format!("registry.ollama.ai/library/bad/{name}"), &text);
        refused(&sandbox, &["run", &format!("ollama:bad:{name}"), "x"], "MODEL_NOT_FOUND", name);
    }
    let listed = data(&sandbox, &["list", "--source", "ollama"]);
    assert_eq!(listed["models"].as_array().expect("a list").len(), 1, "{listed}");
    assert_eq!(data(&sandbox, &["add", "ollama"])["models"].as_array().expect("a list").len(), 1);
}

#[test]
fn links_out_of_a_cache_are_not_followed() {
    let sandbox = Sandbox::new();
    let tree = OllamaTree(&sandbox);
    let outside = place(&sandbox, "gguf/llama_Q8_0.gguf", "outside/model.gguf");
    tree.manifest(SMOLLM2, &[tree.layer("model", &tiny_gguf()), tree.layer("system", b"Be kind.")]);
    // The file that the manifest means, but somewhere else.
    let blob = tree.blob(&sha256(&tiny_gguf()));
    fs::remove_file(&blob).expect("gone");
    link(&outside, &blob);
    assert_eq!(data(&sandbox, &["list", "--source", "ollama"])["models"][0]["status"], "missing");
    assert_eq!(data(&sandbox, &["add", "ollama"])["skipped"].as_array().expect("a list").len(), 1);
    refused(&sandbox, &["add", "ollama:smollm2:135m"], "FILE_NOT_FOUND", "leads to no content");
    // Neither is a system message read from there.
    fs::write(sandbox.home().join("secret"), "a secret").expect("written");
    fs::remove_file(&blob).expect("gone");
    fs::write(&blob, tiny_gguf()).expect("back");
    let system = tree.blob(&sha256(b"Be kind."));
    fs::remove_file(&system).expect("gone");
    link(sandbox.home().join("secret"), &system);
    refused(&sandbox, &["run", "ollama:smollm2:135m", "x"], "INTEGRITY_FAILED", "out of the cache");

    let snapshot = place_in_hub(&sandbox, "llama_tied", "models--org--tiny", COMMIT);
    let weights = snapshot.join("model.safetensors");
    fs::remove_file(&weights).expect("gone");
    link("/etc/passwd", &weights);
    refused(&sandbox, &["path", "org/tiny"], "MODEL_NOT_FOUND", "org/tiny");
    assert_eq!(data(&sandbox, &["list", "--source", "hf"])["models"][0]["status"], "missing");
}

#[test]
fn folders_that_are_links_and_circles_end() {
    let sandbox = Sandbox::new();
    let hub = sandbox.home().join(".cache/huggingface/hub");
    let outside = place_in_hub(&sandbox, "llama_tied", "models--org--tiny", COMMIT);
    let elsewhere = sandbox.home().join("elsewhere");
    fs::rename(hub.join("models--org--tiny"), &elsewhere).expect("moved");
    link(&elsewhere, &hub.join("models--org--tiny"));
    link(&hub, &hub.join("models--org--round/snapshots/c"));
    link("circle", &hub.join("models--org--round/blobs/circle"));
    link(sandbox.home(), &sandbox.home().join(".lmstudio/models/pub"));
    drop(outside);
    for args in [&["list", "--source", "all"][..], &["status"], &["doctor"]] {
        let (status, envelope) = sandbox.json(args);
        assert!(matches!(status, 0 | 1), "{envelope}");
    }
    assert!(data(&sandbox, &["list", "--source", "all"])["models"].as_array().expect("a list").is_empty());
    refused(&sandbox, &["path", "org/tiny"], "MODEL_NOT_FOUND", "org/tiny");
}

#[test]
fn names_that_are_not_utf8_do_no_harm() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let sandbox = Sandbox::new();
    let odd = OsStr::from_bytes(b"\xff\xfe");
    for folder in
        [".cache/huggingface/hub", ".ollama/models/manifests", ".ollama/models/blobs", ".lmstudio/models"]
    {
        let folder = sandbox.home().join(folder).join(odd);
        // Filesystems of macOS refuse such names.
        if fs::create_dir_all(&folder).is_ok() {
            fs::write(folder.join(odd), "x").expect("written");
        }
    }
    let snapshot = place_in_hub(&sandbox, "llama_tied", "models--org--tiny", COMMIT);
    let _ = fs::write(snapshot.join(odd), "x");
    assert_eq!(data(&sandbox, &["list", "--source", "all"])["models"].as_array().expect("a list").len(), 1);
    assert_eq!(data(&sandbox, &["add", "hf"])["models"].as_array().expect("a list").len(), 1);
}
