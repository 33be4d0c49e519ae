//! The content of one weight, independent of the file format it came from.

use half::{bf16, f16};

/// Element types that the engine computes with or unpacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FloatType {
    F32,
    F16,
    BF16,
}

impl FloatType {
    /// Bytes an element.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
        }
    }
}

/// Little-endian floats as they lie in the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Floats {
    pub dtype: FloatType,
    pub bytes: Vec<u8>,
}

/// One weight read into memory.
#[derive(Debug, Clone, PartialEq)]
pub enum WeightData {
    /// Row-major floats of this shape (outermost dimension first).
    Dense { shape: Vec<usize>, values: Floats },
    /// A matrix `[rows, columns]` in MLX's affine form: each row's groups of `group` consecutive
    /// elements have one scale and one bias, an element is `scale * q + bias`; `q` has `bits` bits,
    /// packed little-endian into consecutive `u32` words of the row (an element may straddle words when `bits` does not divide 32).
    /// Shapes: packed `[rows, columns * bits / 32]`, scales and biases `[rows, columns / group]`.
    Affine {
        rows: usize,
        columns: usize,
        group: usize,
        bits: usize,
        packed: Vec<u32>,
        scales: Floats,
        biases: Floats,
    },
}

impl Floats {
    /// The values as float32, which holds all of them exactly.
    pub fn to_f32(&self) -> Vec<f32> {
        match self.dtype {
            FloatType::F32 => self.bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            FloatType::F16 => {
                self.bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect()
            }
            FloatType::BF16 => {
                self.bytes.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect()
            }
        }
    }

    /// Whether no value is infinite or not a number.
    pub fn all_finite(&self) -> bool {
        // The exponent bits of infinities and NaNs are all ones.
        let finite = |bits: u16, exponent: u16| bits & exponent != exponent;
        match self.dtype {
            FloatType::F32 => {
                self.bytes.as_chunks::<4>().0.iter().all(|b| f32::from_le_bytes(*b).is_finite())
            }
            FloatType::F16 => {
                self.bytes.as_chunks::<2>().0.iter().all(|b| finite(u16::from_le_bytes(*b), 0x7c00))
            }
            FloatType::BF16 => {
                self.bytes.as_chunks::<2>().0.iter().all(|b| finite(u16::from_le_bytes(*b), 0x7f80))
            }
        }
    }
}
