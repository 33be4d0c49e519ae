//! Matrices that stay as their rows lie, against MLX's operations on the same numbers.

use std::sync::Arc;

use half::f16;
use mlx_rs::{Array, ops};

use super::{Random, assert_close, dense, floats};
use crate::engine::config::style::{Activation, Gating, Routing};
use crate::engine::ffi::Region;
use crate::engine::format::weight::{FloatType, Q8_BLOCK, RowType, WeightData};
use crate::engine::kernels::isa::forced;
use crate::engine::kernels::{Epilogue, ExpertVectors, Experts, PackedMatrix, embed, experts, project};

/// Bytes between others, since those of a file are.
fn region(bytes: &[u8]) -> Region {
    // What follows is NaN in every type: whoever reads too far is found out.
    let owner = [&[0xff; 64], bytes, &[0xff; 64]].concat();
    Region::new(Arc::new(owner), 64..64 + bytes.len()).unwrap()
}

fn lying(bytes: &[u8], row_type: RowType, columns: usize, parts: usize) -> PackedMatrix {
    let matrix = PackedMatrix::lying(&region(bytes), row_type, columns, parts).unwrap();
    assert!(matrix.fetch());
    matrix
}

/// Random rows of any type that can stay, and the same as float32.
fn rows(random: &mut Random, rows: usize, columns: usize) -> (Vec<u8>, RowType, Array) {
    if random.below(3) == 0 {
        let (mut bytes, mut values) = (Vec::new(), Vec::new());
        for _ in 0..rows * columns / Q8_BLOCK.0 {
            let scale = f16::from_f32(random.float() / 100.0);
            bytes.extend(scale.to_le_bytes());
            let quants: Vec<u8> = (0..Q8_BLOCK.0).map(|_| random.next() as u8).collect();
            values.extend(quants.iter().map(|quant| scale.to_f32() * f32::from(quant.cast_signed())));
            bytes.extend(quants);
        }
        return (bytes, RowType::Q8, Array::from_slice(&values, &[rows as i32, columns as i32]));
    }
    match dense(random, rows, columns) {
        (WeightData::Dense { values, .. }, array) => (values.bytes, RowType::Floats(values.dtype), array),
        _ => unreachable!("dense ones are dense"),
    }
}

#[test]
fn products_with_rows_as_they_lie_equal_mlx() {
    let mut random = Random(53);
    for round in 0..80 {
        let columns = random.pick(&[32, 64, 96, 160, 192, 288, 576, 1312, 1536]);
        let tokens = random.pick(&[1, 1, 2, 3, 4, 5, 7, 8, 9, 13, 31, 40]);
        let count = 1 + random.below(3);
        let x = random.array(&[tokens, columns]);
        let (mut matrices, mut products) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let height = random.pick(&[16, 32, 48, 80]);
            let (bytes, row_type, array) = rows(&mut random, height, columns);
            matrices.push(lying(&bytes, row_type, columns, 1));
            products.push(ops::matmul(&x, array.swap_axes(0, 1).unwrap()).unwrap());
        }
        let expected = ops::concatenate(&products, 1).unwrap();
        expected.eval().unwrap();
        forced::each(|isa| {
            let ours = project(&x, None, &matrices.iter().collect::<Vec<_>>(), None, Epilogue::None).unwrap();
            let kinds: Vec<_> = matrices.iter().map(PackedMatrix::layout).collect();
            assert_close(&ours, &expected, 2e-5, &format!("{isa:?}, {round}: {tokens} tokens, {kinds:?}"));
        });
    }
}

#[test]
fn rows_of_tables_as_they_lie_are_theirs() {
    let mut random = Random(59);
    for _ in 0..20 {
        let columns = random.pick(&[32, 96, 576]);
        let (bytes, row_type, array) = rows(&mut random, 48, columns);
        let table = lying(&bytes, row_type, columns, 1);
        let ids = Array::from_slice(&[47, 0, 16, 5, 5], &[5]);
        let expected = array.take_axis(&ids, 0).unwrap();
        assert_close(&embed(&table, &ids, 1.0).unwrap(), &expected, 0.0, &format!("{row_type:?}"));
    }
}

