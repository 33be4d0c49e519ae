//! A layer with the gated delta rule in place of attention (Qwen 3 Next), by MLX's own operations.

use mlx_rs::{Array, Dtype, fast, ops};

use super::Loader;
use super::adapted::Linear;
use super::conv::CausalConv;
use super::delta_rule::{Tokens, delta_rule};
use super::matrix::parts;
use super::norm::Norm;
use super::projection::{Projection, activate};
use super::step::Step;
use crate::engine::cache::KvCache;
use crate::engine::config::ModelConfig;
use crate::engine::config::recurrent::Delta;
use crate::engine::config::style::Activation;
use crate::engine::models::names;
use crate::error::{Error, Result};

/// Keeps queries and keys of nothing finite, as transformers has it.
const UNIT_EPSILON: f32 = 1e-6;

/// Norm and projections, convolution, delta rule, gated norm, output, residual.
#[derive(Debug)]
pub struct DeltaNet {
    sizes: Delta,
    /// Norm, then queries, keys, values and gates side by side.
    input: Projection,
    /// Norm, then rates and decays.
    pace: Projection,
    conv: CausalConv,
    /// Logarithm of the slowest decay of each head and time, `-exp(A_log)`.
    decay: Array,
    decay_bias: Array,
    norm: Array,
    norm_eps: f32,
    output: Projection,
    /// Of what is added to the residual.
    factor: f32,
}

impl DeltaNet {
    /// `layer` is the name that the modules begin with.
    pub fn load(
        loader: &Loader,
        config: &ModelConfig,
        sizes: &Delta,
        layer: &str,
        norm: Option<Norm>,
    ) -> Result<Self> {
        let names = &names::DELTA;
        let at = |name: &str| format!("{layer}.{name}");
        let hidden = config.hidden_size;
        let output = linear(loader, sizes, &at(names.output), [hidden, sizes.values()])?;
        let [input, pace] = inputs(loader, sizes, layer, hidden)?;
        Ok(Self {
            sizes: *sizes,
            input: Projection::of(loader, input, norm.clone(), None)?,
            pace: Projection::of(loader, pace, norm, None)?,
            conv: CausalConv::load(loader, &at(names.conv), sizes.channels(), sizes.width, false)?,
            decay: loader.decay(&at(names.decay), sizes.value_heads)?,
            decay_bias: loader.floats(&at(names.decay_bias), sizes.value_heads)?,
            norm: loader.floats(&at(&format!("{}.weight", names.norm)), sizes.value_dim)?,
            norm_eps: config.norm_eps,
            output: Projection::of(loader, vec![output], None, None)?,
            factor: config.residual_scale,
        })
    }

    /// `x [L, hidden] → [L, hidden]`, residual included. The tokens of each sequence follow those in its cache.
    pub fn forward(&self, x: &Array, step: &mut Step, layer: usize) -> Result<Array> {
        let (channels, heads) = (self.sizes.channels() as i32, self.sizes.value_heads as i32);
        let [mixed, gates] = parts(&self.input.forward(x)?.as_dtype(Dtype::Float32)?, &[channels])?;
        let [rates, decays] = parts(&self.pace.forward(x)?.as_dtype(Dtype::Float32)?, &[heads])?;
        let found = step.each([&mixed, &rates, &decays], |rows, cache| self.remember(rows, cache, layer))?;

        let normed = fast::rms_norm(&found, Some(&self.norm), self.norm_eps)?.reshape(&[x.dim(0), -1])?;
        let gated = ops::multiply(&normed, activate(&gates, Activation::Silu)?)?;
        self.output.forward_onto(&gated.as_dtype(x.dtype())?, x, self.factor)
    }

