//! Causal attention over a cache, with rotary positions and the cache's update in the same operation.

use std::ffi::CStr;

use mlx_rs::error::Exception;
use mlx_rs::{Array, Dtype};

use super::check;
use super::pool;
use crate::engine::ffi::{Buffers, Kernel, OutputSpec, cpu_op};

/// The shape of an attention layer and where it stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Attention {
    /// Query heads H.
    pub heads: usize,
    /// Key and value heads Hkv, which divide H.
    pub kv_heads: usize,
    /// D, even.
    pub head_dim: usize,
    /// The first dimensions of a head that are rotated: even, at most D; 0 for none.
    pub rotary_dims: usize,
    /// Rotates neighbours (2i, 2i+1) rather than halves (i, i + rotary_dims / 2).
    pub traditional: bool,
    /// Multiplies the rotated dimensions of queries and keys (YaRN's attention factor); 1 for none.
    pub rope_scale: f32,
    /// Multiplies the scores, usually 1/√D.
    pub scale: f32,
    /// Tokens already in the cache; the new ones follow.
    pub offset: usize,
    /// A token sees itself and `window - 1` tokens before; `None`: all before.
    pub window: Option<usize>,
}

/// What attention gives back.
#[derive(Debug)]
pub struct AttentionOutput {
    /// `[L, H * D]`
    pub output: Array,
    /// The caches with the new tokens, the same memory as the arrays passed in.
    pub keys: Array,
    pub values: Array,
}

/// Attention of `L` new tokens over everything before and themselves.
///
/// - `qkv` `[L, (H + 2 Hkv) * D]`: queries, keys and values of a token side by side, not yet rotated;
/// - `keys`, `values` `[Hkv, capacity, D]`: the caches, updated in place at `offset..offset + L`. Earlier
///   positions are never written, so older handles of the same memory stay valid up to their length;
/// - `frequencies` `[rotary_dims / 2]`: radians a position.
///
/// # Errors
/// Shapes or types that do not fit each other, or a cache that is too small.
pub fn attention(
    qkv: &Array,
    keys: &Array,
    values: &Array,
    frequencies: &Array,
    layer: &Attention,
) -> Result<AttentionOutput, Exception> {
    let Attention { heads, kv_heads, head_dim, rotary_dims, offset, window, .. } = *layer;
    let fits = heads > 0
        && kv_heads > 0
        && heads % kv_heads == 0
        && head_dim > 0
        && head_dim % 2 == 0
        && rotary_dims % 2 == 0
        && rotary_dims <= head_dim
        && window != Some(0);
    if !fits {
        return Err(Exception::custom(format!("attention of a shape that cannot be: {layer:?}")));
    }
    let (tokens, width) = check::matrix(qkv, "queries, keys and values")?;
    let expected = kv_heads.checked_mul(2).and_then(|n| n.checked_add(heads)?.checked_mul(head_dim));
    if expected != Some(width) {
        return Err(Exception::custom(format!(
            "queries, keys and values of width {width} do not fit {layer:?}"
        )));
    }
    let capacity = match *keys.shape() {
        [_, capacity, _] => capacity as usize,
        ref other => return Err(Exception::custom(format!("a key cache has the shape {other:?}"))),
    };
    check::shape(keys, "the key cache", &[kv_heads, capacity, head_dim])?;
    check::shape(values, "the value cache", &[kv_heads, capacity, head_dim])?;
    check::shape(frequencies, "the rotary frequencies", &[rotary_dims / 2])?;
    if offset.checked_add(tokens).is_none_or(|end| end > capacity) {
        return Err(Exception::custom(format!(
            "{tokens} tokens after {offset} do not fit a cache of {capacity}"
        )));
    }
    let shape = [check::dimension(tokens)?, check::dimension(heads * head_dim)?];
    let kernel = Attend { layer: *layer, tokens, capacity };
    let outputs = [
        OutputSpec::New { shape: &shape, dtype: Dtype::Float32 },
        OutputSpec::InPlace(1),
        OutputSpec::InPlace(2),
    ];
    let made = cpu_op(kernel, &[qkv, keys, values, frequencies], &outputs)?;
    let [output, keys, values] =
        <[Array; 3]>::try_from(made).map_err(|_| Exception::custom("mlx made other outputs"))?;
    Ok(AttentionOutput { output, keys, values })
}

#[derive(Clone, Copy)]
struct Attend {
    layer: Attention,
    tokens: usize,
    capacity: usize,
}

impl Kernel for Attend {
    const NAME: &'static CStr = c"Attention";

    fn run(&self, buffers: &Buffers<'_>) {
        let Attention { heads, kv_heads, head_dim, offset, .. } = self.layer;
        let qkv = buffers.input::<f32>(0);
        let frequencies = buffers.input::<f32>(3);
        let (out, keys, values) =
            (buffers.output::<f32>(0), buffers.output::<f32>(1), buffers.output::<f32>(2));
        let width = (heads + 2 * kv_heads) * head_dim;
        for token in 0..self.tokens {
            for head in 0..kv_heads {
                let at = (head * self.capacity + offset + token) * head_dim;
                let key = &qkv[token * width + (heads + head) * head_dim..][..head_dim];
                let value = &qkv[token * width + (heads + kv_heads + head) * head_dim..][..head_dim];
                // SAFETY: nobody else runs, and the new positions are only written.
                unsafe {
                    keys.slice(at, head_dim).copy_from_slice(&self.rotated(key, offset + token, frequencies));
                    values.slice(at, head_dim).copy_from_slice(value);
                }
            }
        }
        pool::run(self.tokens * heads, &|index| {
            let (token, head) = (index / heads, index % heads);
            let position = offset + token;
            let query =
                self.rotated(&qkv[token * width + head * head_dim..][..head_dim], position, frequencies);
            let first = self.layer.window.map_or(0, |window| (position + 1).saturating_sub(window));
            let base = head / (heads / kv_heads) * self.capacity;
            // SAFETY: positions up to this one are initialised and nobody writes them now; each part of
            // the output is one worker's.
            let (keys, values, out) = unsafe {
                let count = (position + 1 - first) * head_dim;
                let start = (base + first) * head_dim;
                let out = out.slice(index * head_dim, head_dim);
                (&*keys.slice(start, count), &*values.slice(start, count), out)
            };
            let mut scores: Vec<f32> = keys
                .chunks_exact(head_dim)
                .map(|key| self.layer.scale * key.iter().zip(&query).map(|(a, b)| a * b).sum::<f32>())
                .collect();
            let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            for score in &mut scores {
                *score = (*score - largest).exp();
            }
            let total: f32 = scores.iter().sum();
            out.fill(0.0);
            for (score, value) in scores.iter().zip(values.chunks_exact(head_dim)) {
                out.iter_mut().zip(value).for_each(|(o, v)| *o += score / total * v);
            }
        });
    }
}

impl Attend {
    fn rotated(&self, head: &[f32], position: usize, frequencies: &[f32]) -> Vec<f32> {
        let mut rotated = head.to_vec();
        for (i, frequency) in frequencies.iter().enumerate() {
            let (sin, cos) = (position as f32 * frequency).sin_cos();
            let (sin, cos) = (sin * self.layer.rope_scale, cos * self.layer.rope_scale);
            let (a, b) = if self.layer.traditional { (2 * i, 2 * i + 1) } else { (i, i + frequencies.len()) };
            rotated[a] = head[a] * cos - head[b] * sin;
            rotated[b] = head[a] * sin + head[b] * cos;
        }
        rotated
    }
}
