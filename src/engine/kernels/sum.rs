//! Sums of what parts of a layer make.

use std::ffi::CStr;

use mlx_rs::Dtype;
use mlx_rs::error::Exception;

use super::check;
use super::isa::{Isa, Task};
use super::lanes::{LANES, Lanes, load_part, sigmoid};
use super::norm::by_tokens;
use crate::engine::ffi::{Buffers, Kernel, Operand, OutputSpec, record};

/// A second part, as it is or times the sigmoid of a number for each token, `[L, 1]`.
#[derive(Debug)]
pub struct Other<'a, X> {
    pub values: &'a X,
    pub gate: Option<&'a X>,
}

/// `[residual + factor *] (x + [[sigmoid(gate) *] other])`, each `[L, K]`.
///
/// # Errors
/// Shapes or types that do not fit each other.
pub fn sum_onto<X: Operand>(
    x: &X,
    other: Option<&Other<'_, X>>,
    residual: Option<(&X, f32)>,
) -> Result<X, Exception> {
    let (tokens, columns) = check::matrix(x, "the first part of a sum")?;
    let mut inputs = vec![x.input()];
    let mut kernel = SumOnto { isa: Isa::current(), tokens, columns, other: None, factor: None };
    if let Some(&Other { values, gate }) = other {
        check::shape(values, "the second part of a sum", &[tokens, columns])?;
        inputs.push(values.input());
        if let Some(gate) = gate {
            check::shape(gate, "the gate of a sum", &[tokens, 1])?;
            inputs.push(gate.input());
        }
        kernel.other = Some(gate.is_some());
    }
    if let Some((residual, factor)) = residual {
        check::shape(residual, "the residual of a sum", &[tokens, columns])?;
        inputs.push(residual.input());
        kernel.factor = Some(factor);
    }
    let shape = [check::dimension(tokens)?, check::dimension(columns)?];
    check::single(record(kernel, &inputs, &[OutputSpec::New { shape: &shape, dtype: Dtype::Float32 }])?)
}

#[derive(Clone, Copy)]
struct SumOnto {
    isa: Isa,
    tokens: usize,
    columns: usize,
    /// Whether the other part has a gate, where there is one.
    other: Option<bool>,
    /// Where there is a residual.
    factor: Option<f32>,
}

impl Kernel for SumOnto {
    const NAME: &'static CStr = c"SumOnto";

    fn run(&self, buffers: &Buffers<'_>) {
        let x = buffers.input::<f32>(0);
        let mut take = buffers.optional(1);
        let other = take(self.other.is_some());
        let gates = take(self.other == Some(true));
        let residual = take(self.factor.is_some());
        let out = buffers.output::<f32>(0);
        by_tokens(self.tokens, |first, count| {
            for token in first..first + count {
                let at = token * self.columns;
                let row = |all| slice(all, at, self.columns);
                let sum = Sum {
                    x: row(x),
                    other: other.map(row),
                    gate: gates.map(|gates| gates[token]),
                    residual: residual.map(row),
                    factor: self.factor.unwrap_or(1.0),
                    // SAFETY: each row is one worker's.
                    to: unsafe { out.slice(at, self.columns) },
                };
                // SAFETY: the level was detected.
                unsafe { self.isa.run(sum) };
            }
        });
    }
}

fn slice(all: &[f32], at: usize, length: usize) -> &[f32] {
    &all[at..][..length]
}

/// The sum of one token.
struct Sum<'a> {
    x: &'a [f32],
    other: Option<&'a [f32]>,
    gate: Option<f32>,
    residual: Option<&'a [f32]>,
    factor: f32,
    to: &'a mut [f32],
}

impl Task for Sum<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        // SAFETY: the caller's.
        unsafe {
            let weight = self.gate.map_or(V::splat(1.0), |gate| sigmoid(V::splat(gate)));
            for (index, to) in self.to.chunks_mut(LANES).enumerate() {
                let part = |all: &[f32]| load_part::<V>(&all[index * LANES..][..to.len()]);
                let mut sum = part(self.x);
                if let Some(other) = self.other {
                    sum = part(other).mul_add(weight, sum);
                }
                if let Some(residual) = self.residual {
                    sum = sum.mul_add(V::splat(self.factor), part(residual));
                }
                sum.store_part(to.as_mut_ptr(), to.len());
            }
        }
    }
}
