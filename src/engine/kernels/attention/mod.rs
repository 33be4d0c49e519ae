//! Causal attention over a cache, with rotary positions and the cache's update in the same operation.

mod heads;
mod job;
mod rotary;

use std::ffi::CStr;

use mlx_rs::error::Exception;
use mlx_rs::{Array, Dtype};

use super::check;
use super::isa::Isa;
use crate::engine::ffi::{Buffers, Kernel, OutputSpec, cpu_op};
use job::Job;

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
    /// Scores become `cap * tanh(score / cap)`.
    pub soft_cap: Option<f32>,
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
/// - `frequencies` `[rotary_dims / 2]`: radians a position; none where nothing is rotated.
///
/// # Errors
/// Shapes or types that do not fit each other, or a cache that is too small.
pub fn attention(
    qkv: &Array,
    keys: &Array,
    values: &Array,
    frequencies: Option<&Array>,
    layer: &Attention,
) -> Result<AttentionOutput, Exception> {
    let Attention { heads, kv_heads, head_dim, rotary_dims, offset, window, .. } = *layer;
    let fits = heads > 0
        && kv_heads > 0
        && heads % kv_heads == 0
        && head_dim > 0
        && head_dim % 2 == 0
        && rotary_dims.is_multiple_of(2)
        && rotary_dims <= head_dim
        && window != Some(0)
        && layer.soft_cap.is_none_or(|cap| cap > 0.0);
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
    match frequencies {
        Some(frequencies) => check::shape(frequencies, "the rotary frequencies", &[rotary_dims / 2])?,
        None if rotary_dims > 0 => return Err(Exception::custom("a rotation without frequencies")),
        None => {}
    }
    if offset.checked_add(tokens).is_none_or(|end| end > capacity) {
        return Err(Exception::custom(format!(
            "{tokens} tokens after {offset} do not fit a cache of {capacity}"
        )));
    }
    let shape = [check::dimension(tokens)?, check::dimension(heads * head_dim)?];
    let rotates = frequencies.is_some();
    let kernel = Attend { isa: Isa::current(), layer: *layer, tokens, capacity, rotates };
    let outputs = [
        OutputSpec::New { shape: &shape, dtype: Dtype::Float32 },
        OutputSpec::InPlace(1),
        OutputSpec::InPlace(2),
    ];
    let inputs: Vec<&Array> = [qkv, keys, values].into_iter().chain(frequencies).collect();
    let made = cpu_op(kernel, &inputs, &outputs)?;
    let [output, keys, values] =
        <[Array; 3]>::try_from(made).map_err(|_| Exception::custom("mlx made other outputs"))?;
    Ok(AttentionOutput { output, keys, values })
}

#[derive(Clone, Copy)]
struct Attend {
    isa: Isa,
    layer: Attention,
    tokens: usize,
    capacity: usize,
    rotates: bool,
}

impl Kernel for Attend {
    const NAME: &'static CStr = c"Attention";

    fn run(&self, buffers: &Buffers<'_>) {
        let frequencies = if self.rotates { buffers.input(3) } else { &[] };
        rotary::with_table(&self.layer, self.tokens, frequencies, |table| {
            let job = Job {
                isa: self.isa,
                layer: self.layer,
                tokens: self.tokens,
                capacity: self.capacity,
                qkv: buffers.input(0),
                table,
                out: buffers.output(0),
                keys: buffers.output(1),
                values: buffers.output(2),
            };
            job.append();
            job.attend();
        });
    }
}
