//! GGUF's blocks in forms that matrices are computed with, value for value.
//!
//! A block holds 32 consecutive elements of a row (ggml-common.h, `block_q4_0` and the following), those
//! of the K types and IQ4_XS 256 (see [`nested`]); all numbers are little-endian:
//!
//! | type | block | element | form |
//! | --- | --- | --- | --- |
//! | Q4_0 | f16 d, 16 bytes of nibbles | d · (q − 8) | affine, 4 bits |
//! | Q4_1 | f16 d, f16 m, 16 bytes of nibbles | d · q + m | affine, 4 bits |
//! | Q5_0 | f16 d, 32 high bits, 16 bytes of nibbles | d · (q − 16) | affine, 5 bits |
//! | Q5_1 | f16 d, f16 m, 32 high bits, 16 bytes of nibbles | d · q + m | affine, 5 bits |
//! | Q8_0 | f16 d, 32 signed bytes | d · q | affine, 8 bits |
//! | IQ4_NL | f16 d, 16 bytes of nibbles | d · table[q] | codes |
//! | MXFP4 | exponent, 16 bytes of nibbles | 2^(exponent − 128) · table[q] | codes |
//!
//! Low nibbles are elements 0 to 15, high ones 16 to 31. In the affine form `q` is unsigned, so the
//! bias is m, or −8 d, −16 d, −128 d.

mod nested;

use half::f16;

use crate::engine::format::block_float::BlockFloat;
use crate::engine::format::ggml_type::GgmlType;
use crate::engine::format::weight::{CodeTable, FloatType, Floats, WeightData, middle, pack_quants, squeeze};

/// Elements that share a scale in the affine forms and the codes.
pub const GROUP: usize = 32;

/// Why a tensor's blocks cannot be unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The type is not known here.
    Type,
    /// A scale or offset is infinite or not a number.
    NotFinite,
}

/// The form that a type's blocks are unpacked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// MLX's affine form with groups of 32. Symmetric ones have a bias that is always the same multiple of the
    /// scale.
    Affine { bits: usize, symmetric: bool },
    /// Scales that are quantized themselves, in blocks of 256.
    Nested { bits: usize, group: usize, symmetric: bool },
    /// Four-bit codes with groups of 32.
    Codes(CodeTable),
}

impl Form {
    /// The form of a block type; `None` for types without blocks, and for those not known here.
    pub fn of(kind: GgmlType) -> Option<Self> {
        Some(match kind {
            GgmlType::Q4_0 => Self::Affine { bits: 4, symmetric: true },
            GgmlType::Q4_1 => Self::Affine { bits: 4, symmetric: false },
            GgmlType::Q5_0 => Self::Affine { bits: 5, symmetric: true },
            GgmlType::Q5_1 => Self::Affine { bits: 5, symmetric: false },
            GgmlType::Q8_0 => Self::Affine { bits: 8, symmetric: true },
            GgmlType::Q2_K => Self::Nested { bits: 2, group: 16, symmetric: false },
            GgmlType::Q3_K => Self::Nested { bits: 3, group: 16, symmetric: true },
            GgmlType::Q4_K => Self::Nested { bits: 4, group: 32, symmetric: false },
            GgmlType::Q5_K => Self::Nested { bits: 5, group: 32, symmetric: false },
            GgmlType::Q6_K => Self::Nested { bits: 6, group: 16, symmetric: true },
            GgmlType::IQ4_NL | GgmlType::IQ4_XS => Self::Codes(CodeTable::Iq4),
            GgmlType::MXFP4 => Self::Codes(CodeTable::Fp4),
            _ => return None,
        })
    }
}

/// Takes a tensor's blocks piece by piece, so that a large tensor is never in memory twice.
pub struct Unpacker {
    kind: GgmlType,
    form: Form,
    packed: Vec<u32>,
    /// As in the file; float32 for IQ4_XS and MXFP4.
    scales: Vec<u8>,
    biases: Vec<u8>,
    outer: Vec<[f32; 2]>,
    inner: Vec<[i8; 2]>,
}

impl Unpacker {
    /// For a tensor of this many blocks.
    pub fn new(kind: GgmlType, blocks: usize) -> Result<Self, Fault> {
        let form = Form::of(kind).ok_or(Fault::Type)?;
        let elements = blocks * kind.block_elements() as usize;
        let mut unpacker = Self {
            kind,
            form,
            packed: Vec::new(),
            scales: Vec::new(),
            biases: Vec::new(),
            outer: Vec::new(),
            inner: Vec::new(),
        };
        match form {
            Form::Affine { bits, symmetric } => {
                unpacker.packed.reserve_exact(elements * bits / 32);
                unpacker.scales.reserve_exact(elements / GROUP * 2);
                if !symmetric {
                    unpacker.biases.reserve_exact(elements / GROUP * 2);
                }
            }
            Form::Nested { bits, group, .. } => {
                unpacker.packed.reserve_exact(elements * bits / 32);
                unpacker.outer.reserve_exact(blocks);
                unpacker.inner.reserve_exact(elements / group);
            }
            Form::Codes(_) => {
                unpacker.packed.reserve_exact(elements / 8);
                unpacker.scales.reserve_exact(elements / GROUP * 4);
            }
        }
        Ok(unpacker)
    }

