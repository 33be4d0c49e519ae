//! The feed-forward block, gated (Shazeer, 2020) or not.

use mlx_rs::Array;

use super::norm::Norm;
use super::projection::Projection;
use crate::engine::config::style::Activation;
use crate::engine::ffi::Operand;
use crate::error::Result;

/// `residual + factor * [norm](down(act(gate(norm(x))) * up(norm(x))))`.
#[derive(Debug)]
pub struct Mlp {
    /// Norm, then gate and up side by side, or only up.
    pub gate_up: Projection,
    pub gated: bool,
    pub activation: Activation,
    pub down: Projection,
    pub post_norm: Option<Norm>,
    pub factor: f32,
}

impl Mlp {
    fn inner<X: Operand>(&self, x: &X) -> Result<X> {
        if self.gated {
            self.gate_up.forward_gated(x, self.activation)
        } else {
            self.gate_up.forward_activated(x, self.activation)
        }
    }

    /// `x [L, hidden] → [L, hidden]`, alone.
    pub fn apply<X: Operand>(&self, x: &X) -> Result<X> {
        self.down.forward(&self.inner(x)?)
    }

    /// `x [L, hidden]`, added to `residual [L, hidden]`.
    pub fn forward_onto<X: Operand>(&self, x: &X, residual: &X) -> Result<X> {
        let inner = self.inner(x)?;
        match &self.post_norm {
            Some(norm) => norm.forward_onto(&self.down.forward(&inner)?, residual, self.factor),
            None => self.down.forward_onto(&inner, residual, self.factor),
        }
    }

    /// The arrays to evaluate at load.
    pub fn arrays(&self) -> Vec<&Array> {
        let mut arrays = self.gate_up.arrays();
        arrays.extend(self.down.arrays());
        arrays.extend(self.post_norm.iter().flat_map(Norm::arrays));
        arrays
    }
}