    /// Convolution and delta rule over one sequence's `mixed [L, channels]`, `rates` and `decays [L, H]`:
    /// `[L, H, D]`.
    fn remember(
        &self,
        [mixed, rates, decays]: [&Array; 3],
        cache: &mut KvCache,
        layer: usize,
    ) -> Result<Array> {
        let Delta { key_heads, value_heads, key_dim, tiled, .. } = self.sizes;
        let [conv, state] = cache.state(layer)? else {
            return Err(Error::internal("a delta rule without its two states"));
        };
        let (length, keys, heads) = (mixed.dim(0), self.sizes.keys() as i32, value_heads as i32);
        let (mixed, conv) = self.conv.forward(mixed, conv)?;
        let [queries, keys, values] = parts(&activate(&mixed, Activation::Silu)?, &[keys, 2 * keys])?;
        let unit = |x: &Array| -> Result<Array> {
            let x = x.reshape(&[length, key_heads as i32, key_dim as i32])?;
            let norm = ops::add(x.square()?.sum_axis(-1, true)?, Array::from_f32(UNIT_EPSILON))?.rsqrt()?;
            let x = ops::multiply(&x, &norm)?;
            let shared = value_heads / key_heads;
            Ok(match (shared, tiled) {
                (1, _) => x,
                (_, false) => ops::repeat_axis::<f32>(x, shared as i32, 1)?,
                (_, true) => ops::concatenate(&vec![x; shared], 1)?,
            })
        };
        let scale = Array::from_f32((key_dim as f32).sqrt().recip());
        let softplus = ops::logaddexp(ops::add(decays, &self.decay_bias)?, Array::from_f32(0.0))?;
        let tokens = Tokens {
            queries: ops::multiply(unit(&queries)?, &scale)?,
            keys: unit(&keys)?,
            values: values.reshape(&[length, heads, -1])?,
            decays: ops::multiply(&softplus, &self.decay)?,
            rates: ops::sigmoid(rates)?,
        };
        let (found, state) = delta_rule(&tokens, state)?;
        cache.set_state(layer, vec![conv, state]);
        Ok(found)
    }

    /// The arrays to evaluate at load.
    pub fn arrays(&self) -> Vec<&Array> {
        let mut arrays = self.input.arrays();
        arrays.extend(self.pace.arrays());
        arrays.extend(self.conv.arrays());
        arrays.extend([&self.decay, &self.decay_bias, &self.norm]);
        arrays.extend(self.output.arrays());
        arrays
    }
}

/// Queries, keys and values, and gates; rates, and decays.
fn inputs<'a>(
    loader: &Loader<'a>,
    sizes: &Delta,
    layer: &str,
    hidden: usize,
) -> Result<[Vec<Linear<'a>>; 2]> {
    let names = &names::DELTA;
    let at = |name: &'static str| format!("{layer}.{name}");
    let heads = sizes.value_heads;
    let [fused_input, fused_pace] = names.fused.map(at);
    let [mixed, gates, rates, decays] = names.split.map(at);
    let matrix = |name: &str, rows: usize| linear(loader, sizes, name, [rows, hidden]);
    // The rows of a key head: its query and key, the values and the gates that belong to it.
    let shared = heads / sizes.key_heads;
    let (key, value) = (sizes.key_dim, shared * sizes.value_dim);
    let of_each = |start: usize, count: usize, whole: usize| {
        (0..sizes.key_heads).map(move |head| head * whole + start..head * whole + start + count)
    };
    let input = if loader.has(&fused_input) {
        let all = matrix(&fused_input, sizes.channels() + sizes.values())?;
        let whole = 2 * (key + value);
        let queries = of_each(0, key, whole);
        let keys = of_each(key, key, whole);
        let values = of_each(2 * key, value, whole);
        let mixed = all.select(queries.chain(keys).chain(values))?;
        vec![mixed, all.select(of_each(2 * key + value, value, whole))?]
    } else {
        vec![matrix(&mixed, sizes.channels())?, matrix(&gates, sizes.values())?]
    };
    let pace = if loader.has(&fused_pace) {
        let all = matrix(&fused_pace, 2 * heads)?;
        let rates = of_each(0, shared, 2 * shared);
        let decays = of_each(shared, shared, 2 * shared);
        vec![all.select(rates)?, all.select(decays)?]
    } else {
        vec![matrix(&rates, heads)?, matrix(&decays, heads)?]
    };
    Ok([input, pace])
}

/// A matrix with its adapter, which fits only where heads lie in the order that they were trained in.
fn linear<'a>(
    loader: &Loader<'a>,
    sizes: &Delta,
    name: &str,
    [rows, columns]: [usize; 2],
) -> Result<Linear<'a>> {
    let load = if sizes.tiled { Linear::plain } else { Linear::load };
    load(loader, name, rows, columns)
}
