//! Weights that are packed while they are read, by MLX's own quantization: what mlx-lm's converter gives
//! for the same model.

use mlx_rs::{Array, Dtype, ops};

use crate::engine::config::{Affine, Packing};
use crate::engine::ffi::{array, quantized};
use crate::engine::format::weight::{FloatType, Floats, WeightData};
use crate::error::{Error, Result};

/// Takes the rows of a matrix piece by piece, so that it is never in memory as a whole.
pub struct Quantizer {
    packing: Packing,
    dtype: FloatType,
    columns: usize,
    rows: usize,
    packed: Vec<u32>,
    scales: Vec<f32>,
    /// Of affine packings.
    biases: Vec<f32>,
    is_finite: bool,
}

impl Quantizer {
    /// For `rows` rows of `columns` numbers of this type, whose groups fill the row.
    pub fn new(packing: Packing, dtype: FloatType, [rows, columns]: [usize; 2]) -> Self {
        let groups = rows * columns / packing.group();
        Self {
            packing,
            dtype,
            columns,
            rows: 0,
            packed: Vec::with_capacity(rows * columns * packing.bits() / 32),
            scales: Vec::with_capacity(groups),
            biases: Vec::with_capacity(if packing.is_affine() { groups } else { 0 }),
            is_finite: true,
        }
    }

    /// Adds whole rows as they lie in the file.
    pub fn push(&mut self, bytes: &[u8]) -> Result<()> {
        let values = Floats { dtype: self.dtype, bytes: bytes.to_vec() };
        self.is_finite &= values.all_finite();
        let rows = bytes.len() / (self.columns * self.dtype.size()).max(1);
        let dense = array::from_floats(&values, &[rows, self.columns])?;
        match self.packing {
            Packing::Affine(Affine { group, bits }) => {
                let (packed, scales, biases) = ops::quantize(&dense, group as i32, bits as i32)?;
                self.packed.extend(words(&packed)?);
                self.scales.extend(singles(&scales)?);
                self.biases.extend(singles(&biases)?);
            }
            Packing::BlockFloat(mode) => {
                let [packed, scales] = quantized::pack(mode, &dense)?;
                self.packed.extend(words(&packed)?);
                let bytes = scales.to_vec_exact::<u8>().map_err(lost)?;
                self.scales.extend(bytes.into_iter().map(|byte| mode.scale(byte)));
            }
        }
        self.rows += rows;
        Ok(())
    }

    /// The packed matrix; `None` if a number was infinite or none.
    pub fn finish(self) -> Option<WeightData> {
        let Self { packing, dtype, columns, rows, packed, scales, biases, .. } = self;
        let is_finite = self.is_finite && scales.iter().chain(&biases).all(|value| value.is_finite());
        is_finite.then(|| match packing {
            Packing::Affine(Affine { group, bits }) => WeightData::Affine {
                rows,
                columns,
                group,
                bits,
                packed,
                scales: Floats::of(&scales, dtype),
                biases: Floats::of(&biases, dtype),
            },
            Packing::BlockFloat(mode) => WeightData::Codes {
                rows,
                columns,
                group: mode.group(),
                table: mode.table(),
                packed,
                scales: Floats::singles(&scales),
            },
        })
    }
}

fn words(packed: &Array) -> Result<Vec<u32>> {
    packed.to_vec_exact::<u32>().map_err(lost)
}

/// Scales or biases, whose type float32 holds exactly.
fn singles(values: &Array) -> Result<Vec<f32>> {
    values.as_dtype(Dtype::Float32)?.to_vec_exact::<f32>().map_err(lost)
}

fn lost(error: impl std::fmt::Display) -> Error {
    Error::internal(format!("MLX: {error}"))
}
