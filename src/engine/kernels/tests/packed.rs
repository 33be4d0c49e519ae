use std::ops::Range;

use half::f16;
use mlx_rs::{Array, ops};

use super::{Random, assert_close, floats, read};
use crate::engine::ffi::{Input, aligned};
use crate::engine::format::weight::{CodeTable, FloatType, Floats, OUTER, WeightData, middle, quant_at};
use crate::engine::kernels::isa::forced;
use crate::engine::kernels::packed::{BLOCK, Element, RUN};
use crate::engine::kernels::{Epilogue, PackedMatrix, embed, project};
use crate::engine::layers::matrix::select_rows;
use crate::error::{Code, Error};

fn affine(group: usize, bits: usize, packed: Vec<u32>, scales: Floats, biases: Floats) -> WeightData {
    WeightData::Affine { rows: 20, columns: 96, group, bits, packed, scales, biases }
}

/// A matrix with groups of 16, which MLX does not know, and its values by the definition.
fn groups_of_16(bits: usize, symmetric: bool) -> (WeightData, Array) {
    let mut random = Random(bits as u64);
    let packed: Vec<u32> = (0..20 * 96 * bits / 32).map(|_| random.next() as u32).collect();
    let scales: Vec<f32> = (0..20 * 6).map(|_| random.float()).collect();
    let bias = |scale: &f32| if symmetric { scale * middle(bits) } else { random.float() };
    let biases: Vec<f32> = scales.iter().map(bias).collect();
    let (scales, biases) = (floats(FloatType::F32, &scales), floats(FloatType::F32, &biases));
    let mut values = Vec::new();
    for row in 0..20 {
        let words = &packed[row * 3 * bits..][..3 * bits];
        for column in 0..96 {
            let quant = (0..bits).fold(0, |quant, bit| {
                let at = column * bits + bit;
                quant | (words[at / 32] >> (at % 32) & 1) << bit
            });
            let group = row * 6 + column / 16;
            values.push(read(&scales)[group] * quant as f32 + read(&biases)[group]);
        }
    }
    (affine(16, bits, packed, scales, biases), Array::from_slice(&values, &[20, 96]))
}

#[test]
fn groups_of_16_are_packed_and_multiplied() {
    for (bits, symmetric) in [2, 3, 4, 5, 6, 8].into_iter().flat_map(|bits| [(bits, false), (bits, true)]) {
        let (weight, dense) = groups_of_16(bits, symmetric);
        let packed = PackedMatrix::pack(&weight).unwrap();
        assert_eq!(packed.layout().element.zero().is_some(), symmetric);
        let ids: Vec<i32> = (0..20).collect();
        assert_close(&embed(&packed, &Array::from_slice(&ids, &[20]), 1.0).unwrap(), &dense, 1e-6, "rows");
        for tokens in [1, 8, 9] {
            let x = Random(9).array(&[tokens, 96]);
            let expected = ops::matmul(&x, dense.swap_axes(0, 1).unwrap()).unwrap();
            expected.eval().unwrap();
            forced::each(|isa| {
                let ours = project(&x, None, &[&packed], None, Epilogue::None).unwrap();
                assert_close(&ours, &expected, 1e-5, &format!("{isa:?} {bits} bits, {tokens} tokens"));
            });
        }
    }
}

