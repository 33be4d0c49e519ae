//! A layer of an encoder: attention and a feed-forward part, each with its residual and norm.

use mlx_rs::Array;

use super::linear::{After, Linear};
use super::weights::{Mode, Weights};
use super::{Shape, settings::Settings};
use crate::engine::config::style::Activation;
use crate::engine::ffi::Operand;
use crate::engine::layers::Backend;
use crate::engine::layers::norm::Norm;
use crate::engine::layers::sequences::{Batch, SequenceAttention};
use crate::error::Result;

pub struct Block {
    attention: SequenceAttention,
    /// Which of the encoder's rotations turns queries and keys.
    rotation: Option<usize>,
    qkv: Linear,
    output: Linear,
    up: Linear,
    /// Two matrices make one result.
    gated: bool,
    activation: Activation,
    down: Linear,
    norms: Norms,
}

/// Where the norms stand.
pub enum Norms {
    /// After each residual, as in the original Transformer.
    After { attention: Norm, feed_forward: Norm },
    /// Before attention (not in every layer) and before the feed-forward part.
    Before { attention: Option<Norm>, feed_forward: Norm },
}

/// Names of a layer's modules in the checkpoint, and which of them have biases.
pub struct Names {
    /// Queries, keys and values: three modules, or one for all.
    pub qkv: Vec<String>,
    pub output: String,
    /// One module, or two for a gate: the activated one first. One name that stands for both is
    /// `gate_in_one`.
    pub up: Vec<String>,
    pub gate_in_one: bool,
    pub down: String,
    pub attention_bias: bool,
    pub feed_forward_bias: bool,
}

/// How a layer attends.
#[derive(Default)]
pub struct Attending {
    pub rotation: Option<usize>,
    pub interleaved: bool,
    pub reach: Option<usize>,
    pub bias: Option<Array>,
}

impl Block {
    pub fn load(
        weights: &Weights,
        shape: &Shape,
        names: &Names,
        norms: Norms,
        attending: Attending,
    ) -> Result<Self> {
        let Shape { hidden, heads, inner, activation, .. } = *shape;
        let qkv_rows = vec![3 * hidden / names.qkv.len().max(1); names.qkv.len()];
        let up_rows = if names.gate_in_one { vec![2 * inner] } else { vec![inner; names.up.len()] };
        let backend = match weights.mode() {
            Mode::Load { backend, .. } => backend,
            Mode::Check => Backend::Stock,
        };
        let Attending { rotation, interleaved, reach, bias } = attending;
        Ok(Self {
            attention: SequenceAttention {
                heads,
                kv_heads: heads,
                head_dim: hidden / heads,
                scale: ((hidden / heads) as f32).sqrt().recip(),
                reach,
                causal: false,
                interleaved,
                bias,
                backend,
            },
            rotation,
            qkv: weights.linear(&names.qkv, &qkv_rows, hidden, names.attention_bias)?,
            output: weights.linear(
                std::slice::from_ref(&names.output),
                &[hidden],
                hidden,
                names.attention_bias,
            )?,
            up: if names.gate_in_one {
                weights.gate(&names.up, inner, hidden, names.feed_forward_bias)?
            } else {
                weights.linear(&names.up, &up_rows, hidden, names.feed_forward_bias)?
            },
            gated: names.gate_in_one || names.up.len() == 2,
            activation,
            down: weights.linear(
                std::slice::from_ref(&names.down),
                &[hidden],
                inner,
                names.feed_forward_bias,
            )?,
            norms,
        })
    }

    pub fn rotation(&self) -> Option<usize> {
        self.rotation
    }

    /// `x [L, hidden] → [L, hidden]`.
    pub fn forward<X: Operand>(&self, x: &X, batch: &Batch, rotation: Option<&Array>) -> Result<X> {
        let attend = |x: &X, onto: &X| -> Result<X> {
            let qkv = self.qkv.forward(x, &After::Nothing)?;
            self.output.forward(&self.attention.forward(&qkv, batch, rotation)?, &After::Residual(onto))
        };
        let feed = |x: &X, onto: &X| -> Result<X> {
            let after =
                if self.gated { After::Gate(self.activation) } else { After::Activate(self.activation) };
            self.down.forward(&self.up.forward(x, &after)?, &After::Residual(onto))
        };
        match &self.norms {
            Norms::After { attention, feed_forward } => {
                let x = attention.apply(&attend(x, x)?)?;
                feed_forward.apply(&feed(&x, &x)?)
            }
            Norms::Before { attention, feed_forward } => {
                let x = match attention {
                    Some(norm) => attend(&norm.apply(x)?, x)?,
                    None => attend(x, x)?,
                };
                feed(&feed_forward.apply(&x)?, &x)
            }
        }
    }

    /// The arrays to evaluate at load.
    pub fn arrays(&self) -> Vec<&Array> {
        let mut arrays: Vec<&Array> = self.attention.bias.iter().collect();
        for linear in [&self.qkv, &self.output, &self.up, &self.down] {
            arrays.extend(linear.arrays());
        }
        let norms = match &self.norms {
            Norms::After { attention, feed_forward } => [Some(attention), Some(feed_forward)],
            Norms::Before { attention, feed_forward } => [attention.as_ref(), Some(feed_forward)],
        };
        arrays.extend(norms.into_iter().flatten().flat_map(Norm::arrays));
        arrays
    }
}

/// Both norms of a layer with norms after the residuals.
pub fn norms_after(weights: &Weights, shape: &Shape, attention: &str, feed_forward: &str) -> Result<Norms> {
    let norm = |name: &str| weights.norm(name, shape.hidden, shape.epsilon, true);
    Ok(Norms::After { attention: norm(attention)?, feed_forward: norm(feed_forward)? })
}

/// Sizes as BERT and its kin call them.
pub fn bert_shape(settings: &Settings, reserved_positions: usize) -> Result<Shape> {
    let positions = settings.required(&["max_position_embeddings", ".context_length"])?;
    settings.checked(Shape {
        hidden: settings.required(&["hidden_size", ".embedding_length"])?,
        layers: settings.required(&["num_hidden_layers", ".block_count"])?,
        heads: settings.required(&["num_attention_heads", ".attention.head_count"])?,
        inner: settings.required(&["intermediate_size", ".feed_forward_length"])?,
        vocabulary: settings.vocabulary()?,
        max_tokens: positions.saturating_sub(reserved_positions),
        epsilon: settings.float(&["layer_norm_eps", ".attention.layer_norm_epsilon"])?.unwrap_or(1e-12)
            as f32,
        activation: settings.activation(&["hidden_act"])?,
    })
}
