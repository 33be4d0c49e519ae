//! Configurations, tokenizers and chat templates.

use serde_json::json;

use super::*;

fn config(model: &Path, change: impl FnOnce(&mut Value)) {
    edit(&model.join("config.json"), change);
}

fn text(model: &Path, file: &str, contents: impl AsRef<[u8]>) {
    fs::write(model.join(file), contents).expect("written");
}

fn replace(model: &Path, from: &str, to: &str) {
    let config = fs::read_to_string(model.join("config.json")).expect("text");
    text(model, "config.json", config.replace(from, to));
}

fn half(model: &Path, file: &str) {
    let bytes = fs::read(model.join(file)).expect("a file");
    text(model, file, &bytes[..bytes.len() / 2]);
}

#[test]
fn configurations_that_are_no_configuration() {
    refuse_each(
        "llama_tied",
        &[
            (
                "missing",
                |model| fs::remove_file(model.join("config.json")).expect("gone"),
                "FILE_NOT_FOUND",
                "config.json",
            ),
            ("empty", |model| text(model, "config.json", ""), "INTEGRITY_FAILED", "config.json"),
            ("truncated", |model| half(model, "config.json"), "INTEGRITY_FAILED", "config.json"),
            ("a list", |model| text(model, "config.json", "[]"), "INTEGRITY_FAILED", "config.json"),
            ("an empty object", |model| text(model, "config.json", "{}"), "INTEGRITY_FAILED", "config.json"),
            ("noise", |model| text(model, "config.json", noise(5000)), "INTEGRITY_FAILED", "config.json"),
            (
                "not UTF-8",
                |model| text(model, "config.json", b"{\"model_type\": \"\xff\"}"),
                "INTEGRITY_FAILED",
                "config.json",
            ),
            (
                "deep",
                |model| text(model, "config.json", "[".repeat(200_000)),
                "INTEGRITY_FAILED",
                "config.json",
            ),
            (
                "a folder",
                |model| {
                    fs::remove_file(model.join("config.json")).expect("gone");
                    fs::create_dir(model.join("config.json")).expect("a folder");
                },
                "INTEGRITY_FAILED",
                "config.json",
            ),
            ("NaN", |model| replace(model, "1e-05", "NaN"), "INTEGRITY_FAILED", "config.json"),
        ],
    );
}

