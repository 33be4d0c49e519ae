//! DistilBERT (Sanh et al., arXiv:1910.01108): BERT with half the layers and without text types.

use super::block::{Attending, Block, Names, norms_after};
use super::settings::Settings;
use super::weights::Weights;
use super::{Encoder, Positions, Shape};
use crate::engine::ffi::array;
use crate::error::Result;

/// `transformers` has it as a constant.
const EPSILON: f32 = 1e-12;

pub fn load(settings: &Settings, weights: &Weights) -> Result<Encoder> {
    let shape = settings.checked(Shape {
        hidden: settings.required(&["dim"])?,
        layers: settings.required(&["n_layers"])?,
        heads: settings.required(&["n_heads"])?,
        inner: settings.required(&["hidden_dim"])?,
        vocabulary: settings.required(&["vocab_size"])?,
        max_tokens: settings.required(&["max_position_embeddings"])?,
        epsilon: EPSILON,
        activation: settings.activation(&["activation"])?,
    })?;
    let prefix = weights.prefix(&["", "distilbert.", "model."], "embeddings.word_embeddings.weight");
    let at = |name: &str| format!("{prefix}{name}");
    let blocks = (0..shape.layers)
        .map(|index| {
            let at = |name: &str| format!("{prefix}transformer.layer.{index}.{name}");
            let names = Names {
                qkv: ["q_lin", "k_lin", "v_lin"].map(|name| at(&format!("attention.{name}"))).to_vec(),
                output: at("attention.out_lin"),
                up: vec![at("ffn.lin1")],
                gate_in_one: false,
                down: at("ffn.lin2"),
                attention_bias: true,
                feed_forward_bias: true,
            };
            let norms = norms_after(weights, &shape, &at("sa_layer_norm"), &at("output_layer_norm"))?;
            Block::load(weights, &shape, &names, norms, Attending::default())
        })
        .collect::<Result<_>>()?;
    Ok(Encoder {
        words: weights.table(&at("embeddings.word_embeddings"), shape.vocabulary, shape.hidden)?,
        positions: Some(Positions {
            table: weights.table(&at("embeddings.position_embeddings"), shape.max_tokens, shape.hidden)?,
            padding: None,
        }),
        kind: None,
        embeddings_norm: Some(weights.norm(
            &at("embeddings.LayerNorm"),
            shape.hidden,
            shape.epsilon,
            true,
        )?),
        blocks,
        rotations: Vec::new(),
        final_norm: None,
        dtype: array::dtype(weights.compute_type()),
        shape,
    })
}
