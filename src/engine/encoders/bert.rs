//! BERT (Devlin et al., arXiv:1810.04805), and what its kin share with it.

use mlx_rs::Array;
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
    let positions = positions(weights, &shape, prefix, None)?;
    assemble(weights, shape, prefix, &MODULES, positions, None)
}

/// Names of the modules below a layer.
pub(super) struct Modules {
    /// What stands before a layer's number.
    pub layers: &'static str,
    pub qkv: [&'static str; 3],
    pub output: &'static str,
    pub up: &'static str,
    pub down: &'static str,
    /// After attention, and after the feed-forward part.
    pub norms: [&'static str; 2],
}

/// BERT's own, which RoBERTa has too.
pub(super) const MODULES: Modules = Modules {
    layers: "encoder.layer",
    qkv: ["attention.self.query", "attention.self.key", "attention.self.value"],
    output: "attention.output.dense",
    up: "intermediate.dense",
    down: "output.dense",
    norms: ["attention.output.LayerNorm", "output.LayerNorm"],
};

/// Learned positions, which may begin after the padding token's id.
pub(super) fn positions(
    weights: &Weights,
    shape: &Shape,
    prefix: &str,
    padding: Option<u32>,
) -> Result<Positions> {
    let reserved = padding.map_or(0, |padding| padding as usize + 1);
    let name = format!("{prefix}embeddings.position_embeddings");
    Ok(Positions { table: weights.table(&name, shape.max_tokens + reserved, shape.hidden)?, padding })
}

/// The encoder whose layers have these modules and whose attention adds this bias to its scores.
pub(super) fn assemble(
    weights: &Weights,
    shape: Shape,
    prefix: &str,
    modules: &Modules,
    positions: Positions,
    bias: Option<&Array>,
) -> Result<Encoder> {
    let at = |name: &str| format!("{prefix}{name}");
    let blocks = (0..shape.layers)
        .map(|index| {
            let at = |name: &str| format!("{prefix}{}.{index}.{name}", modules.layers);
            let names = Names {
                qkv: modules.qkv.map(at).to_vec(),
                output: at(modules.output),
                up: vec![at(modules.up)],
                gate_in_one: false,
                down: at(modules.down),
                attention_bias: true,
                feed_forward_bias: true,
            };
            let [attention, feed_forward] = modules.norms.map(at);
            let norms = norms_after(weights, &shape, &attention, &feed_forward)?;
            let attending = Attending { bias: bias.cloned(), ..Attending::default() };
            Block::load(weights, &shape, &names, norms, attending)
        })
        .collect::<Result<_>>()?;
    let norm = weights.norm(&at("embeddings.LayerNorm"), shape.hidden, shape.epsilon, true)?;
    Ok(Encoder {
        words: weights.table(&at("embeddings.word_embeddings"), shape.vocabulary, shape.hidden)?,
        positions: Some(positions),
        kind: weights.first_row(&at("embeddings.token_type_embeddings"), shape.hidden)?,
        embeddings_norm: Some(norm),
        blocks,
        rotations: Vec::new(),
        final_norm: None,
        dtype: array::dtype(weights.compute_type()),
        shape,
    })
}
