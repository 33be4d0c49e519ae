//! Grouped-query attention (Ainslie et al., 2023) with rotary positions over a cache.

use std::rc::Rc;

use mlx_rs::fast::{ScaledDotProductAttentionMask as Mask, scaled_dot_product_attention};
use mlx_rs::ops::indexing::{IndexOp, TryIndexMutOp};
use mlx_rs::{Array, ops};

use super::Backend;
use super::projection::Projection;
use super::rope::Rope;
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
    /// A token sees itself and the `window - 1` before it; `None`: all before it.
    pub window: Option<usize>,
}

/// One attention block: norm and projections, rotation, attention over the cache, output, residual.
#[derive(Debug)]
pub struct Attention {
    pub shape: AttentionShape,
    pub rope: Rc<Rope>,
    /// Norm, then queries, keys and values side by side.
    pub input: Projection,
    pub output: Projection,
    pub backend: Backend,
}

impl Attention {
    /// `x [L, hidden] → [L, hidden]`, residual included. The tokens of `x` follow those in the cache,
    /// which has room for them (see [`KvCache::reserve`]).
    pub fn forward(&self, x: &Array, cache: &mut KvCache, layer: usize) -> Result<Array> {
        let qkv = self.input.forward(x)?;
        let attended = match self.backend {
            Backend::Stock => self.attend_stock(&qkv, cache, layer)?,
            Backend::Kernels => self.attend_fused(&qkv, cache, layer)?,
        };
        self.output.forward_onto(&attended, x)
    }

    /// The arrays to evaluate at load.
    pub fn arrays(&self) -> Vec<&Array> {
        let mut arrays = self.rope.arrays();
        arrays.extend(self.input.arrays());
        arrays.extend(self.output.arrays());
        arrays
    }

    #[cfg(target_os = "linux")]
    fn attend_fused(&self, qkv: &Array, cache: &mut KvCache, layer: usize) -> Result<Array> {
        let AttentionShape { heads, kv_heads, head_dim, scale, window } = self.shape;
        let (keys, values) = cache.layer(layer)?;
        let asked = kernels::Attention {
            heads,
            kv_heads,
            head_dim,
            rotary_dims: self.rope.dimensions,
            traditional: self.rope.interleaved,
            rope_scale: 1.0,
            scale,
            offset: cache.offset(),
            window,
        };
        let attended = kernels::attention(qkv, keys, values, &self.rope.frequencies, &asked)?;
        cache.set_layer(layer, attended.keys, attended.values);
        Ok(attended.output)
    }

    #[cfg(not(target_os = "linux"))]
    fn attend_fused(&self, qkv: &Array, cache: &mut KvCache, layer: usize) -> Result<Array> {
        self.attend_stock(qkv, cache, layer)
    }

    fn attend_stock(&self, qkv: &Array, cache: &mut KvCache, layer: usize) -> Result<Array> {
        let AttentionShape { heads, kv_heads, head_dim, scale, window } = self.shape;
        let (length, offset) = (qkv.dim(0), cache.offset());
        let end = offset as i32 + length;
        let (q_end, k_end) = ((heads * head_dim) as i32, ((heads + kv_heads) * head_dim) as i32);

        // [L, heads * head_dim] → [1, heads, L, head_dim]
        let by_head = |part: Array, heads: usize| -> Result<Array> {
            let split = part.reshape(&[1, length, heads as i32, head_dim as i32])?;
            Ok(split.transpose_axes(&[0, 2, 1, 3])?)
        };
        let queries = self.rope.forward(&by_head(qkv.index((.., ..q_end)), heads)?, offset)?;
        let keys = self.rope.forward(&by_head(qkv.index((.., q_end..k_end)), kv_heads)?, offset)?;
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
        let attended = match window {
            Some(window) if length > 1 && end as usize > window => {
                let mask = window_mask(length as usize, offset, window)?;
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

/// `[length, offset + length]`, true where the token of the row sees the token of the column.
fn window_mask(length: usize, offset: usize, window: usize) -> Result<Array> {
    let end = offset + length;
    let seen: Vec<bool> = (offset..end)
        .flat_map(|row| (0..end).map(move |column| column <= row && column + window > row))
        .collect();
    if seen.len() != length * end {
        return Err(Error::internal("a mask of the wrong size"));
    }
    Ok(ops::reshape(Array::from_slice(&seen, &[seen.len() as i32]), &[length as i32, end as i32])?)
}
