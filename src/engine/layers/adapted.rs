//! What a low-rank adapter adds to a projection, computed beside it: the weights stay as they are.

use mlx_rs::{Array, ops};

use super::Loader;
use super::matrix::Matrix;
use crate::engine::ffi::Operand;
use crate::engine::format::adapter::LowRank;
use crate::engine::format::weight::{Floats, WeightData};
#[cfg(target_os = "linux")]
use crate::engine::kernels::{self, PackedMatrix};
use crate::error::Result;

/// The rank is brought to a multiple of this by zeros, which the kernels like.
pub const STEP: usize = 16;

/// `b · (a · x)` for all modules of a projection at once: their a one below the other, their b along the
/// diagonal.
#[derive(Debug)]
pub struct Delta(Parts);

#[derive(Debug)]
enum Parts {
    Stock {
        a: Matrix,
        b: Matrix,
    },
    #[cfg(target_os = "linux")]
    Packed {
        a: PackedMatrix,
        b: PackedMatrix,
    },
}

impl Delta {
    /// The adapter's parts for modules of `rows[i]` each and a common input of `columns`; `None` if it
    /// leaves them as they are.
    pub fn load(loader: &Loader, names: &[String], rows: &[usize], columns: usize) -> Result<Option<Self>> {
        let mut parts = Vec::with_capacity(names.len());
        for (name, &rows) in names.iter().zip(rows) {
            parts.push((rows, loader.low_rank(name, rows, columns)?));
        }
        let rank: usize = parts.iter().filter_map(|(_, part)| part.as_ref()).map(|part| part.rank).sum();
        if rank == 0 {
            return Ok(None);
        }
        let (rank, all_rows) = (rank.next_multiple_of(STEP), rows.iter().sum::<usize>());
        let mut a = Vec::with_capacity(rank * columns);
        let mut b = vec![0.0f32; all_rows * rank];
        let (mut row, mut column) = (0, 0);
        for (rows, part) in parts {
            if let Some(LowRank { rank: own, a: own_a, b: own_b }) = part {
                a.extend_from_slice(&own_a);
                for (index, values) in own_b.chunks_exact(own).enumerate() {
                    b[(row + index) * rank + column..][..own].copy_from_slice(values);
                }
                column += own;
            }
            row += rows;
        }
        a.resize(rank * columns, 0.0);
        let dense = |values: &[f32], shape: [usize; 2]| WeightData::Dense {
            shape: shape.to_vec(),
            values: Floats::singles(values),
        };
        let (a, b) = (dense(&a, [rank, columns]), dense(&b, [all_rows, rank]));
        Ok(Some(Self(match loader.backend {
            #[cfg(target_os = "linux")]
            super::Backend::Kernels => {
                Parts::Packed { a: PackedMatrix::pack(&a)?, b: PackedMatrix::pack(&b)? }
            }
            _ => Parts::Stock { a: Matrix::new(&a, loader.dtype)?, b: Matrix::new(&b, loader.dtype)? },
        })))
    }

    /// `product + factor * b · (a · x)`, for `x [L, columns]` after its norm, which the kernels apply.
    pub fn add<X: Operand>(
        &self,
        x: &X,
        #[cfg_attr(not(target_os = "linux"), expect(unused_variables, reason = "for the kernels"))]
        norm: Option<&super::norm::Norm>,
        product: &X,
        factor: f32,
    ) -> Result<X> {
        match &self.0 {
            Parts::Stock { a, b } => {
                let mut delta = b.forward(&a.forward(&x.array()?)?)?;
                if (factor - 1.0).abs() > 0.0 {
                    delta = ops::multiply(&delta, Array::from_f32(factor).as_dtype(delta.dtype())?)?;
                }
                Ok(X::from(ops::add(product.array()?, &delta)?))
            }
            #[cfg(target_os = "linux")]
            Parts::Packed { a, b } => {
                let norm = norm.map(super::norm::Norm::in_kernels);
                let low = kernels::project(x, norm.as_ref(), &[a], None, kernels::Epilogue::None)?;
                Ok(kernels::project(&low, None, &[b], None, kernels::Epilogue::Residual(product, factor))?)
            }
        }
    }

    /// The arrays to evaluate at load.
    pub fn arrays(&self) -> Vec<&Array> {
        match &self.0 {
            Parts::Stock { a, b } => a.arrays().into_iter().chain(b.arrays()).collect(),
            #[cfg(target_os = "linux")]
            Parts::Packed { .. } => Vec::new(),
        }
    }
}
