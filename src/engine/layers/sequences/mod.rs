//! Attention within each of many sequences that are computed together, without a cache: what turns
//! texts into vectors, by encoders and by decoders.

mod batch;
mod rotation;

use mlx_rs::fast::{ScaledDotProductAttentionMask as Mask, scaled_dot_product_attention};
use mlx_rs::ops::indexing::IndexOp;
use mlx_rs::{Array, ops};

pub use batch::Batch;
pub use rotation::Rotation;

use super::Backend;
use crate::engine::ffi::Operand;
#[cfg(target_os = "linux")]
use crate::engine::kernels;
use crate::error::Result;

/// Attention heads of one layer.
#[derive(Debug, Clone)]
pub struct SequenceAttention {
    pub heads: usize,
    /// Heads of keys and values, each of which serves as many heads of queries as any other.
    pub kv_heads: usize,
    pub head_dim: usize,
    /// Factor of the scores, usually `1 / sqrt(head_dim)`.
    pub scale: f32,
    /// A token sees those at most so far away; `None`: all of its sequence.
    pub reach: Option<usize>,
    /// A token sees none that follow it.
    pub causal: bool,
    /// Whether rotated pairs are neighbours rather than halves.
    pub interleaved: bool,
    /// `[heads, 2 P - 1]` float32, for sequences of at most P tokens: what is added to a score, by
    /// `P - 1 + key - query`.
    pub bias: Option<Array>,
    pub backend: Backend,
}

/// What a token of a decoder sees of its sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sight {
    /// So many tokens, itself included; `None`: all.
    pub window: Option<usize>,
    /// None that follow it.
    pub causal: bool,
}

impl Sight {
    /// How far away a token is seen. Seen from both sides, a window lies half before and half behind it.
    pub(super) fn reach(self) -> Option<usize> {
        self.window.map(|window| if self.causal { window.saturating_sub(1) } else { window / 2 })
    }
}

impl SequenceAttention {
    /// `qkv [L, (heads + 2 kv_heads) * head_dim] → [L, heads * head_dim]`. `rotation` is a [`Rotation::table`]
    /// for the longest sequence, in the type of `qkv`.
    pub fn forward<X: Operand>(&self, qkv: &X, batch: &Batch, rotation: Option<&Array>) -> Result<X> {
        match self.backend {
            #[cfg(target_os = "linux")]
            Backend::Kernels => {
                let layer = kernels::SequenceAttention {
                    heads: self.heads,
                    kv_heads: self.kv_heads,
                    head_dim: self.head_dim,
                    scale: self.scale,
                    reach: self.reach,
                    causal: self.causal,
                    interleaved: self.interleaved,
                };
                let bias = self.bias.as_ref();
                Ok(kernels::sequence_attention(qkv, batch.starts(), rotation, bias, &layer)?)
            }
            _ => Ok(self.forward_stock(&qkv.array()?, batch, rotation)?.into()),
        }
    }

    fn forward_stock(&self, qkv: &Array, batch: &Batch, rotation: Option<&Array>) -> Result<Array> {
        let padding = batch.padding()?;
        let (texts, longest) = (batch.texts().len() as i32, batch.longest() as i32);
        let (heads, kv_heads, head_dim) = (self.heads as i32, self.kv_heads as i32, self.head_dim as i32);
        // [L, (heads + 2 kv_heads) * head_dim] → [B, heads + 2 kv_heads, P, head_dim]
        let spread = qkv.take_axis(&padding.spread, 0)?;
        let spread = spread.reshape(&[texts, longest, heads + 2 * kv_heads, head_dim])?;
        let spread = spread.transpose_axes(&[0, 2, 1, 3])?;
        let mut queries = spread.index((.., ..heads));
        let mut keys = spread.index((.., heads..heads + kv_heads));
        let values = spread.index((.., heads + kv_heads..));
        if let Some(rotation) = rotation {
            let rotation = rotation.index((..longest, ..));
            queries = self.rotate(&queries, &rotation)?;
            keys = self.rotate(&keys, &rotation)?;
        }
        let mut mask = padding.mask(self.reach, self.causal, qkv.dtype())?;
        if let Some(bias) = &self.bias {
            mask = ops::add(&mask, self.bias_of(bias, longest)?.as_dtype(qkv.dtype())?)?;
        }
        let attended =
            scaled_dot_product_attention(&queries, &keys, &values, self.scale, Mask::Array(&mask), None)?;
        let rows = attended.transpose_axes(&[0, 2, 1, 3])?.reshape(&[texts * longest, heads * head_dim])?;
        Ok(rows.take_axis(&padding.gather, 0)?)
    }

    /// `[heads, P, P]` of the bias by distance.
    fn bias_of(&self, bias: &Array, longest: i32) -> Result<Array> {
        let middle = (bias.dim(1) - 1) / 2;
        let places: Vec<i32> =
            (0..longest).flat_map(|query| (0..longest).map(move |key| middle + key - query)).collect();
        let places = Array::from_slice(&places, &[places.len() as i32]);
        Ok(bias.take_axis(&places, 1)?.reshape(&[self.heads as i32, longest, longest])?)
    }

    /// `x [B, heads, P, head_dim]`, its first dimensions rotated by `[P, R]` cosines and sines.
    fn rotate(&self, x: &Array, rotation: &Array) -> Result<Array> {
        let rotated = rotation.dim(1);
        let half = rotated / 2;
        let (cosines, sines) = (rotation.index((.., ..half)), rotation.index((.., half..)));
        let pairs = x.index((.., .., .., ..rotated));
        let (low, high) = if self.interleaved {
            let shape = [x.dim(0), x.dim(1), x.dim(2), half, 2];
            let split = pairs.reshape(&shape)?;
            (split.index((.., .., .., .., 0)), split.index((.., .., .., .., 1)))
        } else {
            (pairs.index((.., .., .., ..half)), pairs.index((.., .., .., half..)))
        };
        let new_low = ops::subtract(ops::multiply(&low, &cosines)?, ops::multiply(&high, &sines)?)?;
        let new_high = ops::add(ops::multiply(&low, &sines)?, ops::multiply(&high, &cosines)?)?;
        let turned = if self.interleaved {
            ops::stack(&[new_low, new_high], -1)?.reshape(&[x.dim(0), x.dim(1), x.dim(2), rotated])?
        } else {
            ops::concatenate(&[new_low, new_high], -1)?
        };
        if rotated == x.dim(3) {
            return Ok(turned);
        }
        Ok(ops::concatenate(&[turned, x.index((.., .., .., rotated..))], -1)?)
    }
}
