//! MLX arrays from file bytes, and with room for more.

use mlx_rs::error::Exception;
use mlx_rs::ops::indexing::TryIndexMutOp;
use mlx_rs::{Array, Dtype, ops};

use crate::engine::format::weight::{FloatType, Floats};
use crate::error::{Error, Result};

/// The MLX type that stores these floats.
pub fn dtype(float: FloatType) -> Dtype {
    match float {
        FloatType::F32 => Dtype::Float32,
        FloatType::F16 => Dtype::Float16,
        FloatType::BF16 => Dtype::Bfloat16,
    }
}

/// Copies `values` into an MLX array of this shape, keeping the type.
pub fn from_floats(values: &Floats, shape: &[usize]) -> Result<Array> {
    let elements = shape.iter().try_fold(1usize, |all, &one| all.checked_mul(one));
    if elements.and_then(|count| count.checked_mul(values.dtype.size())) != Some(values.bytes.len()) {
        return Err(Error::internal(format!(
            "{} bytes do not hold {shape:?} elements of {:?}",
            values.bytes.len(),
            values.dtype
        )));
    }
    let shape = dimensions(shape)?;
    // SAFETY: the buffer holds exactly the bytes that shape and dtype ask for (checked above), and
    // MLX copies them before the call returns.
    Ok(unsafe { Array::from_raw_data(values.bytes.as_ptr().cast(), &shape, dtype(values.dtype)) })
}

/// An array of this shape, whose first rows are `rows` in each of the first dimension's parts, and all others zeros.
pub fn with_zeros(rows: Option<&Array>, shape: [i32; 3], dtype: Dtype) -> Result<Array, Exception> {
    let mut all = ops::zeros_dtype(&shape, dtype)?;
    if let Some(rows) = rows {
        all.try_index_mut((.., 0..rows.dim(1), ..), rows)?;
    }
    Ok(all)
}

/// A shape as MLX counts it.
pub fn dimensions(shape: &[usize]) -> Result<Vec<i32>> {
    shape
        .iter()
        .map(|&size| i32::try_from(size))
        .collect::<Result<_, _>>()
        .map_err(|_| Error::internal(format!("the shape {shape:?} is larger than MLX can index")))
}