/// A nested matrix and one of codes, with their values by the definition.
fn two_level(bits: usize, group: usize, symmetric: bool) -> (WeightData, Array) {
    let (rows, columns) = (20, 2 * OUTER);
    let mut random = Random(bits as u64);
    let packed: Vec<u32> = (0..rows * columns * bits / 32).map(|_| random.next() as u32).collect();
    let mut outer: Vec<[f32; 2]> =
        (0..rows * 2).map(|_| [random.float() / 64.0, random.float() / 8.0]).collect();
    let signed = |random: &mut Random| random.next() as i8;
    let mut inner: Vec<[i8; 2]> =
        (0..rows * columns / group).map(|_| [signed(&mut random), signed(&mut random)]).collect();
    if symmetric {
        for [factor, base] in &mut outer {
            *base = *factor * middle(bits);
        }
        for [scale, offset] in &mut inner {
            *offset = *scale;
        }
    }
    let mut values = Vec::new();
    for row in 0..rows {
        let words = &packed[row * columns * bits / 32..][..columns * bits / 32];
        for column in 0..columns {
            let [factor, base] = outer[row * 2 + column / OUTER];
            let [scale, offset] = inner[(row * columns + column) / group];
            let quant = f32::from(quant_at(words, bits, column));
            values.push(factor * f32::from(scale) * quant + base * f32::from(offset));
        }
    }
    let dense = Array::from_slice(&values, &[rows as i32, columns as i32]);
    (WeightData::Nested { rows, columns, group, bits, packed, outer, inner }, dense)
}

fn codes(table: CodeTable, group: usize, dtype: FloatType) -> (WeightData, Array) {
    let (rows, columns) = (20, 96);
    let mut random = Random(group as u64);
    let each = 32 / table.bits();
    let mut packed: Vec<u32> = (0..rows * columns / each).map(|_| random.next() as u32).collect();
    if table == CodeTable::Fp8 {
        // No NaN.
        for word in &mut packed {
            *word &= 0xbfbf_bfbf;
        }
    }
    let scales: Vec<f32> = (0..rows * columns / group).map(|_| random.float() / 64.0).collect();
    let scales = floats(dtype, &scales);
    let scales_read = read(&scales);
    let value = |at: usize| {
        let code = packed[at / each] >> (at % each * table.bits());
        scales_read[at / group] * table.number(code as u8)
    };
    let values: Vec<f32> = (0..rows * columns).map(value).collect();
    let dense = Array::from_slice(&values, &[rows as i32, columns as i32]);
    (WeightData::Codes { rows, columns, group, table, packed, scales }, dense)
}

#[test]
fn the_forms_of_gguf_are_packed_and_multiplied() {
    let nested =
        [(2, 16, false), (3, 16, true), (3, 16, false), (4, 32, false), (5, 32, false), (6, 16, true)]
            .map(|(bits, group, symmetric)| two_level(bits, group, symmetric));
    let codes = [
        codes(CodeTable::Iq4, 32, FloatType::F16),
        codes(CodeTable::Iq4, 32, FloatType::F32),
        codes(CodeTable::Fp4, 32, FloatType::F32),
        codes(CodeTable::Fp4, 16, FloatType::BF16),
        codes(CodeTable::Fp8, 32, FloatType::BF16),
        codes(CodeTable::Fp8, 16, FloatType::F32),
    ];
    for (weight, dense) in nested.into_iter().chain(codes) {
        let packed = PackedMatrix::pack(&weight).unwrap();
        let ids: Vec<i32> = (0..20).collect();
        assert_close(&embed(&packed, &Array::from_slice(&ids, &[20]), 1.0).unwrap(), &dense, 1e-6, "rows");
        for tokens in [1, 3, 8, 9, 40] {
            let x = Random(9).array(&[tokens, dense.dim(1) as usize]);
            let expected = ops::matmul(&x, dense.swap_axes(0, 1).unwrap()).unwrap();
            expected.eval().unwrap();
            forced::each(|isa| {
                let ours = project(&x, None, &[&packed], None, Epilogue::None).unwrap();
                let what = format!("{isa:?} {:?}, {tokens} tokens", packed.layout().element);
                assert_close(&ours, &expected, 1e-5, &what);
            });
        }
    }
}

#[test]
fn float32_scales_shrink_only_when_nothing_is_lost() {
    let with = |scale: f32| {
        let (scales, biases) = (floats(FloatType::F32, &[scale; 60]), floats(FloatType::F32, &[-1.5; 60]));
        let weight = affine(32, 4, vec![0x7654_3210; 20 * 12], scales, biases);
        PackedMatrix::pack(&weight).unwrap().layout().element
    };
    let kept = |scale| Element::Affine { bits: 4, group: 32, scale, symmetric: false };
    assert_eq!(with(0.125), kept(FloatType::F16));
    assert_eq!(with(f16::from_f32(0.1).to_f32()), kept(FloatType::F16));
    assert_eq!(with(0.1), kept(FloatType::F32));
    assert_eq!(with(1e6), kept(FloatType::F32));
    assert_eq!(with(2_f32.powi(40)), kept(FloatType::BF16));
}

