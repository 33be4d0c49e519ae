//! Tables of embeddings. A dense one stays in its file, and rows are fetched when they are first needed:
//! a few texts need a few rows of the tens of thousands, which are half of a small model's bytes.

use std::sync::Arc;

use crate::engine::failure::no_embedding;
use crate::engine::format::rows::PackedRows;
use crate::engine::format::tensors::{Tensor, Tensors};
use crate::engine::format::weight::{FloatType, Floats, WeightData};
use crate::error::{Error, Result};

/// Rows by id.
pub struct Table(Rows);

enum Rows {
    /// Looked at, not loaded.
    Unloaded,
    Lazy(Lazy),
    Packed(PackedRows),
}

/// A dense table in a file, with the rows that were needed so far.
struct Lazy {
    tensors: Arc<Tensors>,
    tensor: Tensor,
    float: FloatType,
    rows: usize,
    columns: usize,
    /// All rows, made when the first one is needed; untouched memory takes none.
    values: Vec<f32>,
    present: Vec<bool>,
}

impl Table {
    pub(super) fn unloaded() -> Self {
        Self(Rows::Unloaded)
    }

    /// `tensor` has at least `rows` rows of `columns` floats.
    pub(super) fn dense(
        tensors: Arc<Tensors>,
        tensor: Tensor,
        float: FloatType,
        rows: usize,
        columns: usize,
    ) -> Self {
        let (values, present) = (Vec::new(), Vec::new());
        Self(Rows::Lazy(Lazy { tensors, tensor, float, rows, columns, values, present }))
    }

    /// `None` for a weight that is not packed.
    pub fn packed(weight: WeightData) -> Option<Self> {
        PackedRows::of(weight).map(|packed| Self(Rows::Packed(packed)))
    }

    /// Writes the row of `id`.
    pub fn read(&mut self, id: usize, to: &mut [f32]) -> Result<()> {
        match &mut self.0 {
            Rows::Lazy(lazy) if id < lazy.rows => lazy.read(id, to),
            Rows::Packed(packed) if id < packed.rows() => {
                packed.read(id, to);
                Ok(())
            }
            Rows::Lazy(Lazy { rows, .. }) => Err(missing(id, *rows)),
            Rows::Packed(packed) => Err(missing(id, packed.rows())),
            Rows::Unloaded => Err(Error::internal("a table that was only looked at")),
        }
    }
}

impl Lazy {
    fn read(&mut self, id: usize, to: &mut [f32]) -> Result<()> {
        if self.values.is_empty() {
            self.values = vec![0.0; self.rows * self.columns];
            self.present = vec![false; self.rows];
        }
        let row = &mut self.values[id * self.columns..][..self.columns];
        if !self.present[id] {
            let size = self.columns * self.float.size();
            let place = Tensor {
                offset: self.tensor.offset + (id * size) as u64,
                bytes: size as u64,
                ..self.tensor.clone()
            };
            let floats = Floats { dtype: self.float, bytes: self.tensors.read(&place)? };
            row.copy_from_slice(&floats.to_f32());
            self.present[id] = true;
        }
        to.copy_from_slice(row);
        Ok(())
    }
}

fn missing(id: usize, rows: usize) -> Error {
    no_embedding(u32::try_from(id).unwrap_or(u32::MAX), rows)
}
