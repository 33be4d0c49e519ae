use super::*;
use crate::models::{COMMIT, data, place, place_in_hub, refused};
use crate::sandbox::smollm2;

/// Runs a model that answers with at most a few tokens; its `data`.
fn answer(sandbox: &Sandbox, model: &str, flags: &[&str]) -> Value {
    data(sandbox, &[&["run", model, "What is the capital of France?"], flags].concat())
}

#[test]
fn ollamas_gguf_runs_where_it_lies_as_ollama_would_ask_it() {
    let sandbox = Sandbox::new();
    let tree = OllamaTree(&sandbox);
    let content = fs::read(smollm2()).expect("the model");
    let params = json!({"stop": ["<|im_start|>", "."], "temperature": 0, "num_ctx": 512, "mirostat": 1});
    tree.manifest(
        SMOLLM2,
        &[
            tree.layer("model", &content),
            tree.layer("template", b"{{ .Prompt }}"),
            tree.layer("system", b"You are a helpful AI assistant named SmolLM."),
            tree.layer("params", params.to_string().as_bytes()),
            tree.layer(
                "messages",
                br#"[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]"#,
            ),
        ],
    );
    let before = picture(&tree.root());
    let model = "ollama:smollm2:135m";
    let question = "What is the capital of France?";
    let outcome = sandbox.run(&["run", model, question, "-n", "40", "--json"]);
    assert!(outcome.stderr.contains("mirostat"), "what is not honoured is told: {}", outcome.stderr);
    let given = crate::sandbox::envelope(&outcome.stdout)["data"].clone();
    assert_eq!(given["model"], model);
    // The answer ends before the stop text that Ollama's parameters have.
    assert_eq!(
        (&given["text"], &given["finish_reason"]),
        (&"The capital of France is Paris".into(), &"stop".into())
    );
    assert_eq!(given["sampling"]["temperature"], 0.0);
    let prompt = given["rendered_prompt"].as_str().expect("a prompt");
    let told = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n\
                <|im_start|>assistant\nHello<|im_end|>\n<|im_start|>user\nWhat is";
    assert!(prompt.starts_with(told), "{prompt}");
    assert!(!sandbox.store().exists(), "a run makes no store");

    // A flag comes before what Ollama says, and an adopted model is asked in the same way.
    data(&sandbox, &["add", "ollama"]);
    let flagged = answer(&sandbox, model, &["-n", "3", "--stop", "nothing", "--system", "Be brief."]);
    assert_eq!(flagged["finish_reason"], "length");
    assert!(flagged["rendered_prompt"].as_str().expect("a prompt").contains("system\nBe brief.<"));
    assert_eq!(data(&sandbox, &["show", model])["origin"], "ollama");
    assert_eq!(picture(&tree.root()), before);
}

#[test]
fn a_name_is_found_in_another_tools_cache_without_being_added() {
    let sandbox = Sandbox::new();
    let other = COMMIT.replace("12f", "22f");
    let first = place_in_hub(&sandbox, "llama_tied", "models--org--tiny", COMMIT);
    let second = place_in_hub(&sandbox, "llama_untied", "models--org--tiny", &other);
    let path =
        |reference: &str| data(&sandbox, &["path", reference])["path"].as_str().expect("a path").to_owned();
    let is =
        |reference: &str, expected: &Path| assert_eq!(path(reference), expected.to_str().expect("UTF-8"));
    set_main(&sandbox, "models--org--tiny", COMMIT);
    is("org/tiny", &first);
    is("org/tiny@22fd25f", &second);
    is("org/tiny@main", &first);
    set_main(&sandbox, "models--org--tiny", &other);
    is("org/tiny", &second);
    is("hf.co/org/tiny", &second);
    refused(&sandbox, &["path", "org/tiny@v1"], "MODEL_NOT_FOUND", "org/tiny@v1");
    assert_eq!(answer(&sandbox, "org/tiny", &["-n", "1"])["model"], "org/tiny");
    let shown = data(&sandbox, &["show", "org/tiny"]);
    assert_eq!((&shown["status"], &shown["revision"]), (&"foreign".into(), &other.as_str().into()));

    let file = place(&sandbox, "gguf/llama_Q8_0.gguf", ".lmstudio/models/pub/My Model/llama-Q8_0.gguf");
    place(&sandbox, "gguf/llama_Q4_0.gguf", ".lmstudio/models/pub/My Model/llama-Q4_0.gguf");
    is("lmstudio:pub/My Model:Q8_0", &file);
    refused(&sandbox, &["path", "lmstudio:pub/My Model:Q5_0"], "FILE_NOT_FOUND", "Q5_0");
    sandbox.config("[aliases]\nlittle = \"lmstudio:pub/My Model:Q8_0\"\n");
    is("little", &file);
    refused(&sandbox, &["rm", "org/tiny", "--yes"], "MODEL_NOT_FOUND", "org/tiny is not a registered model");
}

#[test]
fn a_model_that_is_there_in_part_only_is_none() {
    let sandbox = Sandbox::new();
    let snapshot = place_in_hub(&sandbox, "llama_tied", "models--org--tiny", COMMIT);
    fs::remove_file(snapshot.join("model.safetensors")).expect("gone");
    refused(&sandbox, &["path", "org/tiny"], "MODEL_NOT_FOUND", "org/tiny");
    let listed = data(&sandbox, &["list", "--source", "hf"]);
    assert_eq!(listed["models"][0]["kind"], "other");
}

#[test]
fn a_model_with_an_adapter_is_refused() {
    let sandbox = Sandbox::new();
    let tree = OllamaTree(&sandbox);
    tree.manifest(SMOLLM2, &[tree.layer("model", &tiny_gguf()), tree.layer("adapter", b"GGUF")]);
    refused(&sandbox, &["run", "ollama:smollm2:135m", "x"], "MODEL_UNSUPPORTED", "adapter");
}
