//! Attention within sequences that lie one after the other, without padding between them.

use std::ffi::CStr;

use mlx_rs::error::Exception;
use mlx_rs::{Array, Dtype};

use super::sequence::{Job, Unit};
use crate::engine::ffi::{Buffers, Kernel, Operand, OutputSpec, record};
use crate::engine::kernels::check;
use crate::engine::kernels::isa::Isa;
use crate::engine::kernels::pool;

/// The shape of an attention layer of an encoder.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SequenceAttention {
    /// Query heads H.
    pub heads: usize,
    /// Key and value heads Hkv, which divide H.
    pub kv_heads: usize,
    /// D.
    pub head_dim: usize,
    /// Multiplies the scores, usually 1/√D.
    pub scale: f32,
    /// A token sees those at most so far away; `None`: all of its sequence.
    pub reach: Option<usize>,
    /// A token sees none that follow it.
    pub causal: bool,
    /// Rotates neighbours (2i, 2i+1) rather than halves (i, i + R/2) of the R rotated dimensions.
    pub interleaved: bool,
}

/// Attention of `B` sequences of together `L` tokens.
///
/// - `qkv` `[L, (H + 2 Hkv) * D]`: queries, keys and values of a token side by side;
/// - `starts` int32 `[B + 1]`: where each sequence begins, ascending from 0, and at last `L`;
/// - `rotation` `[P, R]`: for each position the cosines and the sines of its R/2 angles, for as many
///   positions as the longest sequence has;
/// - `bias` `[H, 2 P - 1]`: added to the scaled scores of head h at `[h, P - 1 + key - query]`.
///
/// The result is `[L, H * D]`.
///
/// # Errors
/// Shapes or types that do not fit each other.
pub fn sequence_attention<X: Operand>(
    qkv: &X,
    starts: &Array,
    rotation: Option<&Array>,
    bias: Option<&Array>,
    layer: &SequenceAttention,
) -> Result<X, Exception> {
    let SequenceAttention { heads, kv_heads, head_dim, .. } = *layer;
    let (tokens, width) = check::matrix(qkv, "queries, keys and values")?;
    let expected = kv_heads.checked_mul(2).and_then(|n| n.checked_add(heads)?.checked_mul(head_dim));
    if heads == 0 || kv_heads == 0 || head_dim == 0 || heads % kv_heads != 0 || expected != Some(width) {
        return Err(Exception::custom(format!(
            "queries, keys and values of width {width} do not fit {layer:?}"
        )));
    }
    if starts.dtype() != Dtype::Int32 || starts.ndim() != 1 || starts.size() < 2 {
        return Err(Exception::custom("the starts of sequences are no row of int32"));
    }
    let mut inputs = vec![qkv.input(), starts.input()];
    let mut positions = None;
    let mut rotated = 0;
    if let Some(rotation) = rotation {
        let (count, dims) = check::matrix(rotation, "the rotation")?;
        if dims % 2 != 0 || dims > head_dim {
            return Err(Exception::custom(format!("a rotation of {dims} of {head_dim} dimensions")));
        }
        positions = Some(count);
        rotated = dims;
        inputs.push(rotation.input());
    }
    let mut bias_positions = None;
    if let Some(bias) = bias {
        let (bias_heads, width) = check::matrix(bias, "the relative bias")?;
        if bias_heads != heads || width % 2 == 0 {
            return Err(Exception::custom(format!(
                "a relative bias [{bias_heads}, {width}] for {heads} heads"
            )));
        }
        bias_positions = Some(width.div_ceil(2));
        inputs.push(bias.input());
    }
    let longest = [positions, bias_positions].into_iter().flatten().min().unwrap_or(usize::MAX);
    let shape = [check::dimension(tokens)?, check::dimension(heads * head_dim)?];
    let kernel = Attend {
        isa: Isa::current(),
        layer: *layer,
        rotated,
        bias_positions: bias_positions.unwrap_or(0),
        longest,
    };
    check::single(record(kernel, &inputs, &[OutputSpec::New { shape: &shape, dtype: Dtype::Float32 }])?)
}

#[derive(Clone, Copy)]
struct Attend {
    isa: Isa,
    layer: SequenceAttention,
    rotated: usize,
    bias_positions: usize,
    /// The longest sequence that rotation and bias are made for.
    longest: usize,
}

impl Kernel for Attend {
    const NAME: &'static CStr = c"SequenceAttention";

    fn run(&self, buffers: &Buffers<'_>) {
        let qkv = buffers.input::<f32>(0);
        let width = (self.layer.heads + 2 * self.layer.kv_heads) * self.layer.head_dim;
        let starts: Vec<usize> = buffers
            .input::<i32>(1)
            .iter()
            .map(|&start| usize::try_from(start).unwrap_or(usize::MAX))
            .collect();
        let fits = starts.windows(2).all(|pair| pair[0] < pair[1] && pair[1] - pair[0] <= self.longest)
            && starts.first() == Some(&0)
            && starts.last() == Some(&(qkv.len() / width));
        assert!(fits, "sequences that do not fit their tokens");
        let mut take = buffers.optional(2);
        let job = Job {
            isa: self.isa,
            layer: self.layer,
            qkv,
            rotated: self.rotated,
            rotation: take(self.rotated > 0).unwrap_or_default(),
            bias_positions: self.bias_positions,
            bias: take(self.bias_positions > 0).unwrap_or_default(),
            out: buffers.output(0),
        };
        let units = Unit::share_out(&job, &starts, pool::threads());
        pool::run(units.len(), &|index| job.attend(&units[index]));
    }
}
