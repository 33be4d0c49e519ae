//! A layer with a gated short convolution in place of attention (LFM2), by MLX's own operations.

use mlx_rs::{Array, Dtype, ops};

use super::Loader;
use super::conv::CausalConv;
use super::norm::Norm;
use super::projection::Projection;
use super::step::Step;
use crate::engine::config::ModelConfig;
use crate::engine::config::recurrent::ShortConv as Sizes;
use crate::engine::models::names;
use crate::error::{Error, Result};

/// `x + out(c * conv(b * z))`, where `b`, `c` and `z` are projections of the normalised `x`.
#[derive(Debug)]
pub struct ShortConv {
    /// Norm, then `b`, `c` and `z` side by side.
    input: Projection,
    conv: CausalConv,
    output: Projection,
    /// Of what is added to the residual.
    factor: f32,
}

impl ShortConv {
    /// `layer` is the name that the modules begin with.
    pub fn load(
        loader: &Loader,
        config: &ModelConfig,
        sizes: &Sizes,
        layer: &str,
        norm: Option<Norm>,
    ) -> Result<Self> {
        let (names, hidden, bias) = (&names::SHORT_CONV, config.hidden_size, sizes.bias);
        let at = |name: &str| format!("{layer}.{name}");
        let load = |name: &str, rows: usize, norm: Option<Norm>| {
            Projection::load(loader, &[at(name)], &[rows], hidden, norm, bias)
        };
        Ok(Self {
            input: load(names.input, 3 * hidden, norm)?,
            conv: CausalConv::load(loader, &at(names.conv), hidden, sizes.width, bias)?,
            output: load(names.output, hidden, None)?,
            factor: config.residual_scale,
        })
    }

    /// `x [L, hidden] → [L, hidden]`, residual included. The tokens of each sequence follow those in its cache.
    pub fn forward(&self, x: &Array, step: &mut Step, layer: usize) -> Result<Array> {
        let projected = self.input.forward(x)?.as_dtype(Dtype::Float32)?;
        let parts = ops::split_equal(&projected, 3, -1)?;
        let [before, after, inner] = parts.as_slice() else {
            return Err(Error::internal("columns that do not split in three"));
        };
        let mixed = step.each([&ops::multiply(before, inner)?], |[rows], cache| {
            let [past] = cache.state(layer)? else {
                return Err(Error::internal("a short convolution without its state"));
            };
            let (mixed, past) = self.conv.forward(rows, past)?;
            cache.set_state(layer, vec![past]);
            Ok(mixed)
        })?;
        let gated = ops::multiply(after, &mixed)?;
        self.output.forward_onto(&gated.as_dtype(x.dtype())?, x, self.factor)
    }

    /// The arrays to evaluate at load.
    pub fn arrays(&self) -> Vec<&Array> {
        let mut arrays = self.input.arrays();
        arrays.extend(self.conv.arrays());
        arrays.extend(self.output.arrays());
        arrays
    }
}
