use super::*;
use crate::models::{COMMIT, data, place, place_in_hub, refused};

fn references(report: &Value, key: &str) -> Vec<String> {
    let models = report[key].as_array().expect("a list").iter();
    models.filter_map(|model| model["reference"].as_str().map(str::to_owned)).collect()
}

#[test]
fn all_models_of_a_tool_are_added_where_they_lie() {
    let sandbox = Sandbox::new();
    let other = COMMIT.replace("12f", "22f");
    place_in_hub(&sandbox, "llama_tied", "models--org--tiny", COMMIT);
    place_in_hub(&sandbox, "llama_untied", "models--org--tiny", &other);
    place_without_links(&sandbox, "llama_gqa", "models--org--plain", COMMIT);
    let before = picture(&sandbox.home().join(".cache"));
    let report = data(&sandbox, &["add", "hf"]);
    assert_eq!(references(&report, "models"), ["org/plain", "org/tiny", "org/tiny"]);
    assert!(report["skipped"].as_array().expect("a list").is_empty());
    assert_eq!(picture(&sandbox.home().join(".cache")), before, "nothing of the cache changes");
    assert!(!sandbox.store().join("blobs/sha256").read_dir().is_ok_and(|mut blobs| blobs.next().is_some()));
    let again = data(&sandbox, &["add", "hf"]);
    assert!(again["models"].as_array().expect("a list").iter().all(|model| model["already_known"] == true));
    assert_eq!(data(&sandbox, &["show", "org/tiny@22fd25f"])["revision"], other.as_str());
}

#[test]
fn a_model_that_cannot_be_added_is_left_out_with_the_reason() {
    let sandbox = Sandbox::new();
    place_in_hub(&sandbox, "llama_tied", "models--org--whole", COMMIT);
    let broken = place_in_hub(&sandbox, "llama_tied", "models--org--broken", COMMIT);
    fs::remove_file(broken.join("model.safetensors").canonicalize().expect("a blob")).expect("gone");
    let report = data(&sandbox, &["add", "hf"]);
    assert_eq!(references(&report, "models"), ["org/whole"]);
    assert_eq!(references(&report, "skipped"), ["org/broken"]);
    let reason = report["skipped"][0]["reason"].as_str().expect("a text");
    assert!(reason.contains("model.safetensors"), "{reason}");
    refused(&sandbox, &["add", "ollama"], "FILE_NOT_FOUND", "ollama keeps no models");
    refused(&sandbox, &["add", "hf", "--name", "me/x"], "INVALID_REQUEST", "one name");
}

#[test]
fn models_of_ollama_have_all_their_layers_and_can_be_copied() {
    let sandbox = Sandbox::new();
    let tree = OllamaTree(&sandbox);
    let layers = [tree.layer("model", &tiny_gguf()), tree.layer("system", b"Be kind.")];
    tree.manifest(SMOLLM2, &layers);
    tree.manifest("registry.ollama.ai/library/smollm2/latest", &layers);
    let before = picture(&tree.root());
    let report = data(&sandbox, &["add", "ollama"]);
    assert_eq!(references(&report, "models"), ["ollama:smollm2:135m", "ollama:smollm2:latest"]);
    assert_eq!(report["models"][0]["origin"], "ollama");
    let blob = tree.blob(&sha256(&tiny_gguf()));
    assert_eq!(report["models"][0]["path"], blob.to_str().expect("UTF-8"));
    let files = data(&sandbox, &["show", "ollama:smollm2:135m"])["files"].clone();
    assert_eq!(files.as_array().expect("a list").len(), 3);
    assert!(files.as_array().expect("a list").iter().all(|file| file["digest"].is_string()));
    assert_eq!(picture(&tree.root()), before);

    let copied = data(&sandbox, &["add", "ollama:smollm2:135m", "--copy"])["models"][0].clone();
    assert_eq!(copied["origin"], "copied");
    let path = Path::new(copied["path"].as_str().expect("a path"));
    assert_eq!(path.file_name().expect("a name"), "model.gguf");
    assert_eq!(fs::read(path).expect("a link"), tiny_gguf());
    assert_eq!(fs::read(path.with_file_name("system")).expect("a link"), b"Be kind.");
    assert_eq!(
        data(&sandbox, &["rm", "ollama:smollm2:135m", "--yes"])["kept"].as_array().expect("a list").len(),
        0
    );
    assert_eq!(picture(&tree.root()), before);
}

#[test]
fn one_model_is_added_by_its_name_and_may_get_another() {
    let sandbox = Sandbox::new();
    OllamaTree(&sandbox).manifest(SMOLLM2, &[OllamaTree(&sandbox).layer("model", &tiny_gguf())]);
    let added = data(&sandbox, &["add", "ollama:smollm2:135m", "--name", "me/small"]);
    assert_eq!(references(&added, "models"), ["me/small"]);
    refused(&sandbox, &["add", "ollama:smollm2"], "FILE_NOT_FOUND", "ollama:smollm2");
    // A folder in the place where the user is comes first, and so does one that is called as a tool.
    place(&sandbox, "llama_tied", "ollama");
    let folder = data(&sandbox, &["add", "./ollama"]);
    assert_eq!(references(&folder, "models"), ["local/ollama"]);
}

#[test]
fn a_folder_of_variants_is_one_model_of_which_a_file_is_chosen() {
    let sandbox = Sandbox::new();
    for file in ["llama_Q8_0.gguf", "llama_Q4_0.gguf"] {
        place(&sandbox, &format!("gguf/{file}"), &format!(".lmstudio/models/pub/both/{file}"));
    }
    let report = data(&sandbox, &["add", "lmstudio"]);
    assert_eq!(references(&report, "models"), ["lmstudio:pub/both"]);
    assert_eq!(report["models"][0]["files"], 2);
    let path = data(&sandbox, &["path", "lmstudio:pub/both:Q4_0"])["path"].clone();
    assert!(path.as_str().expect("a path").ends_with("pub/both/llama_Q4_0.gguf"), "{path}");
    refused(&sandbox, &["run", "lmstudio:pub/both", "x"], "MODEL_AMBIGUOUS", "2 GGUF files");
}
