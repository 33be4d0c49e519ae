//! The configuration in the metadata of a GGUF file.
//!
//! Keys: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>. The shapes and the presence of
//! tensors are the truth where the metadata leaves something out.

use std::path::Path;

use crate::engine::config::rope::{Rope, RopeScaling, positive, scaling_unsupported};
use crate::engine::config::{Architecture, AttentionBias, ModelConfig, limits};
use crate::engine::format::file::{damaged, unsupported};
use crate::engine::format::metadata::{Metadata, Value};
use crate::engine::format::tensors::Tensors;
use crate::engine::format::weight::FloatType;
use crate::error::Result;

/// Control tokens that end a turn in the chat formats of the Llama family. Older files name only the
/// end of the text as `eos_token_id`, and the turn's end is known by its text.
const TURN_ENDS: &[&str] = &["<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>"];
/// `tokenizer.ggml.token_type` of a control token.
const CONTROL: i64 = 3;

/// Understands a file's configuration. `rope_factors` is the content of its tensor
/// `rope_freqs.weight`, if there is one.
pub fn from_gguf(
    metadata: &Metadata,
    tensors: &Tensors,
    rope_factors: Option<Vec<f32>>,
) -> Result<ModelConfig> {
    let path = tensors.main_path();
    let model_type = metadata
        .text("general.architecture")
        .ok_or_else(|| damaged(path, "does not say its architecture"))?;
    if model_type != "llama" {
        let model_type: String = model_type.chars().take(64).collect();
        return Err(unsupported(path, &format!("is a model of type {model_type:?}"))
            .hint("the supported type of GGUF files is llama"));
    }
    if let Some(parts) = metadata.unsigned("split.count").filter(|&parts| parts > 1) {
        return Err(unsupported(path, &format!("is one of the {parts} parts of a split GGUF file"))
            .hint("join the parts with `llama-gguf-split --merge`, or get a file that is whole"));
    }
    let number = |key: &str| -> Result<Option<usize>> {
        let key = format!("llama.{key}");
        match (metadata.unsigned(&key), metadata.get(&key)) {
            (Some(value), _) => Ok(Some(usize::try_from(value).unwrap_or(usize::MAX))),
            (None, None) => Ok(None),
            (None, Some(Value::Integers(_))) => {
                Err(unsupported(path, &format!("has a different {key} for each layer")))
            }
            (None, Some(_)) => Err(damaged(path, &format!("has a {key} that is not a number"))),
        }
    };
    let required =
        |key: &str| number(key)?.ok_or_else(|| damaged(path, &format!("does not say llama.{key}")));
    let float = |key: &str| metadata.float(&format!("llama.{key}"));

    if number("expert_count")?.unwrap_or(0) > 0 {
        return Err(unsupported(path, "is a mixture of experts")
            .hint("dense models of the Llama family are supported"));
    }
    let hidden_size = required("embedding_length")?;
    let heads = required("attention.head_count")?;
    let head_dim = match number("attention.key_length")? {
        Some(length) => length,
        None if heads != 0 && hidden_size.is_multiple_of(heads) => hidden_size / heads,
        None => {
            return Err(damaged(
                path,
                &format!("divides an embedding length of {hidden_size} among {heads} heads"),
            ));
        }
    };
    if let Some(length) = number("attention.value_length")?
        && length != head_dim
    {
        return Err(unsupported(path, &format!("has keys of length {head_dim} and values of {length}")));
    }
    let vocab_size = vocabulary(metadata, tensors)?;
    let has = |name: &str| tensors.get(name).is_some();
    let dims = number("rope.dimension_count")?.unwrap_or(head_dim);
    let config = ModelConfig {
        architecture: Architecture::Llama,
        model_type: model_type.to_owned(),
        hidden_size,
        layers: required("block_count")?,
        heads,
        kv_heads: number("attention.head_count_kv")?.unwrap_or(heads),
        head_dim,
        intermediate_size: required("feed_forward_length")?,
        vocab_size,
        rms_norm_eps: float("attention.layer_norm_rms_epsilon")
            .ok_or_else(|| damaged(path, "does not say llama.attention.layer_norm_rms_epsilon"))?
            as f32,
        rope: Rope {
            theta: float("rope.freq_base").unwrap_or(10_000.0) as f32,
            dims,
            traditional: true,
            scaling: scaling(metadata, rope_factors, dims, path)?,
        },
        max_position_embeddings: required("context_length")?,
        tie_word_embeddings: !has("lm_head.weight"),
        attention_bias: AttentionBias {
            qkv: has("model.layers.0.self_attn.q_proj.bias"),
            o: has("model.layers.0.self_attn.o_proj.bias"),
        },
        mlp_bias: has("model.layers.0.mlp.gate_proj.bias"),
        sliding_window: number("attention.sliding_window")?.filter(|&window| window > 0),
        eos_token_ids: eos_token_ids(metadata, vocab_size),
        bos_token_id: token(metadata, "tokenizer.ggml.bos_token_id", vocab_size),
        dtype: tensors.stored_float().unwrap_or(FloatType::F16),
        quantization: None,
    };
    limits::check(&config, path)?;
    Ok(config)
}