#[test]
fn values_that_make_no_model() {
    refuse_each(
        "llama_tied",
        &[
            (
                "no heads",
                |model| config(model, |c| c["num_attention_heads"] = json!(0)),
                "INTEGRITY_FAILED",
                "attention heads 0",
            ),
            (
                "no key heads",
                |model| config(model, |c| c["num_key_value_heads"] = json!(0)),
                "INTEGRITY_FAILED",
                "key-value heads 0",
            ),
            (
                "heads that do not share",
                |model| config(model, |c| c["num_key_value_heads"] = json!(3)),
                "INTEGRITY_FAILED",
                "4 attention heads for 3 key-value heads",
            ),
            (
                "a billion layers",
                |model| config(model, |c| c["num_hidden_layers"] = json!(1_000_000_000)),
                "INTEGRITY_FAILED",
                "layers 1000000000",
            ),
            (
                "more layers than weights",
                |model| config(model, |c| c["num_hidden_layers"] = json!(3)),
                "INTEGRITY_FAILED",
                "model.layers.2",
            ),
            (
                "minus one layer",
                |model| config(model, |c| c["num_hidden_layers"] = json!(-1)),
                "INTEGRITY_FAILED",
                "num_hidden_layers",
            ),
            (
                "a width of 2^63",
                |model| config(model, |c| c["hidden_size"] = json!(1_u64 << 63)),
                "INTEGRITY_FAILED",
                "hidden size 9223372036854775808",
            ),
            (
                "a width in words",
                |model| config(model, |c| c["hidden_size"] = json!("64")),
                "INTEGRITY_FAILED",
                "hidden_size",
            ),
            (
                "a width that the weights lack",
                |model| config(model, |c| c["hidden_size"] = json!(128)),
                "INTEGRITY_FAILED",
                "model.safetensors",
            ),
            (
                "no width",
                |model| config(model, |c| drop(c.as_object_mut().expect("an object").remove("hidden_size"))),
                "INTEGRITY_FAILED",
                "hidden_size",
            ),
            (
                "an odd head",
                |model| config(model, |c| c["head_dim"] = json!(15)),
                "MODEL_UNSUPPORTED",
                "head dimension 15",
            ),
            ("an endless norm", |model| replace(model, "1e-05", "1e999"), "INTEGRITY_FAILED", "config.json"),
            (
                "a negative norm",
                |model| config(model, |c| c["rms_norm_eps"] = json!(-1.0)),
                "INTEGRITY_FAILED",
                "norm epsilon -1",
            ),
            (
                "a rope of nothing",
                |model| config(model, |c| c["rope_parameters"]["rope_theta"] = json!(0.0)),
                "INTEGRITY_FAILED",
                "rope base 0",
            ),
            (
                "an unknown rope",
                |model| config(model, |c| c["rope_parameters"]["rope_type"] = json!("spiral")),
                "MODEL_UNSUPPORTED",
                "spiral",
            ),
            (
                "an unknown architecture",
                |model| config(model, |c| c["model_type"] = json!("oracle")),
                "MODEL_UNSUPPORTED",
                "oracle",
            ),
            (
                "an unknown activation",
                |model| config(model, |c| c["hidden_act"] = json!("sinus")),
                "MODEL_UNSUPPORTED",
                "sinus",
            ),
            (
                "an unknown quantization",
                |model| config(model, |c| c["quantization_config"] = json!({"quant_method": "magic"})),
                "MODEL_UNSUPPORTED",
                "magic",
            ),
            (
                "quantization of 7 bits",
                |model| config(model, |c| c["quantization"] = json!({"bits": 7, "group_size": 64})),
                "MODEL_UNSUPPORTED",
                "7",
            ),
            (
                "an end token beyond the vocabulary",
                |model| config(model, |c| c["vocab_size"] = json!(1)),
                "INTEGRITY_FAILED",
                "model",
            ),
        ],
    );
}

const ENDLESS: &str = "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}";

fn template(model: &Path, template: &str) {
    edit(&model.join("tokenizer_config.json"), |c| c["chat_template"] = json!(template));
}

#[test]
fn tokenizers_and_templates() {
    refuse_each(
        "llama_tied",
        &[
            (
                "no tokenizer",
                |model| fs::remove_file(model.join("tokenizer.json")).expect("gone"),
                "FILE_NOT_FOUND",
                "tokenizer.json",
            ),
            ("half a tokenizer", |model| half(model, "tokenizer.json"), "INTEGRITY_FAILED", "tokenizer.json"),
            (
                "a tokenizer of noise",
                |model| text(model, "tokenizer.json", noise(4096)),
                "INTEGRITY_FAILED",
                "tokenizer.json",
            ),
            (
                "an empty tokenizer",
                |model| text(model, "tokenizer.json", "{}"),
                "INTEGRITY_FAILED",
                "tokenizer.json",
            ),
            (
                "tokens beyond the vocabulary",
                |model| edit(&model.join("tokenizer.json"), |t| t["model"]["vocab"]["H"] = json!(4_000_000)),
                "INTEGRITY_FAILED",
                "4000000",
            ),
            (
                "a template that does not parse",
                |model| template(model, "{% for m in messages %}"),
                "MODEL_UNSUPPORTED",
                "template",
            ),
            (
                "a template that refuses",
                |model| template(model, "{{ raise_exception('no user turns') }}"),
                "INVALID_REQUEST",
                "no user turns",
            ),
            ("a template without an end", |model| template(model, ENDLESS), "MODEL_UNSUPPORTED", "template"),
            (
                "a template that calls itself",
                |model| template(model, "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}"),
                "MODEL_UNSUPPORTED",
                "template",
            ),
        ],
    );
}
