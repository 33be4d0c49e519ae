//! What every operation checks of its arrays before it builds anything.

use mlx_rs::Dtype;
use mlx_rs::error::Exception;

use crate::engine::ffi::{Operand, Tensor};

/// The two dimensions of a float32 matrix.
pub(super) fn matrix(array: &impl Operand, what: &str) -> Result<(usize, usize), Exception> {
    let shape = float_shape(array, what)?;
    match *shape {
        [rows, columns] if rows > 0 && columns > 0 => Ok((rows as usize, columns as usize)),
        _ => Err(Exception::custom(format!("{what} has the shape {shape:?}, not that of a matrix"))),
    }
}

/// That a float32 array has exactly this shape.
pub(super) fn shape(array: &impl Operand, what: &str, expected: &[usize]) -> Result<(), Exception> {
    let shape = float_shape(array, what)?;
    if shape.len() == expected.len() && shape.iter().zip(expected).all(|(&a, &b)| a as usize == b) {
        return Ok(());
    }
    Err(Exception::custom(format!("{what} has the shape {shape:?}, expected {expected:?}")))
}

/// A dimension as MLX counts it.
pub(super) fn dimension(size: usize) -> Result<i32, Exception> {
    i32::try_from(size).map_err(|_| Exception::custom(format!("a dimension of {size} is too large")))
}

fn float_shape<'a>(array: &'a impl Operand, what: &str) -> Result<&'a [i32], Exception> {
    match array.dtype() {
        Dtype::Float32 => Ok(array.shape()),
        other => Err(Exception::custom(format!("{what} is {other:?}, the cpu kernels compute in float32"))),
    }
}

/// The one output of an operation.
pub(super) fn single<X: Operand>(made: Vec<Tensor>) -> Result<X, Exception> {
    X::of(made.into_iter().next().ok_or_else(|| Exception::custom("a kernel that makes nothing"))?)
}