/// Rows of the embedding; more tokens than rows cannot be.
fn vocabulary(metadata: &Metadata, tensors: &Tensors) -> Result<usize> {
    let embedding = tensors.require("model.embed_tokens.weight")?;
    let rows = embedding.shape.first().copied().unwrap_or(0);
    match metadata.texts("tokenizer.ggml.tokens") {
        Some(tokens) if tokens.len() > rows => Err(damaged(
            tensors.main_path(),
            &format!("has {} tokens, but only {rows} rows in its embedding", tokens.len()),
        )),
        _ => Ok(rows),
    }
}

fn scaling(metadata: &Metadata, factors: Option<Vec<f32>>, dims: usize, path: &Path) -> Result<RopeScaling> {
    let factor = metadata
        .float("llama.rope.scaling.factor")
        // The key before August 2023.
        .or_else(|| metadata.float("llama.rope.scale_linear"))
        .filter(|&factor| factor != 0.0);
    let kind = metadata.text("llama.rope.scaling.type");
    let linear = match kind {
        None | Some("none") => factor.filter(|_| kind.is_none()),
        Some("linear") => {
            Some(factor.ok_or_else(|| damaged(path, "has linear rope scaling without a factor"))?)
        }
        Some(other) => return Err(scaling_unsupported(other, path)),
    };
    let Some(factors) = factors else {
        return Ok(match linear {
            Some(factor) => RopeScaling::Linear { factor: positive(factor, "rope scaling factor", path)? },
            None => RopeScaling::Default,
        });
    };
    if linear.is_some() {
        return Err(unsupported(path, "has both linear rope scaling and rope_freqs.weight"));
    }
    if factors.len() != dims / 2 {
        return Err(damaged(
            path,
            &format!("has {} factors in rope_freqs.weight for {dims} rotated dimensions", factors.len()),
        ));
    }
    for &factor in &factors {
        positive(factor.into(), "factor in rope_freqs.weight", path)?;
    }
    Ok(RopeScaling::Factors(factors))
}

/// Ends of text, turn and message, by key and by text.
fn eos_token_ids(metadata: &Metadata, vocab_size: usize) -> Vec<u32> {
    let mut ids = Vec::new();
    let mut add = |id: u32| {
        if !ids.contains(&id) {
            ids.push(id);
        }
    };
    for key in ["eos", "eot", "eom"] {
        let key = format!("tokenizer.ggml.{key}_token_id");
        token(metadata, &key, vocab_size).into_iter().for_each(&mut add);
    }
    let tokens = metadata.texts("tokenizer.ggml.tokens").unwrap_or_default();
    let types = metadata.integers("tokenizer.ggml.token_type").unwrap_or_default();
    for (id, (token, &kind)) in tokens.iter().zip(types).enumerate() {
        if kind == CONTROL && TURN_ENDS.contains(&token.as_str()) {
            add(id as u32);
        }
    }
    ids
}

fn token(metadata: &Metadata, key: &str, vocab_size: usize) -> Option<u32> {
    let id = metadata.unsigned(key)?;
    u32::try_from(id).ok().filter(|&id| (id as usize) < vocab_size)
}
