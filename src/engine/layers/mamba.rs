//! A layer with Mamba 2's state space in place of attention (arXiv:2405.21060), by MLX's own operations.

use mlx_rs::{Array, Dtype, fast, ops};

use super::Loader;
use super::conv::CausalConv;
use super::matrix::parts;
use super::norm::Norm;
use super::projection::{Projection, activate};
use super::scan::{Tokens, scan};
use super::step::Step;
use crate::engine::cache::KvCache;
use crate::engine::config::ModelConfig;
use crate::engine::config::recurrent::Mamba as Sizes;
use crate::engine::config::style::Activation;
use crate::error::{Error, Result};

/// Norm and projection, convolution, scan, gated norm, output, residual.
#[derive(Debug)]
pub struct Mamba {
    sizes: Sizes,
    /// Norm, then gates, what the convolution runs over, and time steps side by side.
    input: Projection,
    conv: CausalConv,
    /// Logarithm of each head's decay in a unit of time, `-exp(A_log)`.
    decay: Array,
    time_bias: Array,
    /// Of the values themselves in the result, `[H, 1]`.
    skip: Array,
    norm: Array,
    norm_eps: f32,
    output: Projection,
    /// Of what is added to the residual.
    factor: f32,
}

impl Mamba {
    /// `module` is the name that the modules begin with.
    pub fn load(
        loader: &Loader,
        config: &ModelConfig,
        sizes: &Sizes,
        module: &str,
        norm: Option<Norm>,
    ) -> Result<Self> {
        let at = |name: &str| format!("{module}.{name}");
        let (hidden, inner, heads) = (config.hidden_size, sizes.values(), sizes.heads);
        let rows = inner + sizes.channels() + heads;
        Ok(Self {
            sizes: *sizes,
            input: Projection::load(loader, &[at("in_proj")], &[rows], hidden, norm, sizes.bias)?,
            conv: CausalConv::load(loader, &at("conv1d"), sizes.channels(), sizes.width, sizes.conv_bias)?,
            decay: loader.decay(&at("A_log"), heads)?,
            time_bias: loader.floats(&at("dt_bias"), heads)?,
            skip: loader.floats(&at("D"), heads)?.reshape(&[-1, 1])?,
            norm: loader.floats(&at("norm.weight"), inner)?,
            norm_eps: config.norm_eps,
            output: Projection::load(loader, &[at("out_proj")], &[hidden], inner, None, sizes.bias)?,
            factor: config.residual_scale,
        })
    }

    /// `x [L, hidden] → [L, hidden]`, residual included. The tokens of each sequence follow those in its cache.
    pub fn forward(&self, x: &Array, step: &mut Step, layer: usize) -> Result<Array> {
        let (length, inner) = (x.dim(0), self.sizes.values() as i32);
        let projected = self.input.forward(x)?.as_dtype(Dtype::Float32)?;
        let [gates, mixed, times] = parts(&projected, &[inner, inner + self.sizes.channels() as i32])?;
        let found = step.each([&mixed, &times], |rows, cache| self.remember(rows, cache, layer))?;

        let gated = ops::multiply(&found, activate(&gates, Activation::Silu)?)?;
        let by_group = gated.reshape(&[length, self.sizes.groups as i32, -1])?;
        let normed = fast::rms_norm(&by_group, None, self.norm_eps)?.reshape(&[length, inner])?;
        let normed = ops::multiply(&normed, &self.norm)?.as_dtype(x.dtype())?;
        self.output.forward_onto(&normed, x, self.factor)
    }

    /// Convolution and scan over one sequence's `mixed [L, channels]` and `times [L, H]`: `[L, inner]`.
    fn remember(&self, [mixed, times]: [&Array; 2], cache: &mut KvCache, layer: usize) -> Result<Array> {
        let Sizes { heads, head_dim, groups, state_dim, .. } = self.sizes;
        let [conv, state] = cache.state(layer)? else {
            return Err(Error::internal("a state space without its two states"));
        };
        let (inner, shared) = (self.sizes.values() as i32, (groups * state_dim) as i32);
        let length = mixed.dim(0);
        let (mixed, conv) = self.conv.forward(mixed, conv)?;
        let [values, keys, queries] = parts(&activate(&mixed, Activation::Silu)?, &[inner, inner + shared])?;
        let for_heads = |x: &Array| -> Result<Array> {
            let x = x.reshape(&[length, groups as i32, state_dim as i32])?;
            let each = heads / groups;
            Ok(if each > 1 { ops::repeat_axis::<f32>(x, each as i32, 1)? } else { x })
        };
        let times = self.time_steps(times)?;
        let values = values.reshape(&[length, heads as i32, head_dim as i32])?;
        let tokens = Tokens {
            queries: for_heads(&queries)?,
            keys: for_heads(&keys)?,
            values: ops::multiply(&values, times.expand_dims(-1)?)?,
            decays: ops::multiply(&times, &self.decay)?,
        };
        let (found, state) = scan(&tokens, state)?;
        cache.set_state(layer, vec![conv, state]);

        Ok(ops::add(&found, ops::multiply(&values, &self.skip)?)?.reshape(&[length, inner])?)
    }

    /// `[L, H]`: how long each token lasts.
    fn time_steps(&self, times: &Array) -> Result<Array> {
        let mut times = ops::logaddexp(ops::add(times, &self.time_bias)?, Array::from_f32(0.0))?;
        let [least, most] = self.sizes.time_limit;
        if least > 0.0 {
            times = ops::maximum(&times, Array::from_f32(least))?;
        }
        if most.is_finite() {
            times = ops::minimum(&times, Array::from_f32(most))?;
        }
        Ok(times)
    }

    /// The arrays to evaluate at load.
    pub fn arrays(&self) -> Vec<&Array> {
        let mut arrays = self.input.arrays();
        arrays.extend(self.conv.arrays());
        arrays.extend([&self.decay, &self.time_bias, &self.skip, &self.norm]);
        arrays.extend(self.output.arrays());
        arrays
    }
}
