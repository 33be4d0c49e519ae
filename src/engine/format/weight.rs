//! The content of one weight, independent of the file format it came from.

use half::slice::HalfFloatSliceExt as _;
use half::{bf16, f16};

use crate::engine::format::block_float;

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

/// How a row lies in a file from which the kernels read it as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowType {
    Floats(FloatType),
    /// GGUF's Q8_0: a float16 scale and 32 signed bytes, which are multiplied with it, again and again.
    Q8,
}

/// Elements and bytes of a block of [`RowType::Q8`].
pub const Q8_BLOCK: (usize, usize) = (32, 34);

impl RowType {
    /// Bytes of a row of so many columns, which are whole blocks.
    pub fn bytes(self, columns: usize) -> usize {
        match self {
            Self::Floats(float) => columns * float.size(),
            Self::Q8 => columns / Q8_BLOCK.0 * Q8_BLOCK.1,
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
    /// A matrix whose groups' scales are themselves quantized, as in the K types of GGUF: an element is
    /// `(factor * scale) * q + (base * offset)`. Each [`OUTER`] consecutive elements of a row have one
    /// `[factor, base]`, each `group` of them one `[scale, offset]`; `q` is packed as in `Affine`.
    Nested {
        rows: usize,
        columns: usize,
        group: usize,
        bits: usize,
        packed: Vec<u32>,
        /// `[factor, base]`, `columns / OUTER` a row.
        outer: Vec<[f32; 2]>,
        /// `[scale, offset]`, `columns / group` a row.
        inner: Vec<[i8; 2]>,
    },
    /// A matrix of codes of four or eight bits: an element is `scale * table[code]`, one scale for each
    /// `group` of a row. The first code of a word is in its lowest bits.
    Codes { rows: usize, columns: usize, group: usize, table: CodeTable, packed: Vec<u32>, scales: Floats },
}

/// Elements that share the outer factors of [`WeightData::Nested`].
pub const OUTER: usize = 256;

/// What codes stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CodeTable {
    /// `kvalues_iq4nl` of ggml-common.h: steps that grow with the distance from zero.
    Iq4,
    /// Twice the numbers of the four-bit float e2m1 (OCP Microscaling Formats 1.0): `kvalues_mxfp4`.
    Fp4,
    /// The eight-bit float e4m3 (the same), whose codes 0x7f and 0xff are no numbers.
    Fp8,
}

/// The numbers of [`CodeTable::Iq4`] and [`CodeTable::Fp4`].
pub const IQ4: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];
pub const FP4: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

impl CodeTable {
    /// Bits of a code.
    pub const fn bits(self) -> usize {
        match self {
            Self::Iq4 | Self::Fp4 => 4,
            Self::Fp8 => 8,
        }
    }

    /// The number of a code, of which the bits beyond the code's own do not count.
    pub fn number(self, code: u8) -> f32 {
        match self {
            Self::Iq4 => f32::from(IQ4[usize::from(code & 15)]),
            Self::Fp4 => f32::from(FP4[usize::from(code & 15)]),
            Self::Fp8 => block_float::e4m3(code),
        }
    }
}

impl WeightData {
    /// Bytes that it takes as it is.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Dense { values, .. } => values.bytes.len(),
            Self::Affine { packed, scales, biases, .. } => {
                packed.len() * 4 + scales.bytes.len() + biases.bytes.len()
            }
            Self::Nested { packed, outer, inner, .. } => packed.len() * 4 + outer.len() * 8 + inner.len() * 2,
            Self::Codes { packed, scales, .. } => packed.len() * 4 + scales.bytes.len(),
        }
    }

    /// Rows and columns of a matrix; of a vector or another tensor none.
    pub fn matrix_shape(&self) -> Option<(usize, usize)> {
        match self {
            Self::Dense { shape, .. } => match shape[..] {
                [rows, columns] => Some((rows, columns)),
                _ => None,
            },
            Self::Affine { rows, columns, .. }
            | Self::Nested { rows, columns, .. }
            | Self::Codes { rows, columns, .. } => Some((*rows, *columns)),
        }
    }
}

/// Quant `column` of a row packed as consecutive bits.
pub fn quant_at(words: &[u32], bits: usize, column: usize) -> u8 {
    let (at, shift) = (column * bits / 32, column * bits % 32);
    let low = words[at] >> shift;
    let high = if shift + bits > 32 { words[at + 1] << (32 - shift) } else { 0 };
    ((low | high) & ((1 << bits) - 1)) as u8
}

/// Appends quants of `bits` bits each, a multiple of eight of them, which fill whole words together.
pub fn pack_quants(quants: &[u8], bits: usize, words: &mut Vec<u32>) {
    let (mut buffer, mut held) = (0u128, 0);
    for eight in quants.as_chunks().0 {
        buffer |= u128::from(squeeze(u64::from_le_bytes(*eight), bits)) << held;
        held += 8 * bits;
        while held >= 32 {
            words.push(buffer as u32);
            buffer >>= 32;
            held -= 32;
        }
    }
}

/// The lowest bits of eight bytes, whose other bits are 0, side by side.
pub fn squeeze(bytes: u64, bits: usize) -> u64 {
    let (low, high) = (bytes & 0x00ff_00ff_00ff_00ff, bytes >> 8 & 0x00ff_00ff_00ff_00ff);
    let pairs = low | high << bits;
    let (low, high) = (pairs & 0x0000_ffff_0000_ffff, pairs >> 16 & 0x0000_ffff_0000_ffff);
    let fours = low | high << (2 * bits);
    fours & 0xffff_ffff | fours >> 32 << (4 * bits)
}

/// The bias of quants with as many values below zero as from zero on, if their scale is one.
pub fn middle(bits: usize) -> f32 {
    -f32::from(1_u8 << (bits - 1))
}

/// The bytes of numbers.
fn little_endian<const SIZE: usize>(numbers: impl ExactSizeIterator<Item = [u8; SIZE]>) -> Vec<u8> {
    let mut bytes = vec![0; numbers.len() * SIZE];
    for (to, number) in bytes.as_chunks_mut().0.iter_mut().zip(numbers) {
        *to = number;
    }
    bytes
}

impl Floats {
    /// float32 numbers.
    pub fn singles(values: &[f32]) -> Self {
        Self { dtype: FloatType::F32, bytes: little_endian(values.iter().map(|value| value.to_le_bytes())) }
    }

    /// Numbers of this type, to which each is rounded.
    pub fn of(values: &[f32], dtype: FloatType) -> Self {
        let bytes = match dtype {
            FloatType::F32 => return Self::singles(values),
            FloatType::F16 => {
                let mut narrow = vec![f16::ZERO; values.len()];
                narrow.convert_from_f32_slice(values);
                little_endian(narrow.iter().map(|value| value.to_le_bytes()))
            }
            FloatType::BF16 => little_endian(values.iter().map(|&value| bf16::from_f32(value).to_le_bytes())),
        };
        Self { dtype, bytes }
    }

    /// The values as float32, which holds all of them exactly.
    pub fn to_f32(&self) -> Vec<f32> {
        match self.dtype {
            FloatType::F32 => self.bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            FloatType::F16 => {
                let narrow: Vec<f16> =
                    self.bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b)).collect();
                narrow.to_f32_vec()
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
