//! ModernBERT (Warner et al., arXiv:2412.13663): norms before the parts, rotary positions, and local
//! attention in most layers.

use serde_json::Value;

use super::block::{Attending, Block, Names, Norms};
use super::settings::Settings;
use super::weights::Weights;
use super::{Encoder, Shape};
use crate::engine::ffi::array;
use crate::engine::format::file::{damaged, unsupported};
use crate::engine::layers::sequences::Rotation;
use crate::error::Result;

const GLOBAL: usize = 0;
const LOCAL: usize = 1;

pub fn load(settings: &Settings, weights: &Weights) -> Result<Encoder> {
    let shape = settings.checked(Shape {
        hidden: settings.required(&["hidden_size"])?,
        layers: settings.required(&["num_hidden_layers"])?,
        heads: settings.required(&["num_attention_heads"])?,
        inner: settings.required(&["intermediate_size"])?,
        vocabulary: settings.required(&["vocab_size"])?,
        max_tokens: settings.required(&["max_position_embeddings"])?,
        epsilon: settings.float(&["norm_eps"])?.unwrap_or(1e-5) as f32,
        activation: settings.activation(&["hidden_activation"])?,
    })?;
    let head_dim = shape.hidden / shape.heads;
    if head_dim % 2 != 0 {
        return Err(damaged(settings.path(), &format!("rotates heads of the odd size {head_dim}")));
    }
    let norm_bias = settings.flag("norm_bias")?.unwrap_or(false);
    let attention_bias = settings.flag("attention_bias")?.unwrap_or(false);
    let feed_forward_bias = settings.flag("mlp_bias")?.unwrap_or(false);
    // The whole window, of which half lies on each side.
    let reach = settings.size(&["local_attention"])?.unwrap_or(128) / 2;
    let kinds = layer_kinds(settings, shape.layers)?;
    let rotations = vec![
        Rotation::of_base(head_dim, theta(settings, "full_attention", "global_rope_theta", 160_000.0)?),
        Rotation::of_base(head_dim, theta(settings, "sliding_attention", "local_rope_theta", 10_000.0)?),
    ];

    let prefix = weights.prefix(&["", "model."], "embeddings.tok_embeddings.weight");
    let at = |name: &str| format!("{prefix}{name}");
    let norm = |name: &str| weights.norm(name, shape.hidden, shape.epsilon, norm_bias);
    let blocks = kinds
        .into_iter()
        .enumerate()
        .map(|(index, kind)| {
            let at = |name: &str| format!("{prefix}layers.{index}.{name}");
            let names = Names {
                qkv: vec![at("attn.Wqkv")],
                output: at("attn.Wo"),
                up: vec![at("mlp.Wi")],
                gate_in_one: true,
                down: at("mlp.Wo"),
                attention_bias,
                feed_forward_bias,
            };
            let norms = Norms::Before {
                // The first layer's input is the normalised embedding.
                attention: if index == 0 { None } else { Some(norm(&at("attn_norm"))?) },
                feed_forward: norm(&at("mlp_norm"))?,
            };
            let attending = Attending {
                rotation: Some(kind),
                reach: (kind == LOCAL).then_some(reach),
                ..Attending::default()
            };
            Block::load(weights, &shape, &names, norms, attending)
        })
        .collect::<Result<_>>()?;
    Ok(Encoder {
        words: weights.table(&at("embeddings.tok_embeddings"), shape.vocabulary, shape.hidden)?,
        positions: None,
        kind: None,
        embeddings_norm: Some(norm(&at("embeddings.norm"))?),
        blocks,
        rotations,
        final_norm: Some(norm(&at("final_norm"))?),
        dtype: array::dtype(weights.compute_type()),
        shape,
    })
}

/// `GLOBAL` or `LOCAL` for each layer: listed, or every n-th one global.
fn layer_kinds(settings: &Settings, layers: usize) -> Result<Vec<usize>> {
    if let Some(listed) = settings.value("layer_types").and_then(Value::as_array) {
        let kinds: Option<Vec<usize>> = listed
            .iter()
            .map(|kind| match kind.as_str() {
                Some("full_attention") => Some(GLOBAL),
                Some("sliding_attention") => Some(LOCAL),
                _ => None,
            })
            .collect();
        return kinds
            .filter(|kinds| kinds.len() == layers)
            .ok_or_else(|| damaged(settings.path(), "has layer_types that do not fit its layers"));
    }
    let every = settings.size(&["global_attn_every_n_layers"])?.unwrap_or(3).max(1);
    Ok((0..layers).map(|index| if index % every == 0 { GLOBAL } else { LOCAL }).collect())
}

fn theta(settings: &Settings, kind: &str, name: &str, default: f64) -> Result<f64> {
    let new = settings.value("rope_parameters").and_then(|rope| rope.get(kind));
    if let Some(rope) = new
        && rope.get("rope_type").and_then(Value::as_str).is_some_and(|scaling| scaling != "default")
    {
        return Err(unsupported(settings.path(), "needs scaled rotary positions"));
    }
    let new = new.and_then(|rope| rope.get("rope_theta")?.as_f64());
    let theta = match new {
        Some(theta) => theta,
        None => settings.float(&[name])?.unwrap_or(default),
    };
    if theta > 0.0 {
        Ok(theta)
    } else {
        Err(damaged(settings.path(), &format!("has the impossible {name} {theta}")))
    }
}
