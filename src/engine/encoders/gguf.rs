//! Encoders in GGUF files, with the names that llama.cpp's converter gives their tensors
//! (`gguf.constants.TENSOR_NAMES` of gguf-py).

use super::block::{Attending, Block, Names, norms_after};
use super::weights::Weights;
use super::{Encoder, Positions, Shape};
use crate::engine::ffi::array;
use crate::engine::layers::sequences::Rotation;
use crate::error::Result;

/// BERT: learned positions, three modules for queries, keys and values.
pub(super) fn bert(weights: &Weights, shape: Shape) -> Result<Encoder> {
    let positions = weights.table("position_embd", shape.max_tokens, shape.hidden)?;
    load(weights, shape, Some(positions), None, |at| Names {
        qkv: ["attn_q", "attn_k", "attn_v"].map(at).to_vec(),
        output: at("attn_output"),
        up: vec![at("ffn_up")],
        gate_in_one: false,
        down: at("ffn_down"),
        attention_bias: true,
        feed_forward_bias: true,
    })
}

/// Nomic BERT: rotary positions, a gate.
pub(super) fn nomic_bert(
    weights: &Weights,
    shape: Shape,
    rotation: Rotation,
    interleaved: bool,
) -> Result<Encoder> {
    load(weights, shape, None, Some((rotation, interleaved)), |at| Names {
        qkv: vec![at("attn_qkv")],
        output: at("attn_output"),
        up: vec![at("ffn_gate"), at("ffn_up")],
        gate_in_one: false,
        down: at("ffn_down"),
        attention_bias: weights.has(&format!("{}.bias", at("attn_qkv"))),
        feed_forward_bias: weights.has(&format!("{}.bias", at("ffn_down"))),
    })
}

fn load(
    weights: &Weights,
    shape: Shape,
    positions: Option<super::table::Table>,
    rotation: Option<(Rotation, bool)>,
    names: impl Fn(&dyn Fn(&str) -> String) -> Names,
) -> Result<Encoder> {
    let interleaved = rotation.as_ref().is_some_and(|rotation| rotation.1);
    let blocks = (0..shape.layers)
        .map(|index| {
            let at = |name: &str| format!("blk.{index}.{name}");
            let norms = norms_after(weights, &shape, &at("attn_output_norm"), &at("layer_output_norm"))?;
            let attending =
                Attending { rotation: rotation.as_ref().map(|_| 0), interleaved, ..Attending::default() };
            Block::load(weights, &shape, &names(&at), norms, attending)
        })
        .collect::<Result<_>>()?;
    Ok(Encoder {
        words: weights.table("token_embd", shape.vocabulary, shape.hidden)?,
        positions: positions.map(|table| Positions { table, padding: None }),
        kind: weights.first_row("token_types", shape.hidden)?,
        embeddings_norm: Some(weights.norm("token_embd_norm", shape.hidden, shape.epsilon, true)?),
        blocks,
        rotations: rotation.into_iter().map(|rotation| rotation.0).collect(),
        final_norm: None,
        dtype: array::dtype(weights.compute_type()),
        shape,
    })
}
