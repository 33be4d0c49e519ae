//! Arrays of rows with room for more, which takes no memory until it is used.

use std::ffi::CStr;

use mlx_rs::error::Exception;
use mlx_rs::{Array, Dtype};

use super::chain::cpu_op;
use super::cpu_op::{Kernel, OutputSpec};
use super::slots::Buffers;

/// An array of this shape, whose first rows are `rows` in each of the first dimension's parts. What the others are is
/// not said, as they are not written; they are to be read after that.
///
/// # Errors
/// MLX refuses, or the rows are more than there is room for.
pub fn with_room(
    rows: Option<&Array>,
    shape @ [parts, room, width]: [i32; 3],
    dtype: Dtype,
) -> Result<Array, Exception> {
    let fit = rows.is_none_or(|rows| {
        rows.dtype() == dtype
            && matches!(*rows.shape(), [its_parts, count, its_width]
                if its_parts == parts && count <= room && its_width == width)
    });
    if !fit {
        let rows = rows.map(Array::shape);
        return Err(Exception::custom(format!("{rows:?} does not fit into {shape:?} of {dtype:?}")));
    }
    let kernel = WithRoom { parts: parts as usize };
    let made = cpu_op(kernel, rows.as_slice(), &[OutputSpec::New { shape: &shape, dtype }])?;
    made.into_iter().next().ok_or_else(|| Exception::custom("mlx made no array"))
}

/// Copies the rows of each part to where they are to lie.
struct WithRoom {
    parts: usize,
}

impl Kernel for WithRoom {
    const NAME: &'static CStr = c"WithRoom";

    fn run(&self, buffers: &Buffers<'_>) {
        let all = buffers.output_bytes(0);
        if cfg!(test) {
            // NaN in every type of floats: whoever reads what was not written finds that.
            // SAFETY: only written, by this thread.
            unsafe { all.slice(0, all.len()) }.fill(0xff);
        }
        let rows = buffers.optional_bytes(0);
        if rows.is_empty() {
            return;
        }
        let (size, held) = (all.len() / self.parts, rows.len() / self.parts);
        for (part, rows) in rows.chunks_exact(held).enumerate() {
            // SAFETY: as above; the parts lie apart.
            unsafe { all.slice(part * size, held) }.copy_from_slice(rows);
        }
    }
}

#[cfg(test)]
mod tests {
    use mlx_rs::ops;
    use mlx_rs::ops::indexing::IndexOp;

    use super::*;

    #[test]
    fn rows_stay() {
        for (parts, held, room, width) in [
            (1, 0, 1, 1),
            (3, 5, 6, 7),
            (2, 512, 700, 64),
            (4, 300, 2048, 64),
            (2, 100, 100, 8),
            (3, 0, 4096, 33),
        ] {
            let numbers: Vec<f32> = (1..=parts * held * width).map(|number| number as f32).collect();
            let rows = Array::from_slice(&numbers, &[parts, held, width]);
            let before = (held > 0).then_some(&rows);
            let all = with_room(before, [parts, room, width], Dtype::Float32).unwrap();
            assert_eq!(all.shape(), [parts, room, width]);
            if held > 0 {
                let kept = ops::flatten(all.index((.., ..held, ..)), None, None).unwrap();
                assert_eq!(kept.as_slice::<f32>(), numbers);
            }
        }
    }

    /// Rows that lie apart, as those of a buffer that is too small do.
    #[test]
    fn rows_of_a_larger_array_stay() {
        let all = ops::arange::<_, f32>(None, 60, None).unwrap().reshape(&[2, 10, 3]).unwrap();
        let larger = with_room(Some(&all.index((.., 2..6, ..))), [2, 20, 3], Dtype::Float32).unwrap();
        let kept = larger.index((.., ..4, ..));
        assert!(kept.eq(all.index((.., 2..6, ..))).unwrap().all(None).unwrap().item_exact::<bool>());
    }

    #[test]
    fn rows_that_do_not_fit_are_refused() {
        let rows = ops::zeros::<f32>(&[2, 5, 4]).unwrap();
        for shape in [[2, 4, 4], [1, 5, 4], [2, 5, 3]] {
            with_room(Some(&rows), shape, Dtype::Float32).unwrap_err();
        }
        with_room(Some(&rows), [2, 5, 4], Dtype::Float16).unwrap_err();
    }
}
