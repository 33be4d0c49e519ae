//! Small floats whose groups share a scale that is a small float as well (OCP Microscaling Formats 1.0,
//! and NVIDIA's NVFP4), as MLX packs them.

use half::f16;

use crate::engine::format::weight::{CodeTable, Floats};

/// MLX's packings of small floats, `mode` in a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BlockFloat {
    /// Four bits, a power of two for each 32.
    Mxfp4,
    /// Eight bits, the same.
    Mxfp8,
    /// Four bits, an eight-bit float for each 16.
    Nvfp4,
}

impl BlockFloat {
    pub const ALL: [Self; 3] = [Self::Mxfp4, Self::Mxfp8, Self::Nvfp4];

    /// What MLX and configurations call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mxfp4 => "mxfp4",
            Self::Mxfp8 => "mxfp8",
            Self::Nvfp4 => "nvfp4",
        }
    }

    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.name() == name)
    }

    /// The packing of codes and groups that MLX has operations for.
    pub fn of_codes(table: CodeTable, group: usize) -> Option<Self> {
        Self::ALL.into_iter().find(|one| (one.table(), one.group()) == (table, group))
    }

    pub fn table(self) -> CodeTable {
        match self {
            Self::Mxfp4 | Self::Nvfp4 => CodeTable::Fp4,
            Self::Mxfp8 => CodeTable::Fp8,
        }
    }

    /// Elements that share a scale.
    pub const fn group(self) -> usize {
        match self {
            Self::Mxfp4 | Self::Mxfp8 => 32,
            Self::Nvfp4 => 16,
        }
    }

    pub fn bits(self) -> usize {
        self.table().bits()
    }

    /// The scales of stored bytes, for numbers of the table; `None` if one is no number.
    pub fn scales(self, bytes: &[u8]) -> Option<Floats> {
        let scales: Vec<f32> = bytes.iter().map(|&byte| self.scale(byte)).collect();
        scales.iter().all(|scale| scale.is_finite()).then(|| Floats::singles(&scales))
    }

    /// The scale that a byte stands for; half of it where the table's numbers are doubled
    /// (`ggml_e8m0_to_fp32_half`).
    pub fn scale(self, byte: u8) -> f32 {
        match self {
            Self::Mxfp4 => 0.5 * e8m0(byte),
            Self::Mxfp8 => e8m0(byte),
            Self::Nvfp4 => 0.5 * e4m3(byte),
        }
    }

    /// The bytes of scales, the other way; `None` where one is no such number.
    pub fn bytes(self, scales: &Floats) -> Option<Vec<u8>> {
        let byte = |scale: f32| match self {
            Self::Mxfp4 => to_e8m0(scale, -1),
            Self::Mxfp8 => to_e8m0(scale, 0),
            Self::Nvfp4 => to_e4m3(2.0 * scale),
        };
        scales.to_f32().into_iter().map(byte).collect()
    }
}

/// 2^(byte - 127); 255 is no number.
pub fn e8m0(byte: u8) -> f32 {
    match byte {
        0 => f32::from_bits(0x0040_0000),
        255 => f32::NAN,
        exponent => f32::from_bits(u32::from(exponent) << 23),
    }
}

/// The byte of `2^shift` times a power of two.
fn to_e8m0(scale: f32, shift: i32) -> Option<u8> {
    // As a double it is not subnormal.
    let bits = f64::from(scale).to_bits();
    let exponent = (bits >> 52) as i32 - 1023 + 127 - shift;
    let is_power = bits & ((1 << 52) - 1) == 0;
    u8::try_from(exponent).ok().filter(|&byte| is_power && byte != 255)
}

/// A sign, four bits of exponent and three of mantissa, without infinities.
pub fn e4m3(byte: u8) -> f32 {
    if byte & 0x7f == 0x7f {
        return f32::NAN;
    }
    // A half float has the same layout with one more bit of exponent, whose bias is 8 larger.
    let half = u16::from(byte & 0x80) << 8 | u16::from(byte & 0x7f) << 7;
    f16::from_bits(half).to_f32() * 256.0
}

fn to_e4m3(value: f32) -> Option<u8> {
    let half = f16::from_f32(value / 256.0).to_bits();
    let byte = (half >> 8 & 0x80) as u8 | (half >> 7 & 0x7f) as u8;
    (e4m3(byte).to_bits() == value.to_bits()).then_some(byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_of_a_scale_comes_back() {
        for mode in BlockFloat::ALL {
            for byte in 0..=255 {
                let Some(scales) = mode.scales(&[byte]) else {
                    assert!(byte == 255 || (mode == BlockFloat::Nvfp4 && byte == 0x7f), "{mode:?} {byte}");
                    continue;
                };
                assert_eq!(mode.bytes(&scales), Some(vec![byte]), "{mode:?}");
            }
        }
        for scale in [0.3, f32::INFINITY, f32::NAN] {
            assert_eq!(BlockFloat::Mxfp4.bytes(&Floats::singles(&[scale])), None, "{scale}");
            assert_eq!(BlockFloat::Nvfp4.bytes(&Floats::singles(&[scale])), None, "{scale}");
        }
    }

    #[test]
    fn numbers_are_those_of_the_formats() {
        assert_eq!((e8m0(127), e8m0(130), e8m0(0)), (1.0, 8.0, 2f32.powi(-127)));
        assert_eq!((e4m3(0x38), e4m3(0x7e), e4m3(0xb8)), (1.0, 448.0, -1.0));
        assert_eq!((e4m3(1), e4m3(8), e4m3(0x80)), (2f32.powi(-9), 2f32.powi(-6), 0.0));
    }
}
