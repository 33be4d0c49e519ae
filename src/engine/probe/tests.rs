use std::path::{Path, PathBuf};

use serde_json::json;

use super::{Capability, Kind, Probe, probe};
use crate::engine::cache::LayerShape;
use crate::engine::format::ggml_type::GgmlType;
use crate::engine::format::metadata::Value;
use crate::engine::format::samples::{
    self, Sample, llama_config, llama_folder, llama_gguf, llama_tensors, write,
};
use crate::engine::format::weight::FloatType;
use crate::error::Code;

/// Numbers in the tensors of the sample Llama, without the rope table.
const PARAMETERS: u64 = 32 * 64 + 64 * 3 + 2 * 64 * 64 + 2 * 32 * 64 + 3 * 96 * 64;

fn obstacle(probe: &Probe) -> (Code, &str) {
    let obstacle = probe.obstacle.as_ref().expect("there is an obstacle");
    assert!(probe.demand.is_none() && !probe.runnable());
    (obstacle.code, &obstacle.message)
}

fn names(probe: &Probe) -> Vec<&str> {
    probe.files.iter().map(|file| file.to_str().unwrap()).collect()
}

#[test]
fn a_folder_that_can_run_is_described_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = llama_folder(folder.path(), &llama_config(), &llama_tensors());
    write(&path.join("tokenizer_config.json"), br#"{"chat_template": "{{ x }}", "other": [1, {"a": null}]}"#);
    write(&path.join("README.md"), b"# model");
    write(&path.join("script.py"), b"import os");
    write(&path.join("training.bin"), b"x");
    let probe = probe(&path).unwrap();
    assert_eq!((probe.kind, probe.architecture.as_deref()), (Kind::Generation, Some("llama")));
    assert_eq!(probe.parameters, PARAMETERS);
    assert_eq!(probe.quantization.as_deref(), Some("f32"));
    assert_eq!((probe.context_length, probe.layers), (Some(128), Some(1)));
    assert_eq!(probe.kv_bytes_per_token, Some(2 * 32 * 4));
    assert_eq!(probe.weights_bytes, std::fs::metadata(path.join("model.safetensors")).unwrap().len());
    assert_eq!(probe.capabilities, [Capability::Chat, Capability::Completion]);
    assert_eq!(
        names(&probe),
        ["README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    );
    let demand = probe.demand.unwrap();
    assert_eq!(demand.weights.floats, PARAMETERS);
    let [LayerShape::Tokens(layer)] = demand.cache[..] else { panic!("{:?}", demand.cache) };
    assert_eq!((layer.heads * layer.key_dim, layer.values.dim(), layer.window), (32, 32 / layer.heads, None));
    assert_eq!((demand.context, demand.dtype), (128, FloatType::F32));
}

#[test]
fn without_template_or_tokenizer_it_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = llama_folder(folder.path(), &llama_config(), &llama_tensors());
    let plain = probe(&path).unwrap();
    assert!(plain.runnable() && !plain.has_chat_template);
    assert_eq!(plain.capabilities, [Capability::Completion]);
    write(&path.join("tokenizer_config.json"), br#"{"chat_template": null}"#);
    assert!(!probe(&path).unwrap().has_chat_template);
    write(&path.join("chat_template.jinja"), b"{{ x }}");
    assert!(probe(&path).unwrap().has_chat_template);
    std::fs::remove_file(path.join("tokenizer.json")).unwrap();
    let (code, message) = {
        let probe = probe(&path).unwrap();
        let (code, message) = obstacle(&probe);
        (code, message.to_owned())
    };
    assert_eq!(code, Code::ModelUnsupported);
    assert!(message.contains("no tokenizer"), "{message}");
}

#[test]
fn a_gguf_is_described_from_its_header() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    let gguf = llama_gguf(GgmlType::Q4_1).with("tokenizer.chat_template", Value::Text("{{ x }}".to_owned()));
    write(&path, &gguf.bytes());
    let probe = probe(&path).unwrap();
    assert!(probe.runnable(), "{:?}", probe.obstacle);
    assert_eq!(probe.parameters, PARAMETERS);
    assert_eq!(probe.quantization.as_deref(), Some("F32"), "most bytes are float32");
    assert_eq!(names(&probe), ["tiny.gguf"]);
    assert_eq!(probe.capabilities, [Capability::Chat, Capability::Completion]);
    let demand = probe.demand.unwrap();
    assert_eq!(demand.weights.packed_bytes, 32 * 64 / 2);
    assert_eq!(demand.dtype, FloatType::F16);
    let named = gguf.with("general.file_type", Value::Unsigned(15));
    write(&path, &named.bytes());
    assert_eq!(super::probe(&path).unwrap().quantization.as_deref(), Some("Q4_K_M"));
}

#[test]
fn a_model_that_the_engine_lacks_is_described_with_its_obstacle() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = llama_config();
    config["model_type"] = json!("rwkv7");
    config["architectures"] = json!(["RWKV7ForCausalLM"]);
    let path = llama_folder(folder.path(), &config, &llama_tensors());
    let rwkv = probe(&path).unwrap();
    assert_eq!((rwkv.kind, rwkv.architecture.as_deref()), (Kind::Generation, Some("rwkv7")));
    assert_eq!((rwkv.parameters, rwkv.layers), (PARAMETERS, Some(1)));
    let (code, message) = obstacle(&rwkv);
    assert_eq!(code, Code::ModelUnsupported);
    assert!(message.contains("rwkv7"), "{message}");

    let gguf = folder.path().join("q8.gguf");
    write(&gguf, &llama_gguf(GgmlType::Q8_1).bytes());
    let q8 = probe(&gguf).unwrap();
    let (code, message) = obstacle(&q8);
    assert_eq!(code, Code::ModelUnsupported);
    assert!(message.contains("Q8_1"), "{message}");
    assert_eq!(q8.parameters, PARAMETERS);
}