#[test]
fn a_packed_matrix_takes_no_more_than_it_says() {
    let half = |count: usize| floats(FloatType::F16, &vec![1.0; count]);
    for bits in [2, 3, 4, 5, 6, 8] {
        let weight = affine(32, bits, vec![0; 20 * 3 * bits], half(60), half(60));
        let packed = PackedMatrix::pack(&weight).unwrap();
        assert_eq!((packed.rows(), packed.columns()), (20, 96));
        // 32 rows with padding, the bits of each quant and four bytes of scale and bias a group; and one line
        // to align, another to round up.
        let bytes = 32 * (96 * bits / 8 + 3 * 4);
        assert!((bytes..=bytes + 128).contains(&packed.nbytes()), "{bits} bits: {}", packed.nbytes());
    }
}

#[test]
fn weights_that_contradict_themselves_are_errors() {
    let half = |count: usize| floats(FloatType::F16, &vec![1.0; count]);
    let words = 20 * 12;
    assert!(PackedMatrix::pack(&affine(32, 4, vec![0; words], half(60), half(60))).is_ok());
    let broken = [
        affine(32, 4, vec![0; words - 1], half(60), half(60)),
        affine(32, 4, vec![0; words], half(59), half(60)),
        affine(32, 4, vec![0; words], half(60), half(61)),
        affine(32, 7, vec![0; 20 * 21], half(60), half(60)),
        affine(32, 0, vec![], half(60), half(60)),
        affine(0, 4, vec![0; words], half(60), half(60)),
        affine(24, 4, vec![0; words], half(80), half(80)),
        affine(64, 4, vec![0; words], half(30), half(30)),
        WeightData::Dense { shape: vec![4], values: half(4) },
        WeightData::Dense { shape: vec![2, 2, 1], values: half(4) },
        WeightData::Dense { shape: vec![0, 4], values: half(0) },
        WeightData::Dense { shape: vec![2, 2], values: half(3) },
        WeightData::Dense { shape: vec![usize::MAX, usize::MAX], values: half(1) },
    ];
    for weight in broken {
        assert!(PackedMatrix::pack(&weight).is_err(), "{weight:?}");
    }
}

/// The bytes that kernels see.
fn content(packed: &PackedMatrix) -> Vec<u8> {
    let Input::Array(array) = packed.input() else { unreachable!("it was packed") };
    aligned(array.as_slice::<u8>())[..packed.layout().bytes()].to_vec()
}

#[test]
fn what_is_packed_while_it_is_read_is_the_same() {
    let mut random = Random(11);
    // Several runs of blocks, the last one of each matrix not full.
    let (rows, columns) = (104, 2 * RUN / BLOCK / 3 / 256 * 256);
    let mut weights = vec![super::dense(&mut random, rows, columns).0];
    for bits in [2, 3, 4, 5, 6, 8] {
        weights.push(super::affine(&mut random, rows, columns, 32, bits).0);
    }
    let codes = |columns: usize| WeightData::Codes {
        rows,
        columns,
        group: 32,
        table: CodeTable::Iq4,
        packed: (0..rows * columns / 8).map(|at| (at as u32).wrapping_mul(0x9e37_79b9)).collect(),
        scales: floats(FloatType::F16, &vec![0.5; rows * columns / 32]),
    };
    let nested = |columns: usize| WeightData::Nested {
        rows,
        columns,
        group: 16,
        bits: 6,
        packed: (0..rows * columns * 6 / 32).map(|at| (at as u32).wrapping_mul(0x9e37_79b9)).collect(),
        outer: (0..rows * columns / OUTER).map(|at| [at as f32, -1.0]).collect(),
        inner: (0..rows * columns / 16).map(|at| [at as i8, 1]).collect(),
    };
    weights.extend([codes(columns), nested(columns)]);
    for weight in weights {
        for parts in [1, 4, 13] {
            let expected = PackedMatrix::pack_parts(&weight, parts).unwrap();
            let read = |range| select_rows(&weight, Some(range));
            let packed = PackedMatrix::read(rows, parts, &read).unwrap();
            assert_eq!(packed.layout(), expected.layout());
            assert!(content(&packed) == content(&expected), "{:?} in {parts} parts", packed.layout());
        }
    }
}

