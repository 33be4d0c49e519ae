//! What can be said about any model, supported or not: for lists and reports.

use serde_json::{Map, Value};

use crate::engine::format::metadata::Metadata;

/// Facts of a configuration, as far as it tells them. Nothing here is checked enough to compute with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outline {
    /// `model_type`, or `general.architecture` of a GGUF.
    pub model_type: Option<String>,
    /// The class that transformers would load, such as `LlamaForCausalLM`.
    pub class: Option<String>,
    pub layers: Option<u64>,
    pub context_length: Option<u64>,
    /// Numbers that a full key-value cache holds for one token.
    pub kv_values_per_token: Option<u64>,
    /// Label of the quantization that the configuration declares.
    pub quantization: Option<String>,
    /// Bits of packed weights, if the configuration gives one number.
    pub bits: Option<u64>,
}

impl Outline {
    /// From config.json; a text model inside a multimodal one is looked for under `text_config`.
    pub fn from_config(config: &Map<String, Value>) -> Self {
        let text = config.get("text_config").and_then(Value::as_object);
        let number = |names: &[&str]| {
            let find = |map: &Map<String, Value>| names.iter().find_map(|name| map.get(*name)?.as_u64());
            find(config).or_else(|| text.and_then(find))
        };
        let layers = number(&["num_hidden_layers", "n_layer", "n_layers", "num_layers"]);
        let heads = number(&["num_attention_heads", "n_head", "n_heads"]);
        let kv_heads = number(&["num_key_value_heads"]).or(heads);
        let head_dim = number(&["head_dim"])
            .or_else(|| number(&["hidden_size", "n_embd", "d_model"])?.checked_div(heads?));
        let quantization = ["quantization", "quantization_config"]
            .iter()
            .find_map(|name| config.get(*name).or_else(|| text?.get(*name))?.as_object());
        Self {
            model_type: config.get("model_type").and_then(Value::as_str).map(str::to_owned),
            class: config
                .get("architectures")
                .and_then(|classes| classes.get(0)?.as_str())
                .map(str::to_owned),
            layers,
            context_length: number(&["max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"]),
            kv_values_per_token: kv_values(attending(config, text, layers), kv_heads, head_dim),
            quantization: quantization.map(label),
            bits: quantization.and_then(|fields| fields.get("bits")?.as_u64()),
        }
    }

    /// From the metadata of a GGUF file.
    pub fn from_metadata(metadata: &Metadata) -> Self {
        let Some(model_type) = metadata.text("general.architecture") else {
            return Self::default();
        };
        let number = |key: &str| metadata.unsigned(&format!("{model_type}.{key}"));
        let layers = number("block_count");
        let heads = number("attention.head_count");
        let head_dim =
            number("attention.key_length").or_else(|| number("embedding_length")?.checked_div(heads?));
        Self {
            model_type: Some(model_type.to_owned()),
            class: None,
            layers,
            context_length: number("context_length"),
            kv_values_per_token: kv_values(layers, number("attention.head_count_kv").or(heads), head_dim),
            quantization: metadata.unsigned("general.file_type").and_then(file_type),
            bits: None,
        }
    }
}

/// Layers with attention: those that `layer_types` does not call otherwise, or every so-many-th.
fn attending(
    config: &Map<String, Value>,
    text: Option<&Map<String, Value>>,
    layers: Option<u64>,
) -> Option<u64> {
    const OTHERS: [&str; 5] = ["linear_attention", "mamba", "conv", "mlp", "moe"];
    let find = |name: &str| config.get(name).or_else(|| text?.get(name));
    let types = find("layer_types").or_else(|| find("layers_block_type"));
    if let Some(types) = types.and_then(Value::as_array) {
        let attends = |kind: &&Value| kind.as_str().is_none_or(|kind| !OTHERS.contains(&kind));
        return Some(types.iter().filter(attends).count() as u64);
    }
    match find("full_attention_interval").and_then(Value::as_u64) {
        Some(interval) => layers?.checked_div(interval),
        None => layers,
    }
}

fn kv_values(layers: Option<u64>, kv_heads: Option<u64>, head_dim: Option<u64>) -> Option<u64> {
    layers?.checked_mul(kv_heads?)?.checked_mul(head_dim?)?.checked_mul(2)
}

/// "4-bit (group 64)", "mixed" where layers differ, "mxfp4", "gptq 4-bit".
fn label(fields: &Map<String, Value>) -> String {
    let bits = fields.get("bits").and_then(Value::as_u64);
    if let Some(method) = fields.get("quant_method").and_then(Value::as_str) {
        return match bits {
            Some(bits) => format!("{method} {bits}-bit"),
            None => method.to_owned(),
        };
    }
    if let Some(mode) = fields.get("mode").and_then(Value::as_str)
        && mode != "affine"
    {
        return mode.to_owned();
    }
    let differs = |value: &Value| match value {
        Value::Object(own) => own.get("bits").is_some_and(|own| own.as_u64() != bits),
        _ => false,
    };
    if fields.values().any(differs) {
        return "mixed".to_owned();
    }
    match (bits, fields.get("group_size").and_then(Value::as_u64)) {
        (Some(bits), Some(group)) => format!("{bits}-bit (group {group})"),
        (Some(bits), None) => format!("{bits}-bit"),
        _ => "quantized".to_owned(),
    }
}

/// Name of a `general.file_type`: `enum llama_ftype` of llama.cpp's llama.h.
fn file_type(number: u64) -> Option<String> {
    const NAMES: &[(u64, &str)] = &[
        (0, "F32"),
        (1, "F16"),
        (2, "Q4_0"),
        (3, "Q4_1"),
        (7, "Q8_0"),
        (8, "Q5_0"),
        (9, "Q5_1"),
        (10, "Q2_K"),
        (11, "Q3_K_S"),
        (12, "Q3_K_M"),
        (13, "Q3_K_L"),
        (14, "Q4_K_S"),
        (15, "Q4_K_M"),
        (16, "Q5_K_S"),
        (17, "Q5_K_M"),
        (18, "Q6_K"),
        (19, "IQ2_XXS"),
        (20, "IQ2_XS"),
        (21, "Q2_K_S"),
        (22, "IQ3_XS"),
        (23, "IQ3_XXS"),
        (24, "IQ1_S"),
        (25, "IQ4_NL"),
        (26, "IQ3_S"),
        (27, "IQ3_M"),
        (28, "IQ2_S"),
        (29, "IQ2_M"),
        (30, "IQ4_XS"),
        (31, "IQ1_M"),
        (32, "BF16"),
        (36, "TQ1_0"),
        (37, "TQ2_0"),
        (38, "MXFP4_MOE"),
    ];
    NAMES.iter().find(|row| row.0 == number).map(|row| row.1.to_owned())
}
