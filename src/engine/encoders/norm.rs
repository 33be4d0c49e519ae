//! Layer normalisation.

use mlx_rs::{Array, fast};

#[cfg(target_os = "linux")]
use crate::engine::kernels;
use crate::engine::layers::Backend;
use crate::error::Result;

/// `(x - mean) / sqrt(variance + epsilon) * weight + bias`, row by row.
#[derive(Debug)]
pub struct LayerNorm {
    pub weight: Array,
    pub bias: Option<Array>,
    pub epsilon: f32,
    pub backend: Backend,
}

impl LayerNorm {
    pub fn forward(&self, x: &Array) -> Result<Array> {
        match self.backend {
            #[cfg(target_os = "linux")]
            Backend::Kernels => Ok(kernels::layer_norm(x, &self.weight, self.bias.as_ref(), self.epsilon)?),
            _ => Ok(fast::layer_norm(x, Some(&self.weight), self.bias.as_ref(), self.epsilon)?),
        }
    }

    /// The arrays to evaluate at load.
    pub fn arrays(&self) -> Vec<&Array> {
        std::iter::once(&self.weight).chain(&self.bias).collect()
    }
}
