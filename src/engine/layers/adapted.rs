//! What a low-rank adapter adds to a projection, computed beside it: the weights stay as they are.

use std::ops::Range;

use mlx_rs::{Array, ops};

use super::Loader;
use super::matrix::Matrix;
use super::stored::Stored;
use crate::engine::ffi::Operand;
use crate::engine::format::adapter::LowRank;
use crate::engine::format::weight::{Floats, WeightData};
#[cfg(target_os = "linux")]
use crate::engine::kernels::{self, PackedMatrix};
use crate::error::Result;

/// The rank is brought to a multiple of this by zeros, which the kernels like.
pub const STEP: usize = 16;

/// A matrix, and what an adapter adds to it.
pub struct Linear<'a> {
    pub weight: Stored<'a>,
    pub rows: usize,
    pub added: Option<LowRank>,
}

impl<'a> Linear<'a> {
    /// The matrix of the module `name`, `[rows, columns]`.
    pub fn load(loader: &Loader<'a>, name: &str, rows: usize, columns: usize) -> Result<Self> {
        Ok(Self { added: loader.low_rank(name, rows, columns)?, ..Self::plain(loader, name, rows, columns)? })
    }

    /// The same, left as it is by any adapter.
    pub fn plain(loader: &Loader<'a>, name: &str, rows: usize, columns: usize) -> Result<Self> {
        Ok(Self { weight: loader.stored(name, rows, columns)?, rows, added: None })
    }

    /// Some of its rows, in this order.
    pub fn select(&self, ranges: impl IntoIterator<Item = Range<usize>>) -> Result<Self> {
        let ranges: Vec<_> = ranges.into_iter().collect();
        let rows = |added: &LowRank| LowRank {
            rank: added.rank,
            a: added.a.clone(),
            b: ranges
                .iter()
                .flat_map(|it| &added.b[it.start * added.rank..it.end * added.rank])
                .copied()
                .collect(),
        };
        let added = self.added.as_ref().map(rows);
        let rows = ranges.iter().map(ExactSizeIterator::len).sum();
        Ok(Self { weight: self.weight.select(ranges)?, rows, added })
    }
}

/// `b · (a · x)` for all modules of a projection at once: their a one below the other, their b along the
/// diagonal.
#[derive(Debug)]
pub struct Delta(Parts);

/// What an adapter adds to the matrices of several experts, by MLX's own operations.
#[derive(Debug)]
pub struct ExpertDelta {
    a: Matrix,
    b: Matrix,
}

impl ExpertDelta {
    /// For matrices with so many columns.
    pub fn new(loader: &Loader, added: &LowRank, columns: usize) -> Result<Self> {
        let matrix = |values: &[f32], columns: usize| {
            let shape = vec![values.len() / columns.max(1), columns];
            Matrix::new(&WeightData::Dense { shape, values: Floats::singles(values) }, loader.dtype)
        };
        Ok(Self { a: matrix(&added.a, columns)?, b: matrix(&added.b, added.rank)? })
    }

    /// What is added to [`Matrix::gather`] of the same.
    pub fn gather(&self, x: &Array, chosen: &Array, experts: i32) -> Result<Array> {
        self.b.gather(&self.a.gather(x, chosen, experts)?, chosen, experts)
    }

    /// The arrays to evaluate at load.
    pub fn arrays(&self) -> Vec<&Array> {
        self.a.arrays().into_iter().chain(self.b.arrays()).collect()
    }
}

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
    /// What an adapter adds to these matrices, which share an input; `None` if it leaves them as they are.
    pub fn of(loader: &Loader, parts: &[Linear]) -> Result<Option<Self>> {
        let added = || parts.iter().filter_map(|part| part.added.as_ref());
        let rank: usize = added().map(|part| part.rank).sum();
        let Some(columns) = added().next().map(|part| part.a.len() / part.rank.max(1)) else {
            return Ok(None);
        };
        let rows: Vec<usize> = parts.iter().map(|part| part.rows).collect();
        let (rank, all_rows) = (rank.next_multiple_of(STEP), rows.iter().sum::<usize>());
        let mut a = Vec::with_capacity(rank * columns);
        let mut b = vec![0.0f32; all_rows * rank];
        let (mut row, mut column) = (0, 0);
        for (part, rows) in parts.iter().zip(rows) {
            if let Some(LowRank { rank: own, a: own_a, b: own_b }) = &part.added {
                a.extend_from_slice(own_a);
                for (index, values) in own_b.chunks_exact(*own).enumerate() {
                    b[(row + index) * rank + column..][..*own].copy_from_slice(values);
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
