//! From logits to a token, within the graph: the next step can be built, and started, before the host
//! knows the token.

use std::ffi::CStr;

use mlx_rs::Dtype;
use mlx_rs::error::Exception;

use super::check;
use super::isa::{Isa, Task};
use super::lanes::{LANES, Lanes};
use crate::engine::ffi::{Buffers, Kernel, Operand, OutputSpec, record};

/// What stands for a token when the logits allow none.
const NO_TOKEN: i32 = -1;

/// The index of the largest logit, int32 `[1]`, of float32 `[1, V]`: the lowest of equal ones, -1 when
/// none is a number above minus infinity.
///
/// # Errors
/// Logits of another shape or type.
pub fn argmax<X: Operand>(logits: &X) -> Result<X, Exception> {
    one_row(logits)?;
    let outputs = [OutputSpec::New { shape: &[1], dtype: Dtype::Int32 }];
    check::single(record(Argmax { isa: Isa::current() }, &[logits.input()], &outputs)?)
}

fn one_row(logits: &impl Operand) -> Result<(), Exception> {
    match check::matrix(logits, "the logits")? {
        (1, _) => Ok(()),
        (rows, _) => Err(Exception::custom(format!("{rows} rows of logits, expected one"))),
    }
}

#[derive(Clone, Copy)]
struct Argmax {
    isa: Isa,
}

impl Kernel for Argmax {
    const NAME: &'static CStr = c"Argmax";

    fn run(&self, buffers: &Buffers<'_>) {
        // SAFETY: the level was detected.
        let best = unsafe { self.isa.run(Largest { values: buffers.input(0) }) };
        put(buffers, best.map_or(NO_TOKEN, |index| index as i32));
    }
}

fn put(buffers: &Buffers<'_>, token: i32) {
    // SAFETY: one worker, only written.
    let out = unsafe { buffers.output::<i32>(0).slice(0, 1) };
    out[0] = token;
}

/// The first index of the largest value; NaN and minus infinity do not count.
struct Largest<'a> {
    values: &'a [f32],
}

impl Task for Largest<'_> {
    type Output = Option<usize>;

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) -> Option<usize> {
        /// Only the part that has the largest value is looked through for its index.
        const PART: usize = 64 * LANES;
        let (mut best, mut largest) = (None, f32::NEG_INFINITY);
        for (part, values) in self.values.chunks(PART).enumerate() {
            let vectors = values.chunks_exact(LANES);
            let mut highest = vectors.remainder().iter().copied().fold(f32::NEG_INFINITY, f32::max);
            // SAFETY: the caller's; each chunk is one vector. The second operand is the result when one
            // is NaN, so NaN never gets into `all`.
            unsafe {
                let mut all = V::splat(f32::NEG_INFINITY);
                for values in vectors {
                    all = V::load(values.as_ptr()).max(all);
                }
                highest = highest.max(all.largest());
            }
            if highest > largest {
                (best, largest) = (Some(part), highest);
            }
        }
        let part = best? * PART;
        let index = self.values[part..].iter().position(|&value| value >= largest)?;
        Some(part + index)
    }
}
