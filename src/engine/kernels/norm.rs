//! Norms: before a projection, behind one, and of the heads of queries and keys.

use std::ffi::CStr;

use mlx_rs::error::Exception;
use mlx_rs::{Array, Dtype};

use super::check;
use super::isa::{Isa, Task};
use super::lanes::{LANES, Lanes};
use super::pool;
use crate::engine::ffi::{Buffers, Input, Kernel, Operand, OutputSpec, record};

/// Tokens whose norms a worker computes at once.
const TOGETHER: usize = 8;

/// How to normalise a row.
#[derive(Debug, Clone, Copy)]
pub struct Norm<'a> {
    /// Whether the mean is taken away first (Ba et al., arXiv:1607.06450); else only the root mean square
    /// counts (Zhang and Sennrich, arXiv:1910.07467).
    pub centred: bool,
    /// `[K]`
    pub weight: &'a Array,
    /// `[K]`
    pub bias: Option<&'a Array>,
    pub epsilon: f32,
}

/// A norm inside a kernel, without its arrays.
#[derive(Debug, Clone, Copy)]
pub(super) struct NormShape {
    pub(super) centred: bool,
    pub(super) has_bias: bool,
    pub(super) epsilon: f32,
}

impl Norm<'_> {
    /// Checks the arrays against the length of a row and appends them to a kernel's inputs.
    pub(super) fn prepare<'b>(
        &'b self,
        columns: usize,
        inputs: &mut Vec<Input<'b>>,
    ) -> Result<NormShape, Exception> {
        check::shape(self.weight, "the weight of a norm", &[columns])?;
        inputs.push(self.weight.input());
        if let Some(bias) = self.bias {
            check::shape(bias, "the bias of a norm", &[columns])?;
            inputs.push(bias.input());
        }
        Ok(NormShape { centred: self.centred, has_bias: self.bias.is_some(), epsilon: self.epsilon })
    }
}

/// `[residual + factor *] norm(x)`, each `[L, K]`.
///
/// # Errors
/// Shapes or types that do not fit each other.
pub fn norm_onto<X: Operand>(x: &X, norm: &Norm<'_>, residual: Option<(&X, f32)>) -> Result<X, Exception> {
    let (tokens, columns) = check::matrix(x, "the input of a norm")?;
    let mut inputs = vec![x.input()];
    let norm = norm.prepare(columns, &mut inputs)?;
    if let Some((residual, _)) = residual {
        check::shape(residual, "the residual of a norm", &[tokens, columns])?;
        inputs.push(residual.input());
    }
    let shape = [check::dimension(tokens)?, check::dimension(columns)?];
    let factor = residual.map(|(_, factor)| factor);
    let kernel = NormOnto { isa: Isa::current(), tokens, columns, norm, factor };
    check::single(record(kernel, &inputs, &[OutputSpec::New { shape: &shape, dtype: Dtype::Float32 }])?)
}

#[derive(Clone, Copy)]
struct NormOnto {
    isa: Isa,
    tokens: usize,
    columns: usize,
    norm: NormShape,
    /// Where there is a residual.
    factor: Option<f32>,
}

impl Kernel for NormOnto {
    const NAME: &'static CStr = c"NormOnto";

    fn run(&self, buffers: &Buffers<'_>) {
        let (x, weight) = (buffers.input::<f32>(0), buffers.input::<f32>(1));
        let bias = self.norm.has_bias.then(|| buffers.input::<f32>(2));
        let last = 2 + usize::from(self.norm.has_bias);
        let residual = self.factor.map(|factor| (buffers.input::<f32>(last), factor));
        let out = buffers.output::<f32>(0);
        by_tokens(self.tokens, |first, count| {
            let (at, length) = (first * self.columns, count * self.columns);
            // SAFETY: each row is one worker's; the level was detected.
            let to = unsafe { out.slice(at, length) };
            let x = &x[at..][..length];
            // SAFETY: as above.
            unsafe { self.isa.run(Normalise { x, weight, bias, shape: self.norm, to: &mut *to }) };
            if let Some((residual, factor)) = residual {
                for (to, residual) in to.iter_mut().zip(&residual[at..]) {
                    *to = residual + factor * *to;
                }
            }
        });
    }
}

/// What part of a row the norms of queries and keys look at.
#[derive(Debug, Clone, Copy)]
pub struct HeadNorms<'a> {
    pub queries: Norm<'a>,
    pub keys: Norm<'a>,
    /// Width of the queries and of the keys in a row.
    pub widths: [usize; 2],
    /// Length that is normalised by itself: a head, or a width for all heads together.
    pub units: [usize; 2],
}

/// Queries, keys and values `[L, K]` with queries and keys normalised. A norm's weight is as long as a
/// unit, or as all of them.
///
/// # Errors
/// Shapes or types that do not fit each other.
pub fn norm_heads<X: Operand>(qkv: &X, norms: &HeadNorms<'_>) -> Result<X, Exception> {
    let (tokens, columns) = check::matrix(qkv, "queries, keys and values")?;
    let mut inputs = vec![qkv.input()];
    let mut parts = [HeadPart { width: 0, unit: 0, own: false, norm: EMPTY }; 2];
    for (index, norm) in [&norms.queries, &norms.keys].into_iter().enumerate() {
        let (width, unit) = (norms.widths[index], norms.units[index]);
        let length = norm.weight.size();
        if unit == 0 || !width.is_multiple_of(unit) || (length != unit && length != width) {
            return Err(Exception::custom(format!("a norm of {length} weights for heads of {unit}")));
        }
        let norm = norm.prepare(length, &mut inputs)?;
        parts[index] = HeadPart { width, unit, own: length != unit, norm };
    }
    if parts[0].width + parts[1].width > columns {
        return Err(Exception::custom("heads that are wider than their row"));
    }
    let shape = [check::dimension(tokens)?, check::dimension(columns)?];
    let kernel = NormHeads { isa: Isa::current(), tokens, columns, parts };
    check::single(record(kernel, &inputs, &[OutputSpec::New { shape: &shape, dtype: Dtype::Float32 }])?)
}

