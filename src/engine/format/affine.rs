//! Other packings in MLX's affine form, for the devices where MLX's own operations compute.
//!
//! What has groups of 32 keeps its values: a scale and a bias take the place of two-level ones, and the
//! codes of IQ4 become the quants of 8 bits that its uneven steps need. Small floats are MLX's own if their scales
//! are powers of two; eight-bit ones with other scales are rounded to 8 bits.
//! MLX has no groups of 16: two of them become one of 32 in more bits, rounded to the nearest step.

use crate::engine::format::block_float::{BlockFloat, e4m3};
use crate::engine::format::weight::{CodeTable, Floats, IQ4, OUTER, WeightData, pack_quants, quant_at};

/// The smallest group that MLX has.
const GROUP: usize = 32;

/// Bits that elements of `bits` bits in groups of 16 become in groups of 32, so that the rounding is
/// small beside that of the first quantization.
pub fn widened(bits: usize) -> usize {
    match bits {
        2 => 4,
        3 => 5,
        4 | 5 => 6,
        _ => 8,
    }
}

/// Bits of the numbers of IQ4 as quants, from the least one on.
pub const SPACED_BITS: usize = 8;

/// The weight in a form that MLX computes with; dense and affine ones and small floats stay as they are.
pub fn for_mlx(weight: WeightData) -> WeightData {
    match weight {
        WeightData::Nested { rows, columns, group, bits, packed, outer, inner } if group >= GROUP => {
            let (scales, biases) = flat(columns, group, &outer, &inner);
            let (scales, biases) = (Floats::singles(&scales), Floats::singles(&biases));
            WeightData::Affine { rows, columns, group, bits, packed, scales, biases }
        }
        WeightData::Nested { rows, columns, group, bits, packed, outer, inner } => {
            let (scales, biases) = flat(columns, group, &outer, &inner);
            let value = |row: usize, column: usize| {
                let words = columns * bits / 32;
                let at = row * (columns / group) + column / group;
                let quant = quant_at(&packed[row * words..][..words], bits, column);
                scales[at] * f32::from(quant) + biases[at]
            };
            rounded(rows, columns, widened(bits), value)
        }
        WeightData::Codes { rows, columns, group, table: CodeTable::Iq4, packed, scales } => {
            let (low, bits) = (i16::from(IQ4[0]), SPACED_BITS);
            let mut words = Vec::with_capacity(packed.len() * bits / 4);
            for word in &packed {
                let quant = |i: usize| (i16::from(IQ4[(word >> (4 * i) & 15) as usize]) - low) as u8;
                pack_quants(&std::array::from_fn::<u8, 8, _>(quant), bits, &mut words);
            }
            let biases: Vec<f32> = scales.to_f32().iter().map(|scale| scale * f32::from(low)).collect();
            let scales = Floats::singles(&scales.to_f32());
            let biases = Floats::singles(&biases);
            WeightData::Affine { rows, columns, group, bits, packed: words, scales, biases }
        }
        WeightData::Codes { rows, columns, group, table: CodeTable::Fp8, packed, scales }
            if BlockFloat::Mxfp8.bytes(&scales).is_none() =>
        {
            let (scales, codes) = (scales.to_f32(), bytemuck::cast_slice::<u32, u8>(&packed));
            let value = |row: usize, column: usize| {
                scales[row * (columns / group) + column / group] * e4m3(codes[row * columns + column])
            };
            rounded(rows, columns, 8, value)
        }
        other => other,
    }
}

/// One scale and one bias for each group.
fn flat(columns: usize, group: usize, outer: &[[f32; 2]], inner: &[[i8; 2]]) -> (Vec<f32>, Vec<f32>) {
    let (groups, outers) = (columns / group, columns / OUTER);
    let one = |(at, [scale, offset]): (usize, &[i8; 2])| {
        let [factor, base] = outer[at / groups * outers + at % groups * group / OUTER];
        (factor * f32::from(*scale), base * f32::from(*offset))
    };
    inner.iter().enumerate().map(one).unzip()
}

/// Rounds to the nearest of the steps between the smallest and the largest value of each group of 32.
fn rounded(rows: usize, columns: usize, bits: usize, value: impl Fn(usize, usize) -> f32) -> WeightData {
    let steps = ((1 << bits) - 1) as f32;
    let mut packed = Vec::with_capacity(rows * columns * bits / 32);
    let (mut scales, mut biases) = (Vec::new(), Vec::new());
    for row in 0..rows {
        for first in (0..columns).step_by(GROUP) {
            let values: [f32; GROUP] = std::array::from_fn(|i| value(row, first + i));
            let low = values.iter().copied().fold(f32::INFINITY, f32::min);
            let high = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let scale = (high - low) / steps;
            let quant = |x: f32| if scale > 0.0 { ((x - low) / scale).round().min(steps) as u8 } else { 0 };
            pack_quants(&values.map(quant), bits, &mut packed);
            scales.push(scale);
            biases.push(low);
        }
    }
    let (scales, biases) = (Floats::singles(&scales), Floats::singles(&biases));
    WeightData::Affine { rows, columns, group: GROUP, bits, packed, scales, biases }
}
