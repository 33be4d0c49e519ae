//! A causal convolution over time, each channel by itself: the short memory of recurrent layers.

use mlx_rs::ops::indexing::IndexOp;
use mlx_rs::{Array, ops};

use super::Loader;
use crate::error::Result;

/// `y[t] = Σ_i tap[i] * x[t - width + 1 + i] [+ bias]`, in float32.
#[derive(Debug)]
pub struct CausalConv {
    /// One for each token looked at, the present one last, `[channels]` each.
    taps: Vec<Array>,
    bias: Option<Array>,
}

impl CausalConv {
    /// The convolution of this module, which may have its taps before or after what is one.
    pub fn load(loader: &Loader, module: &str, channels: usize, width: usize, bias: bool) -> Result<Self> {
        let weight = loader.floats(&format!("{module}.weight"), channels * width)?;
        let weight = weight.reshape(&[channels as i32, width as i32])?;
        let tap = |index: usize| Ok(weight.index((.., index as i32)).contiguous()?);
        Ok(Self {
            taps: (0..width).map(tap).collect::<Result<_>>()?,
            bias: bias.then(|| loader.floats(&format!("{module}.bias"), channels)).transpose()?,
        })
    }

    /// `x [L, channels]` after `past [width - 1, channels]`: the result `[L, channels]`, and what is past
    /// after it.
    pub fn forward(&self, x: &Array, past: &Array) -> Result<(Array, Array)> {
        let length = x.dim(0);
        let seen = ops::concatenate(&[past, x], 0)?;
        let mut sum: Option<Array> = self.bias.clone();
        for (start, tap) in (0..).zip(&self.taps) {
            let product = ops::multiply(seen.index((start..start + length, ..)), tap)?;
            sum = Some(match sum {
                Some(sum) => ops::add(&sum, &product)?,
                None => product,
            });
        }
        let past = seen.index((length.., ..));
        Ok((sum.unwrap_or_else(|| x.clone()), past))
    }

    /// The arrays to evaluate at load.
    pub fn arrays(&self) -> impl Iterator<Item = &Array> {
        self.taps.iter().chain(&self.bias)
    }
}
