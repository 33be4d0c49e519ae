//! GGUF's blocks in MLX's affine form, value for value.
//!
//! A block holds 32 consecutive elements of a row (ggml-common.h, `block_q4_0`, `block_q4_1`,
//! `block_q8_0`); all numbers are little-endian:
//!
//! | type | block | element |
//! | --- | --- | --- |
//! | Q4_0 | f16 d, 16 bytes of nibbles | d · (q − 8) |
//! | Q4_1 | f16 d, f16 m, 16 bytes of nibbles | d · q + m |
//! | Q8_0 | f16 d, 32 signed bytes | d · q |
//!
//! Low nibbles are elements 0 to 15, high ones 16 to 31. In the affine form `q` is unsigned, so the
//! bias is m, −8 d, or −128 d.

use half::f16;

use crate::engine::format::ggml_type::GgmlType;
use crate::engine::format::weight::{FloatType, Floats};

/// Elements a block.
pub const GROUP: usize = 32;

/// A packed matrix: the words of all rows, one scale and bias a block.
pub struct Unpacked {
    pub bits: usize,
    pub packed: Vec<u32>,
    pub scales: Floats,
    pub biases: Floats,
}

/// Why a tensor's blocks cannot be unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The type has no affine form here.
    Type,
    /// A scale or offset is infinite or not a number.
    NotFinite,
}

/// Whether [`Unpacker`] knows the type.
pub fn is_affine(kind: GgmlType) -> bool {
    matches!(kind, GgmlType::Q4_0 | GgmlType::Q4_1 | GgmlType::Q8_0)
}

/// Takes a tensor's blocks piece by piece, so that a large tensor is never in memory twice.
pub struct Unpacker {
    kind: GgmlType,
    packed: Vec<u32>,
    scales: Vec<u8>,
    biases: Vec<u8>,
}

impl Unpacker {
    /// For a tensor of this many blocks.
    pub fn new(kind: GgmlType, blocks: usize) -> Result<Self, Fault> {
        let words = match kind {
            GgmlType::Q4_0 | GgmlType::Q4_1 => 4,
            GgmlType::Q8_0 => 8,
            _ => return Err(Fault::Type),
        };
        let biases = if kind == GgmlType::Q4_1 { blocks * 2 } else { 0 };
        Ok(Self {
            kind,
            packed: Vec::with_capacity(blocks * words),
            scales: Vec::with_capacity(blocks * 2),
            biases: Vec::with_capacity(biases),
        })
    }

    /// Adds whole blocks.
    pub fn push(&mut self, blocks: &[u8]) {
        match self.kind {
            GgmlType::Q4_1 => {
                for block in blocks.as_chunks::<20>().0 {
                    self.scales.extend_from_slice(&block[..2]);
                    self.biases.extend_from_slice(&block[2..4]);
                    self.packed.extend_from_slice(&nibble_words(&block[4..]));
                }
            }
            GgmlType::Q8_0 => {
                for block in blocks.as_chunks::<34>().0 {
                    self.scales.extend_from_slice(&block[..2]);
                    self.packed.extend_from_slice(&byte_words(&block[2..]));
                }
            }
            _ => {
                for block in blocks.as_chunks::<18>().0 {
                    self.scales.extend_from_slice(&block[..2]);
                    self.packed.extend_from_slice(&nibble_words(&block[2..]));
                }
            }
        }
    }

    /// Scales and biases are float16 as in the file, or float32 if a bias would not be exact in float16.
    pub fn finish(self) -> Result<Unpacked, Fault> {
        let half = |bytes| Floats { dtype: FloatType::F16, bytes };
        let scales = half(self.scales);
        if !scales.all_finite() {
            return Err(Fault::NotFinite);
        }
        match self.kind {
            GgmlType::Q4_1 => {
                let biases = half(self.biases);
                let is_finite = biases.all_finite();
                let unpacked = Unpacked { bits: 4, packed: self.packed, scales, biases };
                if is_finite { Ok(unpacked) } else { Err(Fault::NotFinite) }
            }
            GgmlType::Q8_0 => Ok(affine_from_zero(8, self.packed, scales, -128.0)),
            _ => Ok(affine_from_zero(4, self.packed, scales, -8.0)),
        }
    }
}

/// A matrix whose bias is the scale times `zero`, a negative power of two: exact unless it overflows.
fn affine_from_zero(bits: usize, packed: Vec<u32>, scales: Floats, zero: f32) -> Unpacked {
    let wide = scales.to_f32();
    let exact: Vec<f32> = wide.iter().map(|scale| scale * zero).collect();
    let narrow: Vec<f16> = exact.iter().map(|&bias| f16::from_f32(bias)).collect();
    let is_exact =
        narrow.iter().zip(&exact).all(|(narrow, exact)| narrow.to_f32().to_bits() == exact.to_bits());
    if is_exact {
        let bytes = narrow.iter().flat_map(|bias| bias.to_le_bytes()).collect();
        let biases = Floats { dtype: FloatType::F16, bytes };
        return Unpacked { bits, packed, scales, biases };
    }
    Unpacked { bits, packed, scales: singles(&wide), biases: singles(&exact) }
}

/// Four words of eight nibbles each, from 16 bytes that hold element i low and element i + 16 high.
fn nibble_words(bytes: &[u8]) -> [u32; 4] {
    let (halves, _) = bytes.as_chunks::<8>();
    let mut words = [0; 4];
    for (i, half) in halves.iter().take(2).enumerate() {
        let pairs = u64::from_le_bytes(*half);
        words[i] = squeeze(pairs & 0x0f0f_0f0f_0f0f_0f0f);
        words[i + 2] = squeeze((pairs >> 4) & 0x0f0f_0f0f_0f0f_0f0f);
    }
    words
}

/// The low nibbles of eight bytes, side by side.
fn squeeze(bytes: u64) -> u32 {
    let pairs = (bytes | bytes >> 4) & 0x00ff_00ff_00ff_00ff;
    let quads = (pairs | pairs >> 8) & 0x0000_ffff_0000_ffff;
    (quads | quads >> 16) as u32
}

/// Eight words of four bytes, from 32 signed bytes shifted by 128: that flips each top bit.
fn byte_words(bytes: &[u8]) -> [u32; 8] {
    let (words, _) = bytes.as_chunks::<4>();
    let mut shifted = [0; 8];
    for (to, from) in shifted.iter_mut().zip(words) {
        *to = u32::from_le_bytes(*from) ^ 0x8080_8080;
    }
    shifted
}

fn singles(values: &[f32]) -> Floats {
    let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Floats { dtype: FloatType::F32, bytes }
}
