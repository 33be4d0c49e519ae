//! Tables of embeddings. A dense one stays in its file, and rows are fetched when they are first needed:
//! a few texts need a few rows of the tens of thousands, which are half of a small model's bytes.

use std::sync::Arc;

use crate::engine::format::tensors::{Tensor, Tensors};
use crate::engine::format::weight::{FloatType, Floats, WeightData};
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

/// In the affine form of [`WeightData::Affine`].
struct Packed {
    rows: usize,
    columns: usize,
    group: usize,
    bits: usize,
    words: Vec<u32>,
    scales: Vec<f32>,
    biases: Vec<f32>,
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
    pub(super) fn packed(weight: &WeightData) -> Option<Self> {
        let WeightData::Affine { rows, columns, group, bits, packed, scales, biases } = weight else {
            return None;
        };
        Some(Self(Rows::Packed(Packed {
            rows: *rows,
            columns: *columns,
            group: *group,
            bits: *bits,
            words: packed.clone(),
            scales: scales.to_f32(),
            biases: biases.to_f32(),
        })))
    }

    /// Writes the row of `id`.
    pub fn read(&mut self, id: usize, to: &mut [f32]) -> Result<()> {
        match &mut self.0 {
            Rows::Lazy(lazy) if id < lazy.rows => lazy.read(id, to),
            Rows::Packed(packed) if id < packed.rows => {
                packed.read(id, to);
                Ok(())
            }
            Rows::Lazy(Lazy { rows, .. }) | Rows::Packed(Packed { rows, .. }) => Err(Error::new(
                crate::error::Code::IntegrityFailed,
                format!("the tokenizer gives the id {id}, but the model has only {rows} embeddings"),
            )
            .hint("tokenizer and weights do not belong together: get the model again")),
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
        let mask = (1u64 << self.bits) - 1;
        for (column, value) in to.iter_mut().enumerate() {
            let at = column * self.bits;
            let low = u64::from(words[at / 32]);
            let high = words.get(at / 32 + 1).map_or(0, |&word| u64::from(word));
            let quant = (low | high << 32) >> (at % 32) & mask;
            let group = id * groups + column / self.group;
            *value = self.scales[group] * quant as f32 + self.biases[group];
        }
    }
}
