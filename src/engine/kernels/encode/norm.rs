//! Layer normalisation (Ba, Kiros, Hinton, arXiv:1607.06450).

use std::ffi::CStr;

use mlx_rs::error::Exception;
use mlx_rs::{Array, Dtype};

use crate::engine::ffi::{Buffers, Kernel, OutputSpec, cpu_op};
use crate::engine::kernels::check;
use crate::engine::kernels::isa::{Isa, Task};
use crate::engine::kernels::lanes::{LANES, Lanes};
use crate::engine::kernels::pool;

/// Rows that a worker takes at once.
const TOGETHER: usize = 32;

/// `(x - mean) / sqrt(variance + epsilon) * weight + bias`, row by row: `x [L, K]`, `weight` and `bias` `[K]`.
///
/// # Errors
/// Shapes or types that do not fit each other.
pub fn layer_norm(x: &Array, weight: &Array, bias: Option<&Array>, epsilon: f32) -> Result<Array, Exception> {
    let (rows, columns) = check::matrix(x, "the input of a norm")?;
    check::shape(weight, "the weight of a norm", &[columns])?;
    let mut inputs = vec![x, weight];
    if let Some(bias) = bias {
        check::shape(bias, "the bias of a norm", &[columns])?;
        inputs.push(bias);
    }
    let shape = [check::dimension(rows)?, check::dimension(columns)?];
    let kernel = LayerNorm { isa: Isa::current(), columns, epsilon, has_bias: bias.is_some() };
    check::single(cpu_op(kernel, &inputs, &[OutputSpec::New { shape: &shape, dtype: Dtype::Float32 }])?)
}

#[derive(Clone, Copy)]
struct LayerNorm {
    isa: Isa,
    columns: usize,
    epsilon: f32,
    has_bias: bool,
}

impl Kernel for LayerNorm {
    const NAME: &'static CStr = c"LayerNorm";

    fn run(&self, buffers: &Buffers<'_>) {
        let (x, weight) = (buffers.input::<f32>(0), buffers.input::<f32>(1));
        let bias = self.has_bias.then(|| buffers.input::<f32>(2));
        let to = buffers.output::<f32>(0);
        let rows = x.len() / self.columns;
        pool::run(rows.div_ceil(TOGETHER), &|chunk| {
            let first = chunk * TOGETHER * self.columns;
            let count = (TOGETHER * self.columns).min(x.len() - first);
            // SAFETY: these rows are this worker's, and only written; the level was detected.
            unsafe {
                let to = to.slice(first, count);
                let x = &x[first..][..count];
                self.isa.run(Rows { x, weight, bias, epsilon: self.epsilon, to });
            }
        });
    }
}

struct Rows<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    bias: Option<&'a [f32]>,
    epsilon: f32,
    to: &'a mut [f32],
}

impl Task for Rows<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let columns = self.weight.len();
        for (x, to) in self.x.chunks_exact(columns).zip(self.to.chunks_exact_mut(columns)) {
            // SAFETY: the caller's; every slice has `columns` floats.
            unsafe {
                let mut total = V::zero();
                each(columns, |at, count| total = total.add(load::<V>(x, at, count)));
                let mean = total.sum() / columns as f32;
                let mut squares = V::zero();
                each(columns, |at, count| {
                    // Lanes beyond the row are 0 and must stay so, hence a second partial load.
                    let difference = load::<V>(x, at, count).sub(V::splat(mean));
                    let difference = if count < LANES { masked(difference, count) } else { difference };
                    squares = difference.mul_add(difference, squares);
                });
                let variance = squares.sum() / columns as f32;
                let factor = V::splat(1.0 / (variance + self.epsilon).sqrt());
                each(columns, |at, count| {
                    let value = load::<V>(x, at, count).sub(V::splat(mean)).mul(factor);
                    let value = value.mul(load::<V>(self.weight, at, count));
                    let value = match self.bias {
                        Some(bias) => value.add(load::<V>(bias, at, count)),
                        None => value,
                    };
                    let to = to.as_mut_ptr().add(at);
                    if count == LANES { value.store(to) } else { value.store_part(to, count) }
                });
            }
        }
    }
}

/// Calls `f` with the start and the length of each vector of a row.
#[inline(always)]
fn each(columns: usize, mut f: impl FnMut(usize, usize)) {
    for at in (0..columns).step_by(LANES) {
        f(at, LANES.min(columns - at));
    }
}

#[inline(always)]
unsafe fn load<V: Lanes>(from: &[f32], at: usize, count: usize) -> V {
    // SAFETY: the caller's; `count` floats are there.
    unsafe {
        let from = from[at..][..count].as_ptr();
        if count == LANES { V::load(from) } else { V::load_part(from, count) }
    }
}

/// The first `count` lanes, the others 0.
#[inline(always)]
unsafe fn masked<V: Lanes>(value: V, count: usize) -> V {
    let mut lanes = [0.0; LANES];
    // SAFETY: the caller's; the array has room for all lanes.
    unsafe {
        value.store_part(lanes.as_mut_ptr(), count);
        V::load(lanes.as_ptr())
    }
}
