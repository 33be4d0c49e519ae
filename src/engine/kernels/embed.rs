//! Rows of an embedding table.

use std::ffi::CStr;

use mlx_rs::error::Exception;
use mlx_rs::{Array, Dtype};

use super::check;
use super::packed::{Layout, PackedMatrix, View};
use super::pool;
use crate::engine::ffi::{Buffers, Input, Kernel, Operand, OutputSpec, record};

/// The rows `[L, columns]` of a table for token ids, int32 `[L]`, times a factor.
///
/// Ids of a running generation exist only inside the graph, so they cannot be checked here: an id that
/// is not in the table gives a row of NaN.
///
/// # Errors
/// Ids that are not int32 or not one row of them.
pub fn embed<X: Operand>(table: &PackedMatrix, ids: &Array, factor: f32) -> Result<X, Exception> {
    let &[tokens] = ids.shape() else {
        return Err(Exception::custom(format!("token ids have the shape {:?}, not [L]", ids.shape())));
    };
    if ids.dtype() != Dtype::Int32 || tokens < 1 {
        return Err(Exception::custom(format!("token ids are {tokens} of {:?}, not int32", ids.dtype())));
    }
    let shape = [tokens, check::dimension(table.columns())?];
    let kernel = Embed { layout: table.layout(), factor };
    let outputs = [OutputSpec::New { shape: &shape, dtype: Dtype::Float32 }];
    check::single(record(kernel, &[table.input(), Input::Fresh(ids)], &outputs)?)
}

#[derive(Clone, Copy)]
struct Embed {
    layout: Layout,
    factor: f32,
}

impl Kernel for Embed {
    const NAME: &'static CStr = c"Embed";

    fn run(&self, buffers: &Buffers<'_>) {
        let table = View::new(self.layout, buffers.input::<u8>(0));
        let ids = buffers.input::<i32>(1);
        let rows = buffers.output::<f32>(0);
        let columns = self.layout.columns;
        pool::run(ids.len(), &|token| {
            // SAFETY: each row is one worker's, and only written.
            let row = unsafe { rows.slice(token * columns, columns) };
            match usize::try_from(ids[token]) {
                Ok(id) if id < self.layout.rows => {
                    table.read_row(id, row);
                    for value in row {
                        *value *= self.factor;
                    }
                }
                _ => row.fill(f32::NAN),
            }
        });
    }
}
