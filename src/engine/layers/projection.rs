//! One or more linear maps of the same input, with what usually stands around them.

use mlx_rs::{Array, fast, ops};

use super::matrix::{Matrix, stack};
use super::{Backend, Loader};
use crate::engine::format::affine;
use crate::engine::format::weight::WeightData;
#[cfg(target_os = "linux")]
use crate::engine::kernels::{self, PackedMatrix};
use crate::error::{Error, Result};

/// `[norm →] matrices side by side [+ bias]`.
#[derive(Debug)]
pub struct Projection {
    norm: Option<Norm>,
    weights: Weights,
    bias: Option<Array>,
}

/// Root-mean-square norm (Zhang and Sennrich, 2019): `x / rms(x) * weight`.
#[derive(Debug)]
pub struct Norm {
    pub weight: Array,
    pub eps: f32,
}

#[derive(Debug)]
enum Weights {
    Stock(Vec<Matrix>),
    #[cfg(target_os = "linux")]
    Packed(Vec<PackedMatrix>),
}

/// What follows the product.
enum After<'a> {
    Nothing,
    /// Two matrices: `silu(first) * second` (Shazeer, 2020: the SwiGLU unit).
    SiluGate,
    /// Added to what came before the block.
    Residual(&'a Array),
}

impl Projection {
    /// Loads the modules of these names, which share an input of `columns` and give `rows[i]` each.
    pub fn load(
        loader: &Loader,
        names: &[String],
        rows: &[usize],
        columns: usize,
        norm: Option<Norm>,
        with_bias: bool,
    ) -> Result<Self> {
        let weights = names
            .iter()
            .zip(rows)
            .map(|(name, &rows)| loader.matrix(name, rows, columns))
            .collect::<Result<Vec<_>>>()?;
        let bias = if with_bias {
            let parts = names
                .iter()
                .zip(rows)
                .map(|(name, &rows)| loader.vector(&format!("{name}.bias"), rows))
                .collect::<Result<Vec<_>>>()?;
            Some(ops::concatenate(&parts, 0)?)
        } else {
            None
        };
        Ok(Self { norm, weights: Weights::new(loader, weights)?, bias })
    }

    /// The same matrix as an embedding's table, as a model with tied weights uses it for its head.
    pub fn tied(table: &super::embedding::Embedding, norm: Norm) -> Self {
        Self { norm: Some(norm), weights: table.as_weights(), bias: None }
    }

    /// `[L, columns] → [L, sum of rows]`.
    pub fn forward(&self, x: &Array) -> Result<Array> {
        self.compute(x, &After::Nothing)
    }

    /// `[L, columns] → [L, rows]`: `silu(first) * second`, for two matrices of equal size.
    pub fn forward_gated(&self, x: &Array) -> Result<Array> {
        self.compute(x, &After::SiluGate)
    }

    /// `[L, columns] → [L, rows]`, plus `residual [L, rows]`.
    pub fn forward_onto(&self, x: &Array, residual: &Array) -> Result<Array> {
        self.compute(x, &After::Residual(residual))
    }

    /// The arrays to evaluate at load.
    pub fn arrays(&self) -> Vec<&Array> {
        let mut arrays: Vec<&Array> = self.norm.iter().map(|norm| &norm.weight).chain(&self.bias).collect();
        // Packed weights are computed when they are packed.
        if let Weights::Stock(matrices) = &self.weights {
            arrays.extend(matrices.iter().flat_map(Matrix::arrays));
        }
        arrays
    }

    fn compute(&self, x: &Array, after: &After) -> Result<Array> {
        match &self.weights {
            Weights::Stock(matrices) => self.compute_stock(x, matrices, after),
            #[cfg(target_os = "linux")]
            Weights::Packed(matrices) => {
                let norm = self.norm.as_ref().map(|norm| (&norm.weight, norm.eps));
                let matrices: Vec<&PackedMatrix> = matrices.iter().collect();
                let epilogue = match after {
                    After::Nothing => kernels::Epilogue::None,
                    After::SiluGate => kernels::Epilogue::SiluGate,
                    After::Residual(residual) => kernels::Epilogue::Residual(residual),
                };
                Ok(kernels::project(x, norm, &matrices, self.bias.as_ref(), epilogue)?)
            }
        }
    }

    fn compute_stock(&self, x: &Array, matrices: &[Matrix], after: &After) -> Result<Array> {
        let normed = match &self.norm {
            Some(norm) => &fast::rms_norm(x, Some(&norm.weight), norm.eps)?,
            None => x,
        };
        let mut products =
            matrices.iter().map(|matrix| matrix.forward(normed)).collect::<Result<Vec<_>>>()?;
        let mut product = match (products.len(), products.pop()) {
            (1, Some(only)) => only,
            (_, last) => {
                products.extend(last);
                ops::concatenate(&products, -1)?
            }
        };
        if let Some(bias) = &self.bias {
            product = ops::add(&product, bias)?;
        }
        Ok(match after {
            After::Nothing => product,
            After::Residual(residual) => ops::add(residual, &product)?,
            After::SiluGate => {
                // Plain operations: MLX compiles its own activations at run time on a CPU.
                let halves = ops::split_equal(&product, 2, -1)?;
                let [gate, up] = halves.as_slice() else {
                    return Err(Error::internal("a gate that does not split in two"));
                };
                let silu = ops::multiply(gate, ops::sigmoid(gate)?)?;
                ops::multiply(&silu, up)?
            }
        })
    }
}

impl Weights {
    fn new(loader: &Loader, weights: Vec<WeightData>) -> Result<Self> {
        match loader.backend {
            #[cfg(target_os = "linux")]
            Backend::Kernels => {
                Ok(Self::Packed(weights.iter().map(PackedMatrix::pack).collect::<Result<Vec<_>, _>>()?))
            }
            _ => Ok(Self::Stock(
                stack(weights.into_iter().map(affine::for_mlx).collect())?
                    .iter()
                    .map(|weight| Matrix::new(weight, loader.dtype))
                    .collect::<Result<Vec<_>>>()?,
            )),
        }
    }
}

impl super::embedding::Embedding {
    fn as_weights(&self) -> Weights {
        match self {
            Self::Stock(matrix) => Weights::Stock(vec![matrix.clone()]),
            #[cfg(target_os = "linux")]
            Self::Packed(matrix) => Weights::Packed(vec![matrix.clone()]),
        }
    }
}
