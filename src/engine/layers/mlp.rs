//! The gated feed-forward block (Shazeer, 2020).

use mlx_rs::Array;

use super::projection::Projection;
use crate::error::Result;

/// `x + down(silu(gate(norm(x))) * up(norm(x)))`.
#[derive(Debug)]
pub struct Mlp {
    /// Norm, then gate and up side by side.
    pub gate_up: Projection,
    pub down: Projection,
}

impl Mlp {
    /// `x [L, hidden] → [L, hidden]`, residual included.
    pub fn forward(&self, x: &Array) -> Result<Array> {
        self.down.forward_onto(&self.gate_up.forward_gated(x)?, x)
    }

    /// The arrays to evaluate at load.
    pub fn arrays(&self) -> Vec<&Array> {
        let mut arrays = self.gate_up.arrays();
        arrays.extend(self.down.arrays());
        arrays
    }
}
