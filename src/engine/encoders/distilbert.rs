//! DistilBERT (Sanh et al., arXiv:1910.01108): BERT with half the layers and without text types.

use super::bert::{Modules, assemble, positions};
use super::settings::Settings;
use super::weights::Weights;
use super::{Encoder, Shape};
use crate::error::Result;

/// `transformers` has it as a constant.
const EPSILON: f32 = 1e-12;

const MODULES: Modules = Modules {
    layers: "transformer.layer",
    qkv: ["attention.q_lin", "attention.k_lin", "attention.v_lin"],
    output: "attention.out_lin",
    up: "ffn.lin1",
    down: "ffn.lin2",
    norms: ["sa_layer_norm", "output_layer_norm"],
};

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
    let positions = positions(weights, &shape, prefix, None)?;
    assemble(weights, shape, prefix, &MODULES, positions, None)
}
