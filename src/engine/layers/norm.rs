//! Norms, alone and as part of other operations.

use mlx_rs::{Array, fast, ops};

use super::matrix::parts;
use super::{Backend, Loader};
use crate::engine::config::ModelConfig;
use crate::engine::config::style::{NormKind, QkNorm};
use crate::engine::ffi::Operand;
#[cfg(target_os = "linux")]
use crate::engine::kernels;
use crate::error::Result;

/// One norm with its weights.
#[derive(Debug, Clone)]
pub struct Norm {
    /// Whether the mean is taken away first.
    centred: bool,
    weight: Array,
    bias: Option<Array>,
    eps: f32,
    backend: Backend,
}

impl Norm {
    /// The norm of this module, of vectors of `size` elements.
    pub fn load(loader: &Loader, config: &ModelConfig, module: &str, size: usize) -> Result<Self> {
        let kind = config.style.norm;
        let plus = if kind == NormKind::RmsPlusOne { 1.0 } else { 0.0 };
        let bias = kind == NormKind::Layer { bias: true };
        Ok(Self {
            centred: matches!(kind, NormKind::Layer { .. }),
            weight: loader.shifted_vector(&format!("{module}.weight"), size, plus)?,
            bias: bias.then(|| loader.vector(&format!("{module}.bias"), size)).transpose()?,
            eps: config.norm_eps,
            backend: loader.backend,
        })
    }

    /// The norms of as many heads, whose weights are one behind the other.
    fn of_heads(
        loader: &Loader,
        config: &ModelConfig,
        module: &str,
        heads: usize,
        head_dim: usize,
    ) -> Result<Self> {
        let weight = match config.architecture.names.head_norms.filter(|_| !loader.has(module)) {
            None => loader.vector(&format!("{module}.weight"), heads * head_dim)?,
            Some(norms) => {
                let weight = |head| loader.vector(&format!("{module}.{norms}.{head}.weight"), head_dim);
                ops::concatenate(&(0..heads).map(weight).collect::<Result<Vec<_>>>()?, 0)?
            }
        };
        let centred = matches!(config.style.norm, NormKind::Layer { .. });
        Ok(Self { centred, weight, bias: None, eps: config.norm_eps, backend: loader.backend })
    }

    /// A norm without weights, of vectors of `size` elements.
    pub fn plain(loader: &Loader, config: &ModelConfig, size: usize) -> Result<Self> {
        Ok(Self {
            centred: matches!(config.style.norm, NormKind::Layer { .. }),
            weight: ops::ones_dtype(&[size as i32], loader.dtype)?,
            bias: None,
            eps: config.norm_eps,
            backend: loader.backend,
        })
    }

    /// With another epsilon than the model's.
    #[must_use]
    pub fn with_epsilon(self, eps: f32) -> Self {
        Self { eps, ..self }
    }

    /// One that takes no mean away, with these weights.
    pub fn rms(weight: Array, eps: f32, backend: Backend) -> Self {
        Self { centred: false, weight, bias: None, eps, backend }
    }

    /// One that takes the mean away, of weights that are there.
    pub fn layer(weight: Array, bias: Option<Array>, eps: f32, backend: Backend) -> Self {
        Self { centred: true, weight, bias, eps, backend }
    }

    /// `x [L, size]`, normalised.
    pub fn apply<X: Operand>(&self, x: &X) -> Result<X> {
        match self.backend {
            #[cfg(target_os = "linux")]
            Backend::Kernels => Ok(kernels::norm_onto(x, &self.in_kernels(), None)?),
            _ => Ok(X::from(self.forward(&x.array()?)?)),
        }
    }

    /// `x [.., size]`, normalised by MLX.
    pub fn forward(&self, x: &Array) -> Result<Array> {
        Ok(if self.centred {
            fast::layer_norm(x, Some(&self.weight), self.bias.as_ref(), self.eps)?
        } else {
            fast::rms_norm(x, Some(&self.weight), self.eps)?
        })
    }

    /// `residual + factor * norm(x)`, all `[L, size]`.
    pub fn forward_onto<X: Operand>(&self, x: &X, residual: &X, factor: f32) -> Result<X> {
        match self.backend {
            #[cfg(target_os = "linux")]
            Backend::Kernels => Ok(kernels::norm_onto(x, &self.in_kernels(), Some((residual, factor)))?),
            _ => Ok(X::from(onto(&residual.array()?, self.forward(&x.array()?)?, factor)?)),
        }
    }

    /// The norm as the kernels take it.
    #[cfg(target_os = "linux")]
    pub fn in_kernels(&self) -> kernels::Norm<'_> {
        kernels::Norm {
            centred: self.centred,
            weight: &self.weight,
            bias: self.bias.as_ref(),
            epsilon: self.eps,
        }
    }

    /// The arrays to evaluate at load.
    pub fn arrays(&self) -> impl Iterator<Item = &Array> {
        [&self.weight].into_iter().chain(&self.bias)
    }
}

/// `residual + factor * x`, by MLX.
pub fn onto(residual: &Array, x: Array, factor: f32) -> Result<Array> {
    Ok(ops::add(residual, scaled(x, factor)?)?)
}

/// `factor * x`, by MLX.
pub fn scaled(x: Array, factor: f32) -> Result<Array> {
    if factor.to_bits() == 1.0_f32.to_bits() {
        return Ok(x);
    }
    Ok(ops::multiply(&x, Array::from_f32(factor).as_dtype(x.dtype())?)?)
}

/// `cap * tanh(x / cap)`, by MLX.
pub fn capped(x: &Array, cap: f32) -> Result<Array> {
    let number = Array::from_f32(cap).as_dtype(x.dtype())?;
    Ok(ops::multiply(ops::tanh(ops::divide(x, &number)?)?, &number)?)
}

