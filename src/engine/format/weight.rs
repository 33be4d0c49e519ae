//! The content of one weight, independent of the file format it came from.

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
