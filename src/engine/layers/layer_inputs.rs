//! What each layer gets of a token beside the states (the per-layer embeddings of Gemma 3n and 4).

use mlx_rs::{Array, Dtype, ops};

use super::Loader;
use super::embedding::Embedding;
use super::norm::{Norm, scaled};
use super::projection::Projection;
use crate::engine::config::style::Activation;
use crate::engine::config::{LayerInputs as Sizes, ModelConfig};
use crate::engine::models::names::LAYER_INPUTS;
use crate::error::Result;

/// `(norm(P e / √hidden) + √size · row) / √2` of a token with the embedding `e`, for all layers at once.
#[derive(Debug)]
pub struct LayerInputs {
    sizes: Sizes,
    hidden: usize,
    table: Embedding,
    projection: Projection,
    norm: Norm,
}

impl LayerInputs {
    pub fn load(loader: &Loader, config: &ModelConfig, sizes: &Sizes) -> Result<Self> {
        let (hidden, all) = (config.hidden_size, config.layers * sizes.size);
        let name = LAYER_INPUTS.projection.to_owned();
        Ok(Self {
            sizes: *sizes,
            hidden,
            table: Embedding::load(loader, LAYER_INPUTS.table, sizes.vocabulary, all)?,
            projection: Projection::load(loader, &[name], &[all], hidden, None, false)?,
            norm: Norm::load(loader, config, LAYER_INPUTS.norm, sizes.size)?,
        })
    }

    /// `tokens [L] int32`, embedded as `x [L, hidden]` → `[L, layers, size]`.
    pub fn forward(&self, tokens: &Array, x: &Array, dtype: Dtype) -> Result<Array> {
        let (length, size) = (x.dim(0), self.sizes.size as i32);
        let known: Array = self.table.forward(tokens, (size as f32).sqrt(), dtype)?;
        let seen = self.projection.forward_scaled(x, (self.hidden as f32).sqrt().recip())?;
        let seen = self.norm.apply(&seen.reshape(&[-1, size])?)?;
        let both = ops::add(seen.reshape(&[length, -1, size])?, known.reshape(&[length, -1, size])?)?;
        scaled(both, std::f32::consts::FRAC_1_SQRT_2)
    }

    /// The arrays to evaluate at load.
    pub fn arrays(&self) -> Vec<&Array> {
        let mut arrays = self.table.arrays();
        arrays.extend(self.projection.arrays());
        arrays.extend(self.norm.arrays());
        arrays
    }
}

/// `x + norm(back(act(gate(x)) * input))`: how one layer takes its input in.
#[derive(Debug)]
pub struct LayerInput {
    gate: Projection,
    activation: Activation,
    back: Projection,
    norm: Norm,
}

impl LayerInput {
    /// `layer` is the name that the modules begin with.
    pub fn load(loader: &Loader, config: &ModelConfig, sizes: &Sizes, layer: &str) -> Result<Self> {
        let (hidden, size) = (config.hidden_size, sizes.size);
        let linear = |name: &str, rows: usize, columns: usize| {
            Projection::load(loader, &[format!("{layer}.{name}")], &[rows], columns, None, false)
        };
        Ok(Self {
            gate: linear(LAYER_INPUTS.gate, size, hidden)?,
            activation: config.style.activation,
            back: linear(LAYER_INPUTS.back, hidden, size)?,
            norm: Norm::load(loader, config, &format!("{layer}.{}", LAYER_INPUTS.post_norm), hidden)?,
        })
    }

    /// `x [L, hidden]` with `input [L, size]` taken in.
    pub fn forward(&self, x: &Array, input: &Array) -> Result<Array> {
        let gated = ops::multiply(self.gate.forward_activated(x, self.activation)?, input)?;
        self.norm.forward_onto(&self.back.forward(&gated)?, x, 1.0)
    }

    /// The arrays to evaluate at load.
    pub fn arrays(&self) -> Vec<&Array> {
        let mut arrays = self.gate.arrays();
        arrays.extend(self.back.arrays());
        arrays.extend(self.norm.arrays());
        arrays
    }
}