/// The norms of queries, of keys where a layer has its own, and maybe of values.
#[derive(Debug, Clone)]
pub struct HeadNorms {
    queries: Norm,
    keys: Option<Norm>,
    values: Option<Norm>,
    /// Heads of queries and of keys.
    heads: [usize; 2],
    head_dim: usize,
    style: QkNorm,
    backend: Backend,
}

impl HeadNorms {
    /// Of a layer; `modules` are those of queries and of keys.
    pub fn load(
        loader: &Loader,
        config: &ModelConfig,
        layer: usize,
        style: QkNorm,
        modules: [&str; 2],
    ) -> Result<Self> {
        let keys = config.key_heads(layer);
        let heads = [config.heads, keys.count];
        let norm = |index: usize| match style {
            QkNorm::Heads => Norm::load(loader, config, modules[index], keys.dim),
            QkNorm::EachHead => Norm::of_heads(loader, config, modules[index], heads[index], keys.dim),
            QkNorm::Whole => Norm::load(loader, config, modules[index], heads[index] * keys.dim),
            // A rotation changes no length: only the weights have to wait for it, see [`rotated_weights`].
            QkNorm::Rotated => Norm::plain(loader, config, keys.dim),
        };
        let has_keys = config.plan.get(layer).is_none_or(|plan| plan.keys_of.is_none());
        let has_values = has_keys && config.style.normed_values;
        Ok(Self {
            queries: norm(0)?,
            keys: has_keys.then(|| norm(1)).transpose()?,
            values: has_values.then(|| Norm::plain(loader, config, keys.dim)).transpose()?,
            heads,
            head_dim: keys.dim,
            style,
            backend: loader.backend,
        })
    }

    /// `qkv [L, (heads + 2 kv_heads) * head_dim]`, or queries alone, normalised.
    pub fn forward<X: Operand>(&self, qkv: &X) -> Result<X> {
        let Some(keys) = &self.keys else { return Ok(X::from(self.by_head(&self.queries, &qkv.array()?)?)) };
        let normed = self.queries_and_keys(qkv, keys)?;
        let Some(values) = &self.values else { return Ok(normed) };
        let end = self.heads.iter().sum::<usize>() * self.head_dim;
        let [before, own] = parts(&normed.array()?, &[end as i32])?;
        Ok(X::from(ops::concatenate(&[before, self.by_head(values, &own)?], -1)?))
    }

    /// Each head of `x [L, heads * head_dim]`, all with the same weights.
    fn by_head(&self, norm: &Norm, x: &Array) -> Result<Array> {
        Ok(norm.apply(&x.reshape(&[-1, self.head_dim as i32])?)?.reshape(&[x.dim(0), -1])?)
    }

    fn queries_and_keys<X: Operand>(&self, qkv: &X, keys: &Norm) -> Result<X> {
        match self.backend {
            #[cfg(target_os = "linux")]
            Backend::Kernels => {
                let widths = self.heads.map(|heads| heads * self.head_dim);
                let units = if self.style == QkNorm::Whole { widths } else { [self.head_dim; 2] };
                let (queries, keys) = (self.queries.in_kernels(), keys.in_kernels());
                Ok(kernels::norm_heads(qkv, &kernels::HeadNorms { queries, keys, widths, units })?)
            }
            _ => Ok(X::from(self.queries_and_keys_stock(&qkv.array()?, keys)?)),
        }
    }

    fn queries_and_keys_stock(&self, qkv: &Array, own: &Norm) -> Result<Array> {
        let [queries, keys] = self.heads.map(|heads| (heads * self.head_dim) as i32);
        let parts = ops::split_at_indices(qkv, &[queries, queries + keys], -1)?;
        let mut normed = Vec::with_capacity(parts.len());
        for (index, part) in parts.into_iter().enumerate() {
            let norm = match index {
                0 => &self.queries,
                1 => own,
                _ => {
                    normed.push(part);
                    continue;
                }
            };
            if self.style == QkNorm::Whole {
                normed.push(norm.forward(&part)?);
                continue;
            }
            let (length, width) = (part.dim(0), part.dim(1));
            let heads = part.reshape(&[length, -1, self.head_dim as i32])?;
            let heads = if self.style == QkNorm::EachHead {
                // Weights of its own for each head: without any in the norm, then multiplied.
                let plain = if norm.centred {
                    fast::layer_norm(&heads, None, None, norm.eps)?
                } else {
                    fast::rms_norm(&heads, None, norm.eps)?
                };
                ops::multiply(&plain, norm.weight.reshape(&[-1, self.head_dim as i32])?)?
            } else {
                norm.forward(&heads)?
            };
            normed.push(heads.reshape(&[length, width])?);
        }
        Ok(ops::concatenate(&normed, -1)?)
    }

    /// The arrays to evaluate at load.
    pub fn arrays(&self) -> impl Iterator<Item = &Array> {
        [Some(&self.queries), self.keys.as_ref(), self.values.as_ref()]
            .into_iter()
            .flatten()
            .flat_map(Norm::arrays)
    }
}

/// The weights of norms that follow the rotation, `[head_dim]`, of queries times those of keys: a score
/// is a sum of products, so that it is the same to multiply only the queries by both.
pub fn rotated_weights(loader: &Loader, config: &ModelConfig, modules: [&str; 2]) -> Result<Array> {
    let [queries, keys] = modules.map(|module| Norm::load(loader, config, module, config.head_dim));
    Ok(ops::multiply(&queries?.weight, &keys?.weight)?)
}
