//! Blocks of 256 elements, whose groups of 16 or 32 have small scales under common factors
//! (ggml-common.h, `block_q2_K` and the following; `dequantize_row_*` of ggml-quants.c).
//!
//! | type | block | element |
//! | --- | --- | --- |
//! | Q2_K | 16 nibbles of scale and of minimum, 64 bytes of pairs, f16 d, f16 m | d · s · q − m · n |
//! | Q3_K | 32 bytes of high bits, 64 bytes of pairs, 16 scales of 6 bits, f16 d | d · (s − 32) · (q − 4) |
//! | Q4_K | f16 d, f16 m, 8 scales and minima of 6 bits, 128 bytes of nibbles | d · s · q − m · n |
//! | Q5_K | the same with 32 bytes of high bits before the nibbles | d · s · q − m · n |
//! | Q6_K | 128 bytes of nibbles, 64 of high pairs, 16 signed scales, f16 d | d · s · (q − 32) |
//! | IQ4_XS | f16 d, 8 scales of 6 bits, 128 bytes of nibbles | d · (s − 32) · table[q] |

use half::f16;

use super::{GROUP, Unpacker, nibble_words};
use crate::engine::format::ggml_type::GgmlType;
use crate::engine::format::weight::{OUTER, middle, squeeze};

impl Unpacker {
    pub(super) fn push_nested(&mut self, blocks: &[u8]) {
        for block in blocks.chunks_exact(self.kind.block_bytes() as usize) {
            match self.kind {
                GgmlType::Q2_K => self.q2(block),
                GgmlType::Q3_K => self.q3(block),
                GgmlType::Q4_K => self.q4(block),
                GgmlType::Q5_K => self.q5(block),
                GgmlType::Q6_K => self.q6(block),
                _ => self.iq4(block),
            }
        }
    }

    fn q2(&mut self, block: &[u8]) {
        let (scales, rest) = block.split_at(16);
        let (pairs, rest) = rest.split_at(64);
        self.outer.push([half(rest), -half(&rest[2..])]);
        self.inner.extend(scales.iter().map(|byte| [(byte & 15) as i8, (byte >> 4) as i8]));
        for run in 0..OUTER / GROUP {
            self.quants(&pair(pairs, run));
        }
    }

    fn q3(&mut self, block: &[u8]) {
        let (high, rest) = block.split_at(32);
        let (pairs, rest) = rest.split_at(64);
        let (scales, rest) = rest.split_at(12);
        let factor = half(rest);
        self.outer.push([factor, middle(3) * factor]);
        for i in 0..16 {
            let low = scales[i % 8] >> (i / 8 * 4) & 15;
            let scale = (low | (scales[8 + i % 4] >> (i / 4 * 2) & 3) << 4) as i8 - 32;
            self.inner.push([scale, scale]);
        }
        for run in 0..OUTER / GROUP {
            self.quants(&joined(pair(pairs, run), part(high, run, 1), 2));
        }
    }

    fn q4(&mut self, block: &[u8]) {
        self.outer.push([half(block), -half(&block[2..])]);
        self.sixes(&block[4..16]);
        for chunk in block[16..].as_chunks::<32>().0 {
            let mut words = [0; 8];
            for (i, eight) in chunk.as_chunks::<8>().0.iter().enumerate() {
                let bytes = u64::from_le_bytes(*eight);
                words[i] = squeeze(bytes & 0x0f0f_0f0f_0f0f_0f0f, 4) as u32;
                words[i + 4] = squeeze(bytes >> 4 & 0x0f0f_0f0f_0f0f_0f0f, 4) as u32;
            }
            self.packed.extend_from_slice(&words);
        }
    }

    fn q5(&mut self, block: &[u8]) {
        self.outer.push([half(block), -half(&block[2..])]);
        self.sixes(&block[4..16]);
        let (high, nibbles) = block[16..].split_at(32);
        for run in 0..OUTER / GROUP {
            let low = part(&nibbles[run / 2 * 32..], run % 2 * 4, 15);
            self.quants(&joined(low, part(high, run, 1), 4));
        }
    }

    fn q6(&mut self, block: &[u8]) {
        let (low, rest) = block.split_at(128);
        let (high, rest) = rest.split_at(64);
        let (scales, rest) = rest.split_at(16);
        let factor = half(rest);
        self.outer.push([factor, middle(6) * factor]);
        self.inner.extend(scales.iter().map(|&byte| [byte.cast_signed(); 2]));
        for run in 0..OUTER / GROUP {
            // Each half of the block has runs of 32 in the low nibbles of two times 32 bytes, then in the high ones.
            let (side, at) = (run / 4, run % 4);
            let low = part(&low[side * 64 + at % 2 * 32..], at / 2 * 4, 15);
            self.quants(&joined(low, part(&high[side * 32..], at * 2, 3), 4));
        }
    }

    fn iq4(&mut self, block: &[u8]) {
        let factor = half(block);
        let high = u16::from_le_bytes([block[2], block[3]]);
        for (i, nibbles) in block[8..].as_chunks::<16>().0.iter().enumerate() {
            let low = block[4 + i / 2] >> (i % 2 * 4) & 15;
            let scale = i16::from(low | ((high >> (2 * i) & 3) as u8) << 4) - 32;
            self.scales.extend_from_slice(&(factor * f32::from(scale)).to_le_bytes());
            self.packed.extend_from_slice(&nibble_words(nibbles));
        }
    }

    /// Eight scales and eight minima of six bits: four bytes whose low six bits are the first scales,
    /// four of minima, and four whose nibbles, with the pairs left over, are the last of both.
    fn sixes(&mut self, bytes: &[u8]) {
        for i in 0..8 {
            let (scale, minimum) = if i < 4 {
                (bytes[i] & 63, bytes[4 + i] & 63)
            } else {
                let nibbles = bytes[4 + i];
                (nibbles & 15 | bytes[i - 4] >> 6 << 4, nibbles >> 4 | bytes[i] >> 6 << 4)
            };
            self.inner.push([scale as i8, minimum as i8]);
        }
    }
}

/// The first 32 bytes, shifted and masked.
fn part(bytes: &[u8], shift: usize, mask: u8) -> [u8; GROUP] {
    let mut parts = [0; GROUP];
    for (part, byte) in parts.iter_mut().zip(bytes) {
        *part = byte >> shift & mask;
    }
    parts
}

/// Each with its higher bits.
fn joined(mut low: [u8; GROUP], high: [u8; GROUP], shift: usize) -> [u8; GROUP] {
    for (low, high) in low.iter_mut().zip(high) {
        *low |= high << shift;
    }
    low
}

/// Two bits of the elements of a run: 32 bytes hold four runs of 32 elements, the first in their lowest bits.
fn pair(pairs: &[u8], run: usize) -> [u8; GROUP] {
    part(&pairs[run / 4 * 32..], run % 4 * 2, 3)
}

fn half(bytes: &[u8]) -> f32 {
    f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()
}
