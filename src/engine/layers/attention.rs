//! Grouped-query attention (Ainslie et al., 2023) with rotary positions over a cache.

use std::rc::Rc;

use mlx_rs::fast::{ScaledDotProductAttentionMask as Mask, scaled_dot_product_attention};
use mlx_rs::ops::indexing::{IndexOp, TryIndexMutOp};
use mlx_rs::{Array, ops};

use super::Backend;
use super::norm::{HeadNorms, Norm, capped, scaled};
use super::projection::Projection;
use super::rope::Rope;
use super::sequences::{Batch, SequenceAttention};
use crate::engine::cache::KvCache;
#[cfg(target_os = "linux")]
use crate::engine::kernels;
use crate::error::{Error, Result};

/// Sizes of one attention block.
#[derive(Debug, Clone, Copy)]
pub struct AttentionShape {
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    /// Factor of the scores, usually `1 / sqrt(head_dim)`.
    pub scale: f32,
    /// Scores become `cap * tanh(score / cap)`.
    pub soft_cap: Option<f32>,
    /// A token sees itself and the `window - 1` before it; `None`: all before it.
    pub window: Option<usize>,
}

/// One attention block: norm and projections, rotation, attention over the cache, output, residual.
#[derive(Debug)]
pub struct Attention {
    pub shape: AttentionShape,
    /// `None`: nothing is rotated.
    pub rope: Option<Rc<Rope>>,
    /// Norm, then queries, keys and values side by side.
    pub input: Projection,
    pub head_norms: Option<HeadNorms>,
    pub output: Projection,
    pub post_norm: Option<Norm>,
    /// Of what is added to the residual.
    pub factor: f32,
    pub backend: Backend,
}

impl Attention {
    /// `x [L, hidden] → [L, hidden]`, residual included. The tokens of `x` follow those in the cache,
    /// which has room for them (see [`KvCache::reserve`]).
    pub fn forward(&self, x: &Array, cache: &mut KvCache, layer: usize) -> Result<Array> {
        self.around(x, |qkv| match self.backend {
            Backend::Stock => self.attend_stock(qkv, cache, layer),
            Backend::Kernels => self.attend_fused(qkv, cache, layer),
        })
    }

    /// `x [L, hidden] → [L, hidden]`, residual included, for the sequences of a batch, each by itself.
    /// `rotation` is the table of the block's rope for the longest of them; `causal`: a token sees none
    /// that follow it. Scores must not be capped.
    pub fn forward_sequences(
        &self,
        x: &Array,
        batch: &Batch,
        rotation: Option<&Array>,
        causal: bool,
    ) -> Result<Array> {
        let AttentionShape { heads, kv_heads, head_dim, scale, soft_cap: _, window } = self.shape;
        let attention = SequenceAttention {
            heads,
            kv_heads,
            head_dim,
            scale,
            // Seen from both sides, a window lies half before and half behind a token.
            reach: window.map(|window| if causal { window - 1 } else { window / 2 }),
            causal,
            interleaved: self.rope.as_ref().is_some_and(|rope| rope.interleaved),
            bias: None,
            backend: self.backend,
        };
        self.around(x, |qkv| attention.forward(qkv, batch, rotation))
    }

    /// What stands around attention: norm, projections and the residual.
    fn around(&self, x: &Array, attend: impl FnOnce(&Array) -> Result<Array>) -> Result<Array> {
        let mut qkv = self.input.forward(x)?;
        if let Some(norms) = &self.head_norms {
            qkv = norms.forward(&qkv)?;
        }
        let attended = attend(&qkv)?;
        match &self.post_norm {
            Some(norm) => norm.forward_onto(&self.output.forward(&attended)?, x, self.factor),
            None => self.output.forward_onto(&attended, x, self.factor),
        }
    }

    /// The arrays to evaluate at load.
    pub fn arrays(&self) -> Vec<&Array> {
        let mut arrays = self.input.arrays();
        arrays.extend(self.rope.iter().flat_map(|rope| rope.arrays()));
        arrays.extend(self.head_norms.iter().flat_map(HeadNorms::arrays));
        arrays.extend(self.post_norm.iter().flat_map(Norm::arrays));
        arrays.extend(self.output.arrays());
        arrays
    }

    #[cfg(target_os = "linux")]
    fn attend_fused(&self, qkv: &Array, cache: &mut KvCache, layer: usize) -> Result<Array> {
        let AttentionShape { heads, kv_heads, head_dim, scale, soft_cap, window } = self.shape;
        let (keys, values) = cache.layer(layer)?;
        let rope = self.rope.as_ref();
        let asked = kernels::Attention {
            heads,
            kv_heads,
            head_dim,
            rotary_dims: rope.map_or(0, |rope| rope.dimensions),
            traditional: rope.is_some_and(|rope| rope.interleaved),
            rope_scale: rope.map_or(1.0, |rope| rope.magnitude),
            scale,
            soft_cap,
            offset: cache.offset(),
            window,
        };
        let frequencies = rope.map(|rope| &rope.frequencies);
        let attended = kernels::attention(qkv, keys, values, frequencies, &asked)?;
        cache.set_layer(layer, attended.keys, attended.values);
        Ok(attended.output)
    }

