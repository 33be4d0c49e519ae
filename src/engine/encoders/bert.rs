//! BERT (Devlin et al., arXiv:1810.04805).

use serde_json::Value;

use super::block::{Attending, Block, Names, bert_shape, norms_after};
use super::settings::Settings;
use super::weights::Weights;
use super::{Encoder, Positions, Shape};
use crate::engine::ffi::array;
use crate::engine::format::file::unsupported;
use crate::error::Result;

pub fn load(settings: &Settings, weights: &Weights) -> Result<Encoder> {
    let kind = settings.value("position_embedding_type").and_then(Value::as_str).unwrap_or("absolute");
    if kind != "absolute" {
        return Err(unsupported(settings.path(), &format!("needs positions of the type {kind:?}")));
    }
    let shape = bert_shape(settings, 0)?;
    if settings.is_gguf() {
        return super::gguf::bert(weights, shape);
    }
    let prefix = weights.prefix(&["", "bert.", "model."], "embeddings.word_embeddings.weight");
    with_names(weights, shape, prefix, None)
}

/// RoBERTa and its kin have the same modules; `padding` is where their positions begin.
pub(super) fn with_names(
    weights: &Weights,
    shape: Shape,
    prefix: &str,
    padding: Option<u32>,
) -> Result<Encoder> {
    let at = |name: &str| format!("{prefix}{name}");
    let reserved = padding.map_or(0, |padding| padding as usize + 1);
    let blocks = (0..shape.layers)
        .map(|index| {
            let at = |name: &str| format!("{prefix}encoder.layer.{index}.{name}");
            let names = Names {
                qkv: ["query", "key", "value"].map(|name| at(&format!("attention.self.{name}"))).to_vec(),
                output: at("attention.output.dense"),
                up: vec![at("intermediate.dense")],
                gate_in_one: false,
                down: at("output.dense"),
                attention_bias: true,
                feed_forward_bias: true,
            };
            let norms =
                norms_after(weights, &shape, &at("attention.output.LayerNorm"), &at("output.LayerNorm"))?;
            Block::load(weights, &shape, &names, norms, Attending::default())
        })
        .collect::<Result<_>>()?;
    let kind_name = at("embeddings.token_type_embeddings");
    Ok(Encoder {
        words: weights.table(&at("embeddings.word_embeddings"), shape.vocabulary, shape.hidden)?,
        positions: Some(Positions {
            table: weights.table(
                &at("embeddings.position_embeddings"),
                shape.max_tokens + reserved,
                shape.hidden,
            )?,
            padding,
        }),
        kind: weights.first_row(&kind_name, shape.hidden)?,
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