#[test]
fn experts_as_they_lie_equal_packed_ones() {
    let mut random = Random(61);
    let (count, hidden, inner) = (3, 64, 96);
    let kind = Experts {
        routing: Routing::softmax(count, 2),
        gating: Gating::Plain(Activation::Silu),
        intermediate_size: inner,
    };
    for tokens in [1, 2, 9, 40] {
        let shapes = [(inner, hidden), (inner, hidden), (hidden, inner)];
        let (mut own, mut packed) = (Vec::new(), Vec::new());
        for (height, columns) in shapes {
            let (bytes, row_type, array) = rows(&mut random, count * height, columns);
            own.push(lying(&bytes, row_type, columns, count));
            let shape = vec![count * height, columns];
            let values = floats(FloatType::F32, array.as_slice());
            packed.push(PackedMatrix::pack_parts(&WeightData::Dense { shape, values }, count).unwrap());
        }
        let (x, scores) = (random.array(&[tokens, hidden]), random.array(&[tokens, count]));
        forced::each(|isa| {
            let [ours, expected] = [&own, &packed].map(|all| {
                let [gate, up, down] = all.as_slice() else { unreachable!("three") };
                experts(&x, &scores, [gate, up, down], &ExpertVectors::default(), &kind).unwrap()
            });
            assert_close(&ours, &expected, 2e-5, &format!("{isa:?}, {tokens} tokens"));
        });
    }
}

#[test]
fn rows_that_are_no_whole_blocks_are_to_be_packed() {
    let bytes = vec![0; 4 * 64 * 64];
    let fits = |rows: usize, columns: usize, row_type: RowType, parts: usize| {
        let region = region(&bytes[..rows * row_type.bytes(columns)]);
        PackedMatrix::lying(&region, row_type, columns, parts).is_some()
    };
    for row_type in [FloatType::F32, FloatType::F16, FloatType::BF16].map(RowType::Floats) {
        assert!(fits(32, 64, row_type, 1) && fits(32, 64, row_type, 2));
        assert!(!fits(33, 64, row_type, 1) && !fits(32, 48, row_type, 1) && !fits(48, 64, row_type, 2));
    }
    assert!(fits(32, 64, RowType::Q8, 1) && !fits(40, 64, RowType::Q8, 1));
    // Half a row too many, and an address that is no float's.
    let float = RowType::Floats(FloatType::F32);
    assert!(PackedMatrix::lying(&region(&bytes[..16 * 128 + 64]), float, 32, 1).is_none());
    let askew = Region::new(Arc::new(bytes), 2..2 + 16 * 128).unwrap();
    assert!(PackedMatrix::lying(&askew, float, 32, 1).is_none());
}

#[test]
fn a_scale_that_is_no_number_is_found() {
    let mut bytes = vec![1; 32 * RowType::Q8.bytes(64)];
    let whole = PackedMatrix::lying(&region(&bytes), RowType::Q8, 64, 1).unwrap();
    assert!(whole.fetch());
    let at = 20 * RowType::Q8.bytes(64) + Q8_BLOCK.1;
    bytes[at..at + 2].copy_from_slice(&f16::INFINITY.to_le_bytes());
    let damaged = PackedMatrix::lying(&region(&bytes), RowType::Q8, 64, 1).unwrap();
    assert!(!damaged.fetch());
}

#[test]
fn a_region_is_within_its_owner() {
    let owner = || Arc::new(vec![1, 2, 3]);
    assert_eq!(&*Region::new(owner(), 1..3).unwrap(), [2, 3]);
    assert!(Region::new(owner(), 1..4).is_none());
}
