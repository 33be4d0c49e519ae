//! From logits to a token.

use std::ffi::CStr;

use mlx_rs::error::Exception;
use mlx_rs::{Array, Dtype};

use super::check;
use crate::engine::ffi::{Buffers, Kernel, OutputSpec, cpu_op};

/// The index of the largest logit, int32 `[1]`, of float32 `[1, V]`: the lowest of equal ones, 0 when all
/// are NaN.
///
/// # Errors
/// Logits of another shape or type.
pub fn argmax(logits: &Array) -> Result<Array, Exception> {
    let (rows, _) = check::matrix(logits, "the logits")?;
    if rows != 1 {
        return Err(Exception::custom(format!("argmax of {rows} rows of logits, expected one")));
    }
    check::single(cpu_op(Argmax, &[logits], &[OutputSpec::New { shape: &[1], dtype: Dtype::Int32 }])?)
}

#[derive(Clone, Copy)]
struct Argmax;

impl Kernel for Argmax {
    const NAME: &'static CStr = c"Argmax";

    fn run(&self, buffers: &Buffers<'_>) {
        let logits = buffers.input::<f32>(0);
        let (mut best, mut largest) = (0, f32::NEG_INFINITY);
        for (index, &logit) in logits.iter().enumerate() {
            if logit > largest {
                (best, largest) = (index, logit);
            }
        }
        // SAFETY: one worker, only written.
        let token = unsafe { buffers.output::<i32>(0).slice(0, 1) };
        token[0] = best as i32;
    }
}
