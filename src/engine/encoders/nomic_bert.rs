//! Nomic BERT (Nussbaum et al., arXiv:2402.01613): BERT with rotary positions and a gated feed-forward part.

use super::block::{Attending, Block, Names, norms_after};
use super::settings::Settings;
use super::weights::Weights;
use super::{Encoder, Shape};
use crate::engine::config::style::Activation;
use crate::engine::ffi::array;
use crate::engine::format::file::unsupported;
use crate::engine::layers::sequences::Rotation;
use crate::error::Result;

pub fn load(settings: &Settings, weights: &Weights) -> Result<Encoder> {
    if settings.flag("prenorm")? == Some(true)
        || settings.size(&["num_experts", ".expert_count"])?.unwrap_or(0) > 1
    {
        return Err(unsupported(
            settings.path(),
            "is a Nomic BERT with norms before its parts, or with experts",
        ));
    }
    let activation = match settings.value("activation_function").and_then(|value| value.as_str()) {
        None | Some("swiglu") => settings.activation(&["hidden_act"]).map(|activation| match activation {
            // What is not said is SwiGLU here.
            Activation::Gelu if settings.value("hidden_act").is_none() => Activation::Silu,
            other => other,
        })?,
        Some("geglu") => Activation::Gelu,
        Some(other) => return Err(unsupported(settings.path(), &format!("needs the activation {other:?}"))),
    };
    let positions = settings.required(&["n_positions", "max_position_embeddings", ".context_length"])?;
    // Beyond the trained positions a scaling factor would change the rotation with the text's length.
    let max_tokens = match settings.float(&["rotary_scaling_factor"])? {
        Some(_) => positions.min(settings.size(&["max_trained_positions"])?.unwrap_or(2048)),
        None => positions,
    };
    let shape = settings.checked(Shape {
        hidden: settings.required(&["n_embd", "hidden_size", ".embedding_length"])?,
        layers: settings.required(&["n_layer", "num_hidden_layers", ".block_count"])?,
        heads: settings.required(&["n_head", "num_attention_heads", ".attention.head_count"])?,
        inner: settings.required(&["n_inner", "intermediate_size", ".feed_forward_length"])?,
        vocabulary: settings.vocabulary()?,
        max_tokens,
        epsilon: settings
            .float(&["layer_norm_epsilon", "layer_norm_eps", ".attention.layer_norm_epsilon"])?
            .unwrap_or(1e-12) as f32,
        activation,
    })?;
    let head_dim = shape.hidden / shape.heads;
    let fraction = settings.float(&["rotary_emb_fraction"])?.unwrap_or(1.0).clamp(0.0, 1.0);
    let theta = settings
        .value("rope_parameters")
        .and_then(|rope| rope.get("rope_theta")?.as_f64())
        .or(settings.float(&["rotary_emb_base", "rope_theta", ".rope.freq_base"])?)
        .unwrap_or(1000.0);
    let interleaved = settings.flag("rotary_emb_interleaved")?.unwrap_or(false);
    let rotation = Rotation::of_base((head_dim as f64 * fraction) as usize / 2 * 2, theta);
    if settings.is_gguf() {
        return super::gguf::nomic_bert(weights, shape, rotation, interleaved);
    }

    let prefix = weights.prefix(&["", "model.", "bert."], "embeddings.word_embeddings.weight");
    let at = |name: &str| format!("{prefix}{name}");
    let blocks = (0..shape.layers)
        .map(|index| {
            let at = |name: &str| format!("{prefix}encoder.layers.{index}.{name}");
            let names = Names {
                qkv: vec![at("attn.Wqkv")],
                output: at("attn.out_proj"),
                up: vec![at("mlp.fc12"), at("mlp.fc11")],
                gate_in_one: false,
                down: at("mlp.fc2"),
                attention_bias: weights.has(&at("attn.Wqkv.bias")),
                feed_forward_bias: weights.has(&at("mlp.fc2.bias")),
            };
            let norms = norms_after(weights, &shape, &at("norm1"), &at("norm2"))?;
            let attending = Attending { rotation: Some(0), interleaved, ..Attending::default() };
            Block::load(weights, &shape, &names, norms, attending)
        })
        .collect::<Result<_>>()?;
    Ok(Encoder {
        words: weights.table(&at("embeddings.word_embeddings"), shape.vocabulary, shape.hidden)?,
        positions: None,
        kind: weights.first_row(&at("embeddings.token_type_embeddings"), shape.hidden)?,
        embeddings_norm: Some(weights.norm(&at("emb_ln"), shape.hidden, shape.epsilon, true)?),
        blocks,
        rotations: vec![rotation],
        final_norm: None,
        dtype: array::dtype(weights.compute_type()),
        shape,
    })
}