#[test]
fn scales_that_the_first_rows_do_not_foretell_keep_their_values() {
    let (rows, columns) = (200, 1024);
    let weight = |first: f32, last: f32| {
        let mut scales = vec![first; rows * columns / 32];
        scales[rows * columns / 32 - 1] = last;
        let biases = floats(FloatType::F32, &vec![1.0; scales.len()]);
        let (packed, scales) = (vec![0x7654_3210; rows * columns / 8], floats(FloatType::F32, &scales));
        WeightData::Affine { rows, columns, group: 32, bits: 4, packed, scales, biases }
    };
    for (first, last) in [(0.5, 0.1), (0.1, 0.5), (2_f32.powi(40), 0.5), (0.5, 2_f32.powi(40))] {
        let weight = weight(first, last);
        let expected = PackedMatrix::pack(&weight).unwrap();
        let packed = PackedMatrix::read(rows, 1, &|range| select_rows(&weight, Some(range))).unwrap();
        assert_eq!(packed.layout(), expected.layout(), "{first} and {last}");
        assert!(content(&packed) == content(&expected), "{first} and {last}");
    }
}

#[test]
fn an_error_of_reading_ends_packing() {
    let half = |count: usize| floats(FloatType::F16, &vec![1.0; count]);
    let (rows, columns) = (400, 1024);
    let groups = rows * columns / 32;
    let packed = vec![0; rows * columns / 8];
    let (scales, biases) = (half(groups), half(groups));
    let weight = WeightData::Affine { rows, columns, group: 32, bits: 4, packed, scales, biases };
    let read = |range: Range<usize>| {
        if range.contains(&300) {
            return Err(Error::new(Code::IntegrityFailed, "the file ends"));
        }
        select_rows(&weight, Some(range))
    };
    for parts in [1, 2] {
        let error = PackedMatrix::read(rows, parts, &read).unwrap_err();
        assert_eq!((error.code(), error.message()), (Code::IntegrityFailed, "the file ends"));
    }
    assert!(PackedMatrix::read(rows, 3, &|range| select_rows(&weight, Some(range))).is_err(), "400 / 3");
    assert!(PackedMatrix::read(0, 1, &|range| select_rows(&weight, Some(range))).is_err(), "no rows");
}

#[test]
fn biases_are_left_out_only_where_all_follow_from_the_scales() {
    let (rows, columns) = (200, 1024);
    let groups = rows * columns / 32;
    let weight = |odd: Option<usize>| {
        let (scales, mut biases) = (floats(FloatType::F16, &vec![0.25; groups]), vec![-2.0; groups]);
        if let Some(odd) = odd {
            biases[odd] = -1.0;
        }
        let biases = floats(FloatType::F16, &biases);
        WeightData::Affine { rows, columns, group: 32, bits: 4, packed: vec![7; groups * 4], scales, biases }
    };
    for odd in [None, Some(0), Some(groups / 2), Some(groups - 1)] {
        let weight = weight(odd);
        let expected = PackedMatrix::pack(&weight).unwrap();
        let packed = PackedMatrix::read(rows, 1, &|range| select_rows(&weight, Some(range))).unwrap();
        assert_eq!(packed.layout().element.zero().is_none(), odd.is_some());
        let numbers = if odd.is_some() { 2 } else { 1 };
        assert_eq!(packed.layout().bytes(), 208 * (columns / 2 + columns / 32 * 2 * numbers));
        assert!(packed.layout() == expected.layout() && content(&packed) == content(&expected), "{odd:?}");
    }
}
