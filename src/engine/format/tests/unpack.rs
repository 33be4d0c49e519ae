use half::f16;
use proptest::prelude::*;

use crate::engine::format::affine;
use crate::engine::format::ggml_type::GgmlType;
use crate::engine::format::unpack::{Fault, Form, GROUP, Unpacker};
use crate::engine::format::weight::{FloatType, OUTER, WeightData, pack_quants, quant_at};

/// Unpacks whole blocks as one row.
pub fn unpack(kind: GgmlType, blocks: &[u8]) -> Result<WeightData, Fault> {
    let count = blocks.len() / kind.block_bytes() as usize;
    let mut unpacker = Unpacker::new(kind, count)?;
    unpacker.push(blocks);
    unpacker.finish(1, count * kind.block_elements() as usize)
}

/// The values of a row, by the definition of its form.
pub fn values(weight: &WeightData) -> Vec<f32> {
    match weight {
        WeightData::Dense { values, .. } => values.to_f32(),
        WeightData::Affine { columns, group, bits, packed, scales, biases, .. } => {
            let (scales, biases) = (scales.to_f32(), biases.to_f32());
            let value =
                |i: usize| scales[i / group] * f32::from(quant_at(packed, *bits, i)) + biases[i / group];
            (0..*columns).map(value).collect()
        }
        WeightData::Nested { columns, group, bits, packed, outer, inner, .. } => {
            let value = |i: usize| {
                let ([factor, base], [scale, offset]) = (outer[i / OUTER], inner[i / group]);
                let quant = f32::from(quant_at(packed, *bits, i));
                // Rounded once, like `scale * (q - zero)`.
                (factor * f32::from(scale)).mul_add(quant, base * f32::from(offset))
            };
            (0..*columns).map(value).collect()
        }
        WeightData::Codes { columns, group, table, packed, scales, .. } => {
            let scales = scales.to_f32();
            let value = |i: usize| {
                let code = quant_at(packed, table.bits(), i);
                scales[i / group] * table.number(code)
            };
            (0..*columns).map(value).collect()
        }
    }
}

/// The values of one block, by ggml's definition.
fn reference(kind: GgmlType, block: &[u8]) -> Vec<f32> {
    let half = |at: usize| f16::from_le_bytes([block[at], block[at + 1]]).to_f32();
    let nibble = |from: usize, i: usize| {
        let byte = block[from + i % 16];
        f32::from(if i < 16 { byte & 15 } else { byte >> 4 })
    };
    let element = |i: usize| match kind {
        GgmlType::Q4_0 => half(0) * (nibble(2, i) - 8.0),
        GgmlType::Q4_1 => half(0) * nibble(4, i) + half(2),
        _ => half(0) * f32::from(block[2 + i] as i8),
    };
    (0..32).map(element).collect()
}

const KINDS: [GgmlType; 3] = [GgmlType::Q4_0, GgmlType::Q4_1, GgmlType::Q8_0];

#[allow(clippy::float_cmp)] // exactly equal is what is promised
pub(super) fn same(a: f32, b: f32) -> bool {
    a == b
}

proptest! {
    #[test]
    fn every_block_keeps_its_values_exactly(
        kind in prop::sample::select(KINDS.to_vec()),
        scale in any::<u16>(),
        minimum in any::<u16>(),
        quants in prop::collection::vec(any::<u8>(), 32),
    ) {
        let (scale, minimum) = (f16::from_bits(scale), f16::from_bits(minimum));
        let mut block = scale.to_le_bytes().to_vec();
        if kind == GgmlType::Q4_1 {
            block.extend(minimum.to_le_bytes());
        }
        block.extend(&quants[..kind.block_bytes() as usize - block.len()]);
        let finite = scale.is_finite() && (kind != GgmlType::Q4_1 || minimum.is_finite());
        match unpack(kind, &block) {
            Ok(unpacked) => {
                prop_assert!(finite);
                let expected = reference(kind, &block);
                for (i, (value, expected)) in values(&unpacked).into_iter().zip(expected).enumerate() {
                    prop_assert!(same(value, expected), "element {} is {}, not {}", i, value, expected);
                }
            }
            Err(fault) => {
                prop_assert_eq!(fault, Fault::NotFinite);
                prop_assert!(!finite);
            }
        }
    }
}

fn scales_of(weight: &WeightData) -> (FloatType, FloatType, Vec<f32>) {
    let WeightData::Affine { scales, biases, group: GROUP, .. } = weight else { panic!("not affine") };
    (scales.dtype, biases.dtype, biases.to_f32())
}

#[test]
fn a_bias_too_large_for_float16_makes_the_tensor_float32() {
    let block = |d: f32| [f16::from_f32(d).to_le_bytes().as_slice(), &[0; 32]].concat();
    let small = scales_of(&unpack(GgmlType::Q8_0, &block(511.0)).unwrap());
    assert_eq!(small.1, FloatType::F16);
    let mixed = scales_of(&unpack(GgmlType::Q8_0, &[block(1.0), block(1024.0)].concat()).unwrap());
    assert_eq!(mixed, (FloatType::F32, FloatType::F32, vec![-128.0, -131_072.0]));
}