    #[cfg(not(target_os = "linux"))]
    fn attend_fused(&self, qkv: &Array, cache: &mut KvCache, layer: usize) -> Result<Array> {
        self.attend_stock(qkv, cache, layer)
    }

    fn attend_stock(&self, qkv: &Array, cache: &mut KvCache, layer: usize) -> Result<Array> {
        let AttentionShape { heads, kv_heads, head_dim, scale, soft_cap, window } = self.shape;
        let (length, offset) = (qkv.dim(0), cache.offset());
        let end = offset as i32 + length;
        let (q_end, k_end) = ((heads * head_dim) as i32, ((heads + kv_heads) * head_dim) as i32);

        // [L, heads * head_dim] → [1, heads, L, head_dim]
        let by_head = |part: Array, heads: usize| -> Result<Array> {
            let split = part.reshape(&[1, length, heads as i32, head_dim as i32])?;
            Ok(split.transpose_axes(&[0, 2, 1, 3])?)
        };
        let rotated = |part: Array, heads: usize| match &self.rope {
            Some(rope) => rope.forward(&by_head(part, heads)?, offset),
            None => by_head(part, heads),
        };
        let queries = rotated(qkv.index((.., ..q_end)), heads)?;
        let keys = rotated(qkv.index((.., q_end..k_end)), kv_heads)?;
        let values = by_head(qkv.index((.., k_end..)), kv_heads)?;

        let (held_keys, held_values) = cache.layer(layer)?;
        let (mut all_keys, mut all_values) = (held_keys.clone(), held_values.clone());
        all_keys.try_index_mut((.., .., offset as i32..end, ..), &keys)?;
        all_values.try_index_mut((.., .., offset as i32..end, ..), &values)?;

        // A single token needs no mask: what its window leaves out is cut off.
        let begin = match window {
            Some(window) if length == 1 => (end - window as i32).max(0),
            _ => 0,
        };
        let (seen_keys, seen_values) =
            (all_keys.index((.., .., begin..end, ..)), all_values.index((.., .., begin..end, ..)));
        let attended = match (window, soft_cap) {
            (_, Some(cap)) => {
                let mask = seen_mask(length as usize, offset, window, begin as usize)?;
                attend_capped(&queries, [&seen_keys, &seen_values], scale, cap, &mask)?
            }
            (Some(window), _) if length > 1 && end as usize > window => {
                let mask = seen_mask(length as usize, offset, Some(window), 0)?;
                scaled_dot_product_attention(
                    &queries,
                    &seen_keys,
                    &seen_values,
                    scale,
                    Mask::Array(&mask),
                    None,
                )?
            }
            _ if length > 1 => {
                scaled_dot_product_attention(&queries, &seen_keys, &seen_values, scale, Mask::Causal, None)?
            }
            _ => scaled_dot_product_attention(&queries, &seen_keys, &seen_values, scale, None::<Mask>, None)?,
        };
        cache.set_layer(layer, all_keys, all_values);
        Ok(attended.transpose_axes(&[0, 2, 1, 3])?.reshape(&[length, q_end])?)
    }
}

/// `[length, offset + length - begin]`, true where the token of the row sees the token of the column,
/// the first of which stands at `begin`.
fn seen_mask(length: usize, offset: usize, window: Option<usize>, begin: usize) -> Result<Array> {
    let end = offset + length;
    let window = window.unwrap_or(end);
    let seen: Vec<bool> = (offset..end)
        .flat_map(|row| (begin..end).map(move |column| column <= row && column + window > row))
        .collect();
    let columns = end - begin;
    if seen.len() != length * columns {
        return Err(Error::internal("a mask of the wrong size"));
    }
    Ok(ops::reshape(Array::from_slice(&seen, &[seen.len() as i32]), &[length as i32, columns as i32])?)
}

/// Attention whose scores are capped, which MLX's own operation does not do.
/// Queries `[1, heads, L, D]`, keys and values `[1, kv_heads, N, D]`, mask `[L, N]`.
fn attend_capped(
    queries: &Array,
    [keys, values]: [&Array; 2],
    scale: f32,
    cap: f32,
    mask: &Array,
) -> Result<Array> {
    let group = queries.dim(1) / keys.dim(1);
    let shared = |x: &Array| ops::repeat_axis::<f32>(x.clone(), group, 1);
    let scores = scaled(ops::matmul(queries, shared(keys)?.swap_axes(-1, -2)?)?, scale)?;
    let scores = capped(&scores, cap)?;
    let least = Array::from_f32(f32::NEG_INFINITY).as_dtype(scores.dtype())?;
    let weights = ops::softmax_axis(ops::select(mask, &scores, &least)?, -1, true)?;
    Ok(ops::matmul(&weights, shared(values)?)?)
}