    /// Adds whole blocks.
    pub fn push(&mut self, blocks: &[u8]) {
        match self.kind {
            GgmlType::Q4_0 | GgmlType::IQ4_NL => {
                for block in blocks.as_chunks::<18>().0 {
                    self.scales.extend_from_slice(&block[..2]);
                    self.packed.extend_from_slice(&nibble_words(&block[2..]));
                }
            }
            GgmlType::Q4_1 => {
                for block in blocks.as_chunks::<20>().0 {
                    self.scales.extend_from_slice(&block[..2]);
                    self.biases.extend_from_slice(&block[2..4]);
                    self.packed.extend_from_slice(&nibble_words(&block[4..]));
                }
            }
            GgmlType::Q5_0 => {
                for block in blocks.as_chunks::<22>().0 {
                    self.scales.extend_from_slice(&block[..2]);
                    self.fives(&block[2..]);
                }
            }
            GgmlType::Q5_1 => {
                for block in blocks.as_chunks::<24>().0 {
                    self.scales.extend_from_slice(&block[..2]);
                    self.biases.extend_from_slice(&block[2..4]);
                    self.fives(&block[4..]);
                }
            }
            GgmlType::Q8_0 => {
                for block in blocks.as_chunks::<34>().0 {
                    self.scales.extend_from_slice(&block[..2]);
                    self.packed.extend_from_slice(&byte_words(&block[2..]));
                }
            }
            GgmlType::MXFP4 => {
                for block in blocks.as_chunks::<17>().0 {
                    self.scales.extend_from_slice(&BlockFloat::Mxfp4.scale(block[0]).to_le_bytes());
                    self.packed.extend_from_slice(&nibble_words(&block[1..]));
                }
            }
            _ => self.push_nested(blocks),
        }
    }

    /// 32 high bits, then 16 bytes of nibbles.
    fn fives(&mut self, block: &[u8]) {
        let (high, nibbles) = block.split_at(4);
        let mut quants = [0; GROUP];
        for (i, byte) in nibbles.iter().take(16).enumerate() {
            quants[i] = byte & 15;
            quants[16 + i] = byte >> 4;
        }
        for (eight, high) in quants.as_chunks_mut::<8>().0.iter_mut().zip(high) {
            let with_high = u64::from_le_bytes(*eight) | spread(*high) << 4;
            *eight = with_high.to_le_bytes();
        }
        self.quants(&quants);
    }

    /// Quants, a byte each.
    fn quants(&mut self, quants: &[u8; GROUP]) {
        let bits = match self.form {
            Form::Affine { bits, .. } | Form::Nested { bits, .. } => bits,
            Form::Codes(table) => table.bits(),
        };
        let words = &mut self.packed;
        // A loop for each, whose shifts are constants.
        match bits {
            3 => pack_quants(quants, 3, words),
            5 => pack_quants(quants, 5, words),
            6 => pack_quants(quants, 6, words),
            other => pack_quants(quants, other, words),
        }
    }

    /// The matrix of the blocks. Scales and biases are float16 as in the file, or float32 where that
    /// would not be exact.
    pub fn finish(self, rows: usize, columns: usize) -> Result<WeightData, Fault> {
        match self.form {
            Form::Affine { bits, symmetric } => {
                let half = |bytes| Floats { dtype: FloatType::F16, bytes };
                let scales = half(self.scales);
                let (scales, biases) =
                    if symmetric { from_zero(scales, middle(bits)) } else { (scales, half(self.biases)) };
                if !(scales.all_finite() && biases.all_finite()) {
                    return Err(Fault::NotFinite);
                }
                let packed = self.packed;
                Ok(WeightData::Affine { rows, columns, group: GROUP, bits, packed, scales, biases })
            }
            Form::Nested { bits, group, .. } => {
                if self.outer.iter().flatten().any(|factor| !factor.is_finite()) {
                    return Err(Fault::NotFinite);
                }
                let Self { packed, outer, inner, .. } = self;
                Ok(WeightData::Nested { rows, columns, group, bits, packed, outer, inner })
            }
            Form::Codes(table) => {
                let dtype = if self.kind == GgmlType::IQ4_NL { FloatType::F16 } else { FloatType::F32 };
                let scales = Floats { dtype, bytes: self.scales };
                if !scales.all_finite() {
                    return Err(Fault::NotFinite);
                }
                Ok(WeightData::Codes { rows, columns, group: GROUP, table, packed: self.packed, scales })
            }
        }
    }
}

/// Scales, and biases that are the scales times `zero`, a negative power of two: exact unless it overflows.
fn from_zero(scales: Floats, zero: f32) -> (Floats, Floats) {
    let wide = scales.to_f32();
    let exact: Vec<f32> = wide.iter().map(|scale| scale * zero).collect();
    if exact.iter().all(|bias| bias.abs() <= f32::from(f16::MAX)) {
        return (scales, Floats::of(&exact, FloatType::F16));
    }
    (Floats::singles(&wide), Floats::singles(&exact))
}

/// Eight bits, each the lowest of a byte, the first one first.
fn spread(bits: u8) -> u64 {
    // Every byte keeps another bit, which then carries into the top one.
    let each = (u64::from(bits) * 0x0101_0101_0101_0101) & 0x8040_2010_0804_0201;
    (each + 0x0040_6070_787c_7e7f) >> 7 & 0x0101_0101_0101_0101
}

/// Four words of eight nibbles each, from 16 bytes that hold element i low and element i + 16 high.
fn nibble_words(bytes: &[u8]) -> [u32; 4] {
    let (halves, _) = bytes.as_chunks::<8>();
    let mut words = [0; 4];
    for (i, half) in halves.iter().take(2).enumerate() {
        let pairs = u64::from_le_bytes(*half);
        words[i] = squeeze(pairs & 0x0f0f_0f0f_0f0f_0f0f, 4) as u32;
        words[i + 2] = squeeze(pairs >> 4 & 0x0f0f_0f0f_0f0f_0f0f, 4) as u32;
    }
    words
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