#[test]
fn an_exponent_that_is_no_number_is_found() {
    let block = |exponent: u8| [&[exponent][..], &[0x77; 16]].concat();
    assert!(unpack(GgmlType::MXFP4, &block(254)).is_ok());
    assert_eq!(unpack(GgmlType::MXFP4, &block(255)).err(), Some(Fault::NotFinite));
}

#[test]
fn infinite_factors_are_found_in_every_type() {
    // Where each type has its half-precision numbers.
    let places: [(GgmlType, &[usize]); 9] = [
        (GgmlType::Q5_0, &[0]),
        (GgmlType::Q5_1, &[0, 2]),
        (GgmlType::Q2_K, &[80, 82]),
        (GgmlType::Q3_K, &[108]),
        (GgmlType::Q4_K, &[0, 2]),
        (GgmlType::Q5_K, &[0, 2]),
        (GgmlType::Q6_K, &[208]),
        (GgmlType::IQ4_NL, &[0]),
        (GgmlType::IQ4_XS, &[0]),
    ];
    for (kind, places) in places {
        for &at in places {
            for bits in [0x7c00_u16, 0xfc00, 0x7e00] {
                let mut block = vec![0; kind.block_bytes() as usize];
                block[at..at + 2].copy_from_slice(&bits.to_le_bytes());
                assert_eq!(unpack(kind, &block).err(), Some(Fault::NotFinite), "{} {at}", kind.name());
            }
        }
    }
}

#[test]
fn other_types_have_no_form() {
    for kind in [GgmlType::TQ1_0, GgmlType::IQ2_XXS, GgmlType::Q8_K, GgmlType::F16] {
        let block = vec![0; kind.block_bytes() as usize];
        assert_eq!(unpack(kind, &block).err(), Some(Fault::Type), "{}", kind.name());
    }
}

proptest! {
    /// MLX's form keeps the values where it has the groups for them, and rounds to within half a step
    /// of its own where it does not.
    #[test]
    fn the_form_for_mlx_is_exact_or_near(
        kind in prop::sample::select(vec![
            GgmlType::Q2_K, GgmlType::Q3_K, GgmlType::Q4_K, GgmlType::Q5_K, GgmlType::Q6_K,
            GgmlType::IQ4_NL, GgmlType::IQ4_XS, GgmlType::MXFP4,
        ]),
        bytes in prop::collection::vec(any::<u8>(), 210),
    ) {
        let mut block = bytes[..kind.block_bytes() as usize].to_vec();
        let halves: &[usize] = match kind {
            GgmlType::Q2_K => &[80, 82],
            GgmlType::Q3_K => &[108],
            GgmlType::Q4_K | GgmlType::Q5_K => &[0, 2],
            GgmlType::Q6_K => &[208],
            GgmlType::MXFP4 => &[],
            _ => &[0],
        };
        for &at in halves {
            // Finite and of ordinary size.
            block[at + 1] = 0x20 | block[at + 1] & 0x9f;
        }
        if kind == GgmlType::MXFP4 {
            block[0] = block[0].clamp(100, 150);
        }
        let weight = unpack(kind, &block).unwrap();
        let exact = values(&weight);
        let is_rounded = matches!(Form::of(kind), Some(Form::Nested { group: 16, .. }));
        let converted = affine::for_mlx(weight);
        let bits = match converted {
            WeightData::Affine { bits, group: 32, .. } => bits,
            WeightData::Codes { group: 32, .. } if kind == GgmlType::MXFP4 => 4,
            _ => panic!("no form of MLX's"),
        };
        for (group, found) in exact.chunks(32).zip(values(&converted).chunks(32)) {
            let (low, high) = group.iter().fold((f32::MAX, f32::MIN), |(l, h), &x| (l.min(x), h.max(x)));
            let largest = low.abs().max(high.abs());
            // Two roundings of float32 in the affine form, on numbers up to the bias.
            let step = if is_rounded { 0.51 * (high - low) / ((1 << bits) - 1) as f32 } else { 0.0 };
            for (exact, found) in group.iter().zip(found) {
                prop_assert!((exact - found).abs() <= step + largest * 4e-7 + 1e-30, "{} for {}", found, exact);
            }
        }
    }
}

proptest! {
    #[test]
    fn packed_quants_are_found_where_they_are(
        bits in prop::sample::select(vec![2_usize, 3, 4, 5, 6, 8]),
        bytes in prop::collection::vec(any::<u8>(), 96),
    ) {
        let quants: Vec<u8> = bytes.iter().map(|byte| byte >> (8 - bits)).collect();
        let mut words = Vec::new();
        for part in quants.chunks(32) {
            pack_quants(part, bits, &mut words);
        }
        prop_assert_eq!(words.len(), 96 * bits / 32);
        let found: Vec<u8> = (0..96).map(|column| quant_at(&words, bits, column)).collect();
        prop_assert_eq!(found, quants);
    }
}
