//! Tables of embeddings. A dense one stays in its file, and rows are fetched when they are first needed:
//! a few texts need a few rows of the tens of thousands, which are half of a small model's bytes.

use std::sync::Arc;

use crate::engine::failure::no_embedding;
use crate::engine::format::tensors::{Tensor, Tensors};
use crate::engine::format::weight::{CodeTable, FloatType, Floats, OUTER, WeightData, quant_at};
use crate::error::{Error, Result};

/// Rows by id.
pub struct Table(Rows);

enum Rows {
    /// Looked at, not loaded.
    Unloaded,
    Lazy(Lazy),
    Packed(Packed),
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

/// Packed numbers, an element being `scale * q + bias`, or `scale * table[q]`.
struct Packed {
    rows: usize,
    columns: usize,
    group: usize,
    bits: usize,
    words: Vec<u32>,
    scales: Vec<f32>,
    biases: Vec<f32>,
    table: Option<CodeTable>,
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
        let packed = match weight {
            WeightData::Dense { .. } => return None,
            WeightData::Affine { rows, columns, group, bits, packed: words, scales, biases } => {
                let (scales, biases) = (scales.to_f32(), biases.to_f32());
                Packed { rows, columns, group, bits, words, scales, biases, table: None }
            }
            WeightData::Nested { rows, columns, group, bits, packed: words, outer, inner } => {
                let each = (OUTER / group).max(1);
                let of = |part: usize| -> Vec<f32> {
                    let numbers = inner.iter().enumerate();
                    numbers.map(|(at, inner)| outer[at / each][part] * f32::from(inner[part])).collect()
                };
                Packed { rows, columns, group, bits, scales: of(0), biases: of(1), words, table: None }
            }
            WeightData::Codes { rows, columns, group, table, packed: words, scales } => {
                let (scales, biases) = (scales.to_f32(), Vec::new());
                Packed { rows, columns, group, bits: table.bits(), words, scales, biases, table: Some(table) }
            }
        };
        Some(Self(Rows::Packed(packed)))
    }

    /// Writes the row of `id`.
    pub fn read(&mut self, id: usize, to: &mut [f32]) -> Result<()> {
        match &mut self.0 {
            Rows::Lazy(lazy) if id < lazy.rows => lazy.read(id, to),
            Rows::Packed(packed) if id < packed.rows => {
                packed.read(id, to);
                Ok(())
            }
            Rows::Lazy(Lazy { rows, .. }) | Rows::Packed(Packed { rows, .. }) => {
                Err(no_embedding(u32::try_from(id).unwrap_or(u32::MAX), *rows))
            }
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

impl Packed {
    fn read(&self, id: usize, to: &mut [f32]) {
        let words_each = self.columns * self.bits / 32;
        let words = &self.words[id * words_each..][..words_each];
        let groups = self.columns / self.group;
        for (column, value) in to.iter_mut().enumerate() {
            let quant = quant_at(words, self.bits, column);
            let group = id * groups + column / self.group;
            *value = match self.table {
                Some(table) => self.scales[group] * table.number(quant),
                None => self.scales[group] * f32::from(quant) + self.biases[group],
            };
        }
    }
}
