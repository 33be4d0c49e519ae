//! `show`: one model in detail.

use super::*;

#[test]
fn files_have_their_sizes_and_digests() {
    let sandbox = Sandbox::new();
    let model = place(&sandbox, "llama_sharded", "tiny");
    for flags in [&[][..], &["--copy"]] {
        add(&sandbox, &model, flags);
        let shown = data(&sandbox, &["show", "tiny"]);
        let files = shown["files"].as_array().expect("a list");
        assert_eq!(files.len(), 7);
        for file in files {
            let content = fs::read(model.join(file["path"].as_str().expect("a path"))).expect("a file");
            assert_eq!(file["bytes"], content.len());
            assert_eq!(file["digest"], sha256(&content));
        }
        let text = succeeded(sandbox.run(&["show", "tiny", "--files"]));
        assert!(text.contains("model-00002-of-00003.safetensors"), "{text}");
        assert!(!succeeded(sandbox.run(&["show", "tiny"])).contains("model-00002"));
    }
}

#[test]
fn configuration_and_template_are_shown_on_request() {
    let sandbox = Sandbox::new();
    let folder = place(&sandbox, "llama_tied", "tiny");
    let file = place(&sandbox, "gguf/llama_Q4_0.gguf", "tiny.gguf");
    let shown = data(&sandbox, &["show", folder.to_str().expect("UTF-8"), "--config", "--template"]);
    assert_eq!(shown["config"]["model_type"], "llama");
    assert!(shown["template"].as_str().is_some_and(|template| template.contains("messages")), "{shown}");
    let shown = data(&sandbox, &["show", file.to_str().expect("UTF-8"), "--config"]);
    assert_eq!(shown["config"]["general.architecture"], "llama");
    assert!(shown.get("template").is_none());
    let text = succeeded(sandbox.run(&["show", "./tiny.gguf", "--config"]));
    assert!(
        text.contains("\"general.architecture\": \"llama\"") && !text.contains("tokenizer.ggml"),
        "{text}"
    );
}

#[test]
fn what_runs_says_what_it_takes_and_what_does_not_says_why() {
    let sandbox = Sandbox::new();
    let good = place(&sandbox, "llama_tied", "good");
    add(&sandbox, &good, &[]);
    let shown = data(&sandbox, &["show", "good"]);
    assert_eq!(shown["runnable"], true);
    assert!(shown["reason"].is_null());
    assert!(shown["memory_estimate_bytes"].as_u64().is_some_and(|bytes| bytes > 300_000), "{shown}");
    assert_eq!(shown["capabilities"], serde_json::json!(["chat", "completion"]));

    let config = good.join("config.json");
    let text = fs::read_to_string(&config).expect("config.json").replace("\"llama\"", "\"unheard_of\"");
    fs::write(&config, text.replace("LlamaForCausalLM", "UnheardForCausalLM")).expect("written");
    let shown = data(&sandbox, &["show", "good"]);
    assert_eq!(shown["runnable"], false);
    assert!(shown["reason"].as_str().is_some_and(|reason| reason.contains("unheard_of")), "{shown}");

    // A registered model that is damaged is shown all the same.
    fs::write(good.join("model.safetensors"), "damaged").expect("written");
    let shown = data(&sandbox, &["show", "good"]);
    assert_eq!((&shown["reference"], &shown["runnable"]), (&"local/good".into(), &false.into()));
    assert!(shown["reason"].as_str().is_some_and(|reason| reason.contains("model.safetensors")), "{shown}");
}
