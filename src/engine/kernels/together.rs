//! Work without anything in common, each piece on one thread from its beginning to its end: what a piece makes
//! on its way stays in that core's cache, and nobody waits for others between the kernels.

use std::ffi::CStr;

use mlx_rs::error::Exception;
use mlx_rs::{Array, Dtype};

use super::{check, pool};
use crate::engine::ffi::{Buffers, Closed, Kernel, Operand, OutputSpec, Tensor, record};

/// Matrices of equal width, one below the other, each made by one worker. The first ones begin first.
///
/// # Errors
/// No matrix, other widths, or chains that are not made of computed arrays alone.
pub fn together(parts: &[Tensor]) -> Result<Array, Exception> {
    let (mut rows, mut width) = (0, 0);
    for part in parts {
        let (own, columns) = check::matrix(part, "a part")?;
        if rows > 0 && columns != width {
            return Err(Exception::custom("parts of different widths"));
        }
        (rows, width) = (rows + own, columns);
    }
    if parts.is_empty() {
        return Err(Exception::custom("no parts"));
    }
    let shape = [check::dimension(rows)?, check::dimension(width)?];
    let parts = parts.iter().map(Closed::new).collect::<Result<_, _>>()?;
    record(Together { parts }, &[], &[OutputSpec::New { shape: &shape, dtype: Dtype::Float32 }])
        .and_then(check::single::<Tensor>)?
        .array()
}

struct Together {
    parts: Vec<Closed>,
}

impl Kernel for Together {
    const NAME: &'static CStr = c"Together";

    fn run(&self, buffers: &Buffers<'_>) {
        let out = buffers.output::<f32>(0);
        let ends = self.parts.iter().scan(0, |end, part| {
            *end += part.floats();
            Some(*end)
        });
        let ends: Vec<usize> = ends.collect();
        pool::run(self.parts.len(), &|index| {
            let part = &self.parts[index];
            // SAFETY: these rows are this worker's.
            part.run(unsafe { out.slice(ends[index] - part.floats(), part.floats()) });
        });
    }
}
