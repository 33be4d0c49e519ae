//! Linear maps with what follows them.

use mlx_rs::{Array, Dtype, ops};

use crate::engine::config::style::Activation;
use crate::engine::ffi::Operand;
use crate::engine::format::affine;
use crate::engine::format::weight::WeightData;
#[cfg(target_os = "linux")]
use crate::engine::kernels::{self, PackedMatrix};
use crate::engine::layers::Backend;
use crate::engine::layers::matrix::{Matrix, side_by_side, stack};
use crate::engine::layers::projection::activate;
use crate::error::{Error, Result};

/// Matrices that share their input, side by side, with a bias.
#[derive(Debug)]
pub struct Linear {
    matrices: Matrices,
    bias: Option<Array>,
}

#[derive(Debug)]
enum Matrices {
    /// Looked at, not loaded.
    Unloaded,
    Stock(Vec<Matrix>),
    #[cfg(target_os = "linux")]
    Packed(Vec<PackedMatrix>),
}

/// What happens to the products.
#[derive(Debug, Clone, Copy)]
pub enum After<'a, X> {
    Nothing,
    Activate(Activation),
    /// Of two matrices of equal size: `activation(first) * second`.
    Gate(Activation),
    /// Added to this.
    Residual(&'a X),
}

impl Linear {
    pub(super) fn unloaded() -> Self {
        Self { matrices: Matrices::Unloaded, bias: None }
    }

    pub(super) fn new(
        weights: Vec<WeightData>,
        bias: Option<Array>,
        backend: Backend,
        dtype: Dtype,
    ) -> Result<Self> {
        let matrices = match backend {
            #[cfg(target_os = "linux")]
            Backend::Kernels => {
                Matrices::Packed(weights.iter().map(PackedMatrix::pack).collect::<Result<_, _>>()?)
            }
            _ => Matrices::Stock(
                stack(weights.into_iter().map(affine::for_mlx).collect())?
                    .iter()
                    .map(|weight| Matrix::new(weight, dtype))
                    .collect::<Result<_>>()?,
            ),
        };
        Ok(Self { matrices, bias })
    }

    /// `[L, columns] → [L, rows]`.
    pub fn forward<X: Operand>(&self, x: &X, after: &After<X>) -> Result<X> {
        match &self.matrices {
            Matrices::Unloaded => Err(Error::internal("a weight that was only looked at")),
            Matrices::Stock(matrices) => Ok(self.compute_stock(&x.array()?, matrices, after)?.into()),
            #[cfg(target_os = "linux")]
            Matrices::Packed(matrices) => {
                let matrices: Vec<&PackedMatrix> = matrices.iter().collect();
                let epilogue = match *after {
                    After::Nothing => kernels::Epilogue::None,
                    After::Activate(activation) => kernels::Epilogue::Activate(activation),
                    After::Gate(activation) => kernels::Epilogue::Gate(activation),
                    After::Residual(residual) => kernels::Epilogue::Residual(residual, 1.0),
                };
                Ok(kernels::project(x, None, &matrices, self.bias.as_ref(), epilogue)?)
            }
        }
    }

    fn compute_stock<X: Operand>(&self, x: &Array, matrices: &[Matrix], after: &After<X>) -> Result<Array> {
        let mut product = side_by_side(matrices, x)?;
        if let Some(bias) = &self.bias {
            product = ops::add(&product, bias)?;
        }
        Ok(match *after {
            After::Nothing => product,
            After::Activate(activation) => activate(&product, activation)?,
            After::Residual(residual) => ops::add(residual.array()?, &product)?,
            After::Gate(activation) => {
                let halves = ops::split_equal(&product, 2, -1)?;
                let [first, second] = halves.as_slice() else {
                    return Err(Error::internal("a gate that does not split in two"));
                };
                ops::multiply(activate(first, activation)?, second)?
            }
        })
    }

    /// The arrays to evaluate at load.
    pub fn arrays(&self) -> Vec<&Array> {
        let mut arrays: Vec<&Array> = self.bias.iter().collect();
        if let Matrices::Stock(matrices) = &self.matrices {
            arrays.extend(matrices.iter().flat_map(Matrix::arrays));
        }
        arrays
    }
}