const EMPTY: NormShape = NormShape { centred: false, has_bias: false, epsilon: 0.0 };

#[derive(Clone, Copy)]
struct HeadPart {
    width: usize,
    unit: usize,
    /// Whether each unit has weights of its own.
    own: bool,
    norm: NormShape,
}

#[derive(Clone, Copy)]
struct NormHeads {
    isa: Isa,
    tokens: usize,
    columns: usize,
    parts: [HeadPart; 2],
}

impl Kernel for NormHeads {
    const NAME: &'static CStr = c"NormHeads";

    fn run(&self, buffers: &Buffers<'_>) {
        let x = buffers.input::<f32>(0);
        let mut next = 1;
        let weights = self.parts.map(|part| {
            let weight = buffers.input::<f32>(next);
            let bias = part.norm.has_bias.then(|| buffers.input::<f32>(next + 1));
            next += 1 + usize::from(part.norm.has_bias);
            (weight, bias)
        });
        let out = buffers.output::<f32>(0);
        by_tokens(self.tokens, |first, count| {
            for token in first..first + count {
                // SAFETY: each row is one worker's.
                let to = unsafe { out.slice(token * self.columns, self.columns) };
                to.copy_from_slice(&x[token * self.columns..][..self.columns]);
                let mut start = 0;
                for (part, (weight, bias)) in self.parts.iter().zip(weights) {
                    for at in (0..part.width).step_by(part.unit) {
                        let own = if part.own { at } else { 0 };
                        let weight = &weight[own..][..part.unit];
                        let bias = bias.map(|bias| &bias[own..][..part.unit]);
                        let x = &x[token * self.columns + start + at..][..part.unit];
                        let to = &mut to[start + at..][..part.unit];
                        // SAFETY: the level was detected.
                        unsafe { self.isa.run(Normalise { x, weight, bias, shape: part.norm, to }) };
                    }
                    start += part.width;
                }
            }
        });
    }
}

/// Calls `work(first, count)` for runs of tokens. One token, as in generation, is not worth another thread.
pub(super) fn by_tokens(tokens: usize, work: impl Fn(usize, usize) + Sync) {
    let together = if tokens == 1 { 1 } else { TOGETHER };
    pool::run(tokens.div_ceil(together), &|chunk| {
        let first = chunk * together;
        work(first, together.min(tokens - first));
    });
}

/// `(x − mean) / √(variance + epsilon) * weight + bias` row by row, or without the mean.
pub(super) struct Normalise<'a> {
    pub(super) x: &'a [f32],
    /// As long as a row.
    pub(super) weight: &'a [f32],
    pub(super) bias: Option<&'a [f32]>,
    pub(super) shape: NormShape,
    pub(super) to: &'a mut [f32],
}

impl Task for Normalise<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let columns = self.weight.len();
        for (x, to) in self.x.chunks_exact(columns).zip(self.to.chunks_exact_mut(columns)) {
            // SAFETY: the caller's; every row has `columns` floats.
            unsafe {
                let mut mean = V::zero();
                if self.shape.centred {
                    mean = V::splat(total(x, mean, false) / columns as f32);
                }
                let variance = total(x, mean, true) / columns as f32;
                let factor = V::splat(1.0 / (variance + self.shape.epsilon).sqrt());
                for at in (0..columns).step_by(LANES) {
                    let count = LANES.min(columns - at);
                    let value = load::<V>(&x[at..][..count]).sub(mean).mul(factor);
                    let mut value = value.mul(load::<V>(&self.weight[at..][..count]));
                    if let Some(bias) = self.bias {
                        value = value.add(load::<V>(&bias[at..][..count]));
                    }
                    value.store_part(to[at..].as_mut_ptr(), count);
                }
            }
        }
    }
}

/// The sum of a row, or of its squared distances from the mean.
#[inline(always)]
unsafe fn total<V: Lanes>(row: &[f32], mean: V, squared: bool) -> f32 {
    // SAFETY: the caller's; two chains of whole vectors, then what is left, whose empty lanes are not
    // counted.
    unsafe {
        let mut sums = [V::zero(); 2];
        let whole = row.len() / LANES * LANES;
        for at in (0..whole).step_by(LANES) {
            let value = V::load(row[at..].as_ptr()).sub(mean);
            let chain = at / LANES % 2;
            sums[chain] = if squared { value.mul_add(value, sums[chain]) } else { sums[chain].add(value) };
        }
        let mut rest = [0.0; LANES];
        let value = load::<V>(&row[whole..]).sub(mean);
        let value = if squared { value.mul(value) } else { value };
        value.store(rest.as_mut_ptr());
        sums[0].add(sums[1]).sum() + rest[..row.len() - whole].iter().sum::<f32>()
    }
}

/// At most 16 floats, the other lanes 0.
#[inline(always)]
unsafe fn load<V: Lanes>(from: &[f32]) -> V {
    // SAFETY: the caller's; a slice is as long as it says.
    unsafe {
        if from.len() == LANES { V::load(from.as_ptr()) } else { V::load_part(from.as_ptr(), from.len()) }
    }
}
