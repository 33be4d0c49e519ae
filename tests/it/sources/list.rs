use super::*;
use crate::models::{COMMIT, data, place, place_in_hub};

/// A cache of each tool, with what they have in common and what they do not.
fn filled() -> Sandbox {
    let sandbox = Sandbox::new();
    place_in_hub(&sandbox, "llama_tied", "models--org--tiny", COMMIT);
    place_in_hub(&sandbox, "llama_untied", "models--org--tiny", &COMMIT.replace("12f", "22f"));
    set_main(&sandbox, "models--org--tiny", COMMIT);
    place(&sandbox, "gguf/llama_Q8_0.gguf", ".lmstudio/models/pub/My Model/llama-Q8_0.gguf");
    let tree = OllamaTree(&sandbox);
    let layers = [tree.layer("model", &tiny_gguf()), tree.layer("license", b"do what you like")];
    tree.manifest(SMOLLM2, &layers);
    tree.manifest("hf.co/org/name/Q8_0", &layers);
    sandbox
}

fn rows(sandbox: &Sandbox, source: &str) -> Vec<[String; 3]> {
    let listed = data(sandbox, &["list", "--source", source]);
    let text = |model: &Value, key: &str| model[key].as_str().expect(key).to_owned();
    let models = listed["models"].as_array().expect("a list");
    models.iter().map(|model| ["reference", "origin", "status"].map(|key| text(model, key))).collect()
}

fn row(reference: &str, origin: &str, status: &str) -> [String; 3] {
    [reference, origin, status].map(str::to_owned)
}

#[test]
fn models_of_other_tools_are_listed_when_asked_for_and_marked() {
    let sandbox = filled();
    let before = picture(&sandbox.home().join(".cache"));
    assert!(data(&sandbox, &["list"])["models"].as_array().expect("a list").is_empty());
    let ollama = [
        row("ollama:hf.co/org/name:Q8_0", "ollama", "foreign"),
        row("ollama:smollm2:135m", "ollama", "foreign"),
    ];
    let hf = [row("org/tiny", "hf", "foreign"), row("org/tiny", "hf", "foreign")];
    let lm_studio = row("lmstudio:pub/My Model", "lmstudio", "foreign");
    assert_eq!(rows(&sandbox, "ollama"), ollama);
    assert_eq!(rows(&sandbox, "hf"), hf);
    assert_eq!(rows(&sandbox, "lmstudio"), std::slice::from_ref(&lm_studio));
    assert_eq!(rows(&sandbox, "all"), [&[lm_studio][..], &ollama, &hf].concat());
    assert!(rows(&sandbox, "store").is_empty() && rows(&sandbox, "folder").is_empty());
    assert!(!sandbox.store().exists(), "a look makes nothing");
    assert_eq!(picture(&sandbox.home().join(".cache")), before);

    let listed = data(&sandbox, &["list", "--source", "ollama"]);
    let model = &listed["models"][1];
    assert_eq!((&model["kind"], &model["architecture"]), (&"generation".into(), &"llama".into()));
    assert_eq!((&model["quantization"], &model["files"]), (&"Q8_0".into(), &3.into()));
    let bytes = tiny_gguf().len() as u64 + 16;
    assert!(model["bytes"].as_u64().is_some_and(|all| all > bytes && all < bytes + 100), "{model}");
    let text = sandbox.run(&["list", "--source", "all"]).stdout;
    assert!(
        text.contains("ollama:smollm2:135m (Ollama's)") && text.contains("org/tiny (Hugging Face's)"),
        "{text}"
    );
    let names = sandbox.run(&["list", "--source", "ollama", "--format", "names"]).stdout;
    assert_eq!(names, "ollama:hf.co/org/name:Q8_0\nollama:smollm2:135m\n");
}

#[test]
fn what_was_added_is_listed_once() {
    let sandbox = filled();
    data(&sandbox, &["add", "ollama:smollm2:135m", "org/tiny", "lmstudio:pub/My Model"]);
    assert_eq!(
        rows(&sandbox, "all"),
        [
            row("lmstudio:pub/My Model", "lmstudio", "ok"),
            row("ollama:hf.co/org/name:Q8_0", "ollama", "foreign"),
            row("ollama:smollm2:135m", "ollama", "ok"),
            row("org/tiny", "hf", "ok"),
            row("org/tiny", "hf", "foreign"),
        ]
    );
    assert_eq!(data(&sandbox, &["list"])["models"].as_array().expect("a list").len(), 3);
}

#[test]
fn a_kind_and_an_order_hold_for_them_too() {
    let sandbox = filled();
    place_without_links(&sandbox, "llama_tied", "models--org--bare", COMMIT);
    let snapshot = sandbox.home().join(".cache/huggingface/hub/models--org--bare/snapshots").join(COMMIT);
    fs::remove_file(snapshot.join("model.safetensors")).expect("gone");
    let others = data(&sandbox, &["list", "--source", "all", "--kind", "other"]);
    assert_eq!(others["models"].as_array().expect("a list").len(), 1);
    assert_eq!(others["models"][0]["reference"], "org/bare");
    let sizes: Vec<u64> = data(&sandbox, &["list", "--source", "all", "--sort", "size"])["models"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|model| model["bytes"].as_u64())
        .collect();
    assert_eq!(sizes.len(), 6);
    assert!(sizes.is_sorted_by(|a, b| a >= b), "{sizes:?}");
}
