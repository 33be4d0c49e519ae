//! Token embeddings.

use mlx_rs::{Array, Dtype};

use super::Loader;
use super::matrix::Matrix;
use super::norm::scaled;
use crate::engine::ffi::Operand;
use crate::engine::format::affine;
#[cfg(target_os = "linux")]
use crate::engine::kernels::{self, PackedMatrix};
use crate::error::Result;

/// A table `[vocabulary, columns]` whose rows are looked up by token id.
#[derive(Debug)]
pub enum Embedding {
    Stock(Matrix),
    #[cfg(target_os = "linux")]
    Packed(PackedMatrix),
}

impl Embedding {
    pub fn load(loader: &Loader, name: &str, vocabulary: usize, columns: usize) -> Result<Self> {
        let stored = loader.stored(name, vocabulary, columns)?;
        match loader.backend {
            #[cfg(target_os = "linux")]
            super::Backend::Kernels => Ok(Self::Packed(stored.pack(loader, 1)?)),
            _ => Ok(Self::Stock(Matrix::new(&affine::for_mlx(stored.read(loader)?), loader.dtype)?)),
        }
    }

    /// Rows of the table times a factor, `ids [L] int32 → [L, columns]` in the compute type.
    pub fn forward<X: Operand>(&self, ids: &Array, factor: f32, dtype: Dtype) -> Result<X> {
        match self {
            Self::Stock(matrix) => Ok(X::from(scaled(matrix.rows(ids)?.as_dtype(dtype)?, factor)?)),
            #[cfg(target_os = "linux")]
            Self::Packed(matrix) => Ok(kernels::embed(matrix, ids, factor)?),
        }
    }

    /// The arrays to evaluate at load.
    pub fn arrays(&self) -> Vec<&Array> {
        match self {
            Self::Stock(matrix) => matrix.arrays(),
            #[cfg(target_os = "linux")]
            Self::Packed(_) => Vec::new(),
        }
    }
}
