use half::f16;
use proptest::prelude::*;

use crate::engine::format::ggml_type::GgmlType;
use crate::engine::format::unpack::{Fault, GROUP, Unpacked, Unpacker};
use crate::engine::format::weight::FloatType;

pub fn unpack(kind: GgmlType, blocks: &[u8]) -> Result<Unpacked, Fault> {
    let mut unpacker = Unpacker::new(kind, 1)?;
    unpacker.push(blocks);
    unpacker.finish()
}

/// The values of the affine form, by its definition.
pub fn values(unpacked: &Unpacked) -> Vec<f32> {
    let (scales, biases) = (unpacked.scales.to_f32(), unpacked.biases.to_f32());
    let per_word = 32 / unpacked.bits;
    let element = |i: usize| {
        let word = unpacked.packed[i / per_word];
        let q = word >> (i % per_word * unpacked.bits) & ((1 << unpacked.bits) - 1);
        scales[i / GROUP] * q as f32 + biases[i / GROUP]
    };
    (0..unpacked.packed.len() * per_word).map(element).collect()
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
pub fn same(a: f32, b: f32) -> bool {
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

#[test]
fn a_bias_too_large_for_float16_makes_the_tensor_float32() {
    let block = |d: f32| [f16::from_f32(d).to_le_bytes().as_slice(), &[0; 32]].concat();
    let small = unpack(GgmlType::Q8_0, &block(511.0)).ok().unwrap();
    assert_eq!(small.biases.dtype, FloatType::F16);
    let mixed = unpack(GgmlType::Q8_0, &[block(1.0), block(1024.0)].concat()).ok().unwrap();
    assert_eq!((mixed.scales.dtype, mixed.biases.dtype), (FloatType::F32, FloatType::F32));
    assert_eq!(mixed.biases.to_f32(), [-128.0, -131_072.0]);
}

#[test]
fn other_types_have_no_affine_form() {
    assert_eq!(unpack(GgmlType::Q6_K, &[0; 210]).err(), Some(Fault::Type));
}