#[test]
fn packed_words_count_as_the_elements_in_them() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = llama_config();
    config["quantization"] = json!({"group_size": 32, "bits": 4});
    let mut tensors = llama_tensors();
    tensors.retain(|tensor| tensor.name != "model.embed_tokens.weight");
    tensors.push(Sample::new("model.embed_tokens.weight", "U32", &[32, 8], vec![0; 1024]));
    for part in ["scales", "biases"] {
        tensors.push(Sample::new(format!("model.embed_tokens.{part}"), "F16", &[32, 2], vec![0; 128]));
    }
    let probe = probe(&llama_folder(folder.path(), &config, &tensors)).unwrap();
    assert_eq!(probe.parameters, PARAMETERS);
    assert_eq!(probe.quantization.as_deref(), Some("4-bit (group 32)"));
    let demand = probe.demand.unwrap();
    assert_eq!(demand.weights.packed_bytes, 1024);
    assert_eq!(demand.weights.floats, PARAMETERS - 32 * 64 + 128);
    assert_eq!(demand.dtype, FloatType::F16);
}

/// A sentence-transformers folder with this second module.
fn embedding_folder(folder: &Path, module: &str) -> PathBuf {
    let config = json!({
        "architectures": ["BertModel"], "model_type": "bert", "hidden_size": 8, "num_hidden_layers": 1,
        "num_attention_heads": 2, "max_position_embeddings": 16
    });
    let path = llama_folder(folder, &config, &[Sample::counting("embeddings.weight", &[4, 8])]);
    let modules = json!([{"path": "", "type": "Transformer"}, {"path": module, "type": "Pooling"}]);
    write(&path.join("modules.json"), modules.to_string().as_bytes());
    std::fs::create_dir(path.join("1_Pooling")).unwrap();
    write(&path.join("1_Pooling/config.json"), b"{}");
    std::fs::create_dir(path.join("other")).unwrap();
    write(&path.join("other/config.json"), b"{}");
    path
}

#[test]
fn an_embedding_model_is_listed_with_its_modules_and_not_run() {
    let folder = tempfile::tempdir().unwrap();
    let probe = probe(&embedding_folder(folder.path(), "1_Pooling")).unwrap();
    assert_eq!((probe.kind, probe.architecture.as_deref()), (Kind::Embedding, Some("bert")));
    assert_eq!(probe.capabilities, [Capability::Embedding]);
    assert_eq!(
        names(&probe),
        ["1_Pooling/config.json", "config.json", "model.safetensors", "modules.json", "tokenizer.json"]
    );
    let (code, message) = obstacle(&probe);
    assert_eq!(code, Code::CapabilityMissing);
    assert!(message.contains("bert"), "{message}");
}

#[test]
fn modules_that_leave_the_folder_are_refused() {
    for module in ["..", "../other", "/etc", "1_Pooling/../.."] {
        let folder = tempfile::tempdir().unwrap();
        let error = probe(&embedding_folder(&folder.path().join("model"), module)).unwrap_err();
        assert_eq!(error.code(), Code::BoundaryViolation, "{module}");
    }
}

#[test]
fn weights_without_a_configuration_are_described_as_far_as_they_go() {
    let folder = tempfile::tempdir().unwrap();
    let path = llama_folder(folder.path(), &llama_config(), &llama_tensors());
    write(&path.join("config.json"), b"{ broken");
    let broken = probe(&path).unwrap();
    assert_eq!((broken.kind, broken.architecture.as_deref()), (Kind::Other, None));
    assert_eq!(broken.parameters, PARAMETERS);
    assert_eq!(obstacle(&broken).0, Code::IntegrityFailed);
    std::fs::remove_file(path.join("config.json")).unwrap();
    assert_eq!(obstacle(&probe(&path).unwrap()).0, Code::FileNotFound);
}

#[test]
fn damaged_weights_are_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = llama_folder(folder.path(), &llama_config(), &llama_tensors());
    let whole = samples::safetensors(&llama_tensors());
    write(&path.join("model.safetensors"), &whole[..whole.len() - 1]);
    assert_eq!(probe(&path).unwrap_err().code(), Code::IntegrityFailed);
}
