//! Rows of packed matrices as the numbers that they stand for.

use crate::engine::format::weight::{CodeTable, Floats, OUTER, WeightData, quant_at};

/// A packed matrix of which rows are read one by one: an element is `scale * q + bias`, or `scale * table[q]`.
pub struct PackedRows {
    rows: usize,
    columns: usize,
    group: usize,
    bits: usize,
    words: Vec<u32>,
    scales: Vec<f32>,
    biases: Vec<f32>,
    table: Option<CodeTable>,
}

impl PackedRows {
    /// `None` for a weight that is not packed.
    pub fn of(weight: WeightData) -> Option<Self> {
        Some(match weight {
            WeightData::Dense { .. } => return None,
            WeightData::Affine { rows, columns, group, bits, packed: words, scales, biases } => {
                let (scales, biases) = (scales.to_f32(), biases.to_f32());
                Self { rows, columns, group, bits, words, scales, biases, table: None }
            }
            WeightData::Nested { rows, columns, group, bits, packed: words, outer, inner } => {
                let each = (OUTER / group).max(1);
                let of = |part: usize| -> Vec<f32> {
                    let numbers = inner.iter().enumerate();
                    numbers.map(|(at, inner)| outer[at / each][part] * f32::from(inner[part])).collect()
                };
                Self { rows, columns, group, bits, scales: of(0), biases: of(1), words, table: None }
            }
            WeightData::Codes { rows, columns, group, table, packed: words, scales } => {
                let (scales, biases) = (scales.to_f32(), Vec::new());
                Self { rows, columns, group, bits: table.bits(), words, scales, biases, table: Some(table) }
            }
        })
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Writes a row, which there is.
    pub fn read(&self, row: usize, to: &mut [f32]) {
        let words_each = self.columns * self.bits / 32;
        let words = &self.words[row * words_each..][..words_each];
        let groups = self.columns / self.group;
        for (group, values) in to.chunks_mut(self.group).enumerate() {
            let (at, first) = (row * groups + group, group * self.group);
            let scale = self.scales[at];
            let Some(table) = self.table else {
                let bias = self.biases[at];
                if self.bits == 8 {
                    for (four, word) in values.chunks_mut(4).zip(&words[first / 4..]) {
                        for (value, quant) in four.iter_mut().zip(word.to_le_bytes()) {
                            *value = scale * f32::from(quant) + bias;
                        }
                    }
                } else {
                    for (i, value) in values.iter_mut().enumerate() {
                        *value = scale * f32::from(quant_at(words, self.bits, first + i)) + bias;
                    }
                }
                continue;
            };
            for (i, value) in values.iter_mut().enumerate() {
                *value = scale * table.number(quant_at(words, self.bits, first + i));
            }
        }
    }
}

/// The weight as plain numbers, float32 where it was packed.
pub fn unpacked(weight: WeightData) -> WeightData {
    if matches!(weight, WeightData::Dense { .. }) {
        return weight;
    }
    let shape = weight.matrix_shape().map_or_else(Vec::new, |(rows, columns)| vec![rows, columns]);
    let columns = shape.last().copied().unwrap_or(1).max(1);
    let mut values = vec![0.0; shape.iter().product()];
    if let Some(packed) = PackedRows::of(weight) {
        for (row, to) in values.chunks_exact_mut(columns).enumerate() {
            packed.read(row, to);
        }
    }
    WeightData::Dense { shape, values: Floats::singles(&values) }
}
