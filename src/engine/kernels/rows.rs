//! Products with blocks of 16 rows that were not packed, but lie one after the other as in their file.

use std::ops::Range;

use half::f16;

use super::gemv::{BF16, F16, F32, Stored, folded, partial_sums};
use super::lanes::{AHEAD, LANES, Lanes, prefetch};
use super::packed::{BLOCK, read_float};
use crate::engine::format::weight::{FloatType, Q8_BLOCK, RowType};

/// The products of `T` rows of `x`, `columns` floats each, with the 16 rows of `block`.
///
/// # Safety
/// `V`'s instructions exist; `block` and `x` are as long as that, and columns a multiple of [`ROW_STEP`](super::packed::ROW_STEP).
#[inline(always)]
pub(super) unsafe fn products<V: Lanes, const T: usize>(
    row_type: RowType,
    block: *const u8,
    x: *const f32,
    columns: usize,
) -> [V; T] {
    // SAFETY: the caller's.
    unsafe {
        match row_type {
            RowType::Floats(FloatType::F32) => of_rows::<V, F32, T>(block, x, columns),
            RowType::Floats(FloatType::F16) => of_rows::<V, F16, T>(block, x, columns),
            RowType::Floats(FloatType::BF16) => of_rows::<V, BF16, T>(block, x, columns),
            RowType::Q8 => of_rows::<V, Q8, T>(block, x, columns),
        }
    }
}

/// Rows of one type.
trait Row {
    fn bytes(columns: usize) -> usize;

    /// Vectors whose lanes add up to the products with one row.
    unsafe fn sums<V: Lanes, const T: usize>(row: *const u8, x: *const f32, columns: usize) -> [V; T];
}

#[inline(always)]
unsafe fn of_rows<V: Lanes, R: Row, const T: usize>(
    block: *const u8,
    x: *const f32,
    columns: usize,
) -> [V; T] {
    // SAFETY: the caller's.
    unsafe {
        let mut sums = [[V::zero(); BLOCK]; T];
        for row in 0..BLOCK {
            let of_row = R::sums::<V, T>(block.add(row * R::bytes(columns)), x, columns);
            for (sums, sum) in sums.iter_mut().zip(of_row) {
                sums[row] = sum;
            }
        }
        let mut products = [V::zero(); T];
        for (product, sums) in products.iter_mut().zip(sums) {
            *product = V::sums(sums);
        }
        products
    }
}

impl<S: Stored> Row for S {
    fn bytes(columns: usize) -> usize {
        RowType::Floats(S::FLOAT).bytes(columns)
    }

    /// Read from end to end, rows come as fast as packed blocks do, and faster than several side by side.
    #[inline(always)]
    unsafe fn sums<V: Lanes, const T: usize>(row: *const u8, x: *const f32, columns: usize) -> [V; T] {
        const TOGETHER: usize = 4 * LANES;
        let size = S::FLOAT.size();
        // SAFETY: the caller's; a prefetch may lie anywhere.
        unsafe {
            let mut partial = [[V::zero(); 4]; T];
            let whole = columns / TOGETHER * TOGETHER;
            for start in (0..whole).step_by(TOGETHER) {
                for ahead in (0..TOGETHER * size).step_by(64) {
                    prefetch(row.wrapping_add(start * size + AHEAD + ahead));
                }
                for step in 0..TOGETHER / LANES {
                    let column = start + step * LANES;
                    let weights = V::load_as(S::FLOAT, row.add(column * size));
                    for (token, sums) in partial.iter_mut().enumerate() {
                        let chain = step % partial_sums(T);
                        sums[chain] = weights.mul_add(V::load(x.add(token * columns + column)), sums[chain]);
                    }
                }
            }
            for column in (whole..columns).step_by(LANES) {
                let weights = V::load_as(S::FLOAT, row.add(column * size));
                for (token, sums) in partial.iter_mut().enumerate() {
                    sums[0] = weights.mul_add(V::load(x.add(token * columns + column)), sums[0]);
                }
            }
            folded(partial)
        }
    }
}

struct Q8;

impl Row for Q8 {
    fn bytes(columns: usize) -> usize {
        RowType::Q8.bytes(columns)
    }

    #[inline(always)]
    unsafe fn sums<V: Lanes, const T: usize>(row: *const u8, x: *const f32, columns: usize) -> [V; T] {
        /// Blocks, and lines that they begin in.
        const TOGETHER: usize = 4;
        const AT_ONCE: usize = (TOGETHER * Q8_BLOCK.1).div_ceil(64);
        let blocks = columns / Q8_BLOCK.0;
        // SAFETY: the caller's; a prefetch may lie anywhere.
        unsafe {
            let mut partial = [[V::zero(); 4]; T];
            let whole = blocks / TOGETHER * TOGETHER;
            for start in (0..whole).step_by(TOGETHER) {
                for line in 0..AT_ONCE {
                    prefetch(row.wrapping_add(start * Q8_BLOCK.1 + AHEAD + line * 64));
                }
                for step in 0..TOGETHER {
                    add_q8::<V, T>(row, x, columns, start + step, step % partial_sums(T), &mut partial);
                }
            }
            for index in whole..blocks {
                add_q8::<V, T>(row, x, columns, index, 0, &mut partial);
            }
            folded(partial)
        }
    }
}

/// Adds the products with one block to the chain of sums.
#[inline(always)]
unsafe fn add_q8<V: Lanes, const T: usize>(
    row: *const u8,
    x: *const f32,
    columns: usize,
    index: usize,
    chain: usize,
    partial: &mut [[V; 4]; T],
) {
    // SAFETY: the caller's.
    unsafe {
        let block = row.add(index * Q8_BLOCK.1);
        let scale = V::splat_f16(block);
        let quants = q8_quants::<V>(block);
        for (token, sums) in partial.iter_mut().enumerate() {
            let x = x.add(token * columns + index * Q8_BLOCK.0);
            let product = quants[1].mul_add(V::load(x.add(LANES)), quants[0].mul(V::load(x)));
            sums[chain] = product.mul_add(scale, sums[chain]);
        }
    }
}

/// The 32 quants of a block.
#[inline(always)]
unsafe fn q8_quants<V: Lanes>(block: *const u8) -> [V; 2] {
    // SAFETY: the caller's.
    unsafe { [V::load_signed_bytes(block.add(2)), V::load_signed_bytes(block.add(2 + LANES))] }
}

/// Whether rows have no scale that is infinite or not a number.
pub(super) fn is_finite(row_type: RowType, rows: &[u8]) -> bool {
    match row_type {
        RowType::Floats(_) => true,
        RowType::Q8 => rows.as_chunks::<{ Q8_BLOCK.1 }>().0.iter().all(|block| scale(block).is_finite()),
    }
}

fn scale(block: &[u8; Q8_BLOCK.1]) -> f16 {
    f16::from_le_bytes([block[0], block[1]])
}

/// Writes the values of a row.
pub(super) fn read_row(row_type: RowType, row: &[u8], values: &mut [f32]) {
    match row_type {
        RowType::Floats(float) => {
            for (column, value) in values.iter_mut().enumerate() {
                *value = read_float(float, row, column);
            }
        }
        RowType::Q8 => {
            let blocks = row.as_chunks::<{ Q8_BLOCK.1 }>().0;
            for (values, block) in values.chunks_exact_mut(Q8_BLOCK.0).zip(blocks) {
                let scale = scale(block).to_f32();
                for (value, quant) in values.iter_mut().zip(&block[2..]) {
                    *value = scale * f32::from(quant.cast_signed());
                }
            }
        }
    }
}

/// Writes some columns (at multiples of [`ROW_STEP`](super::packed::ROW_STEP)) of a block as float32: `to[k][0..16]`, `stride` floats from one
/// column to the next.
///
/// # Safety
/// `V`'s instructions exist; `block` is 16 rows of so many columns, `to` has room.
#[inline(always)]
pub(super) unsafe fn unpack<V: Lanes>(
    block: *const u8,
    row_type: RowType,
    columns: usize,
    some: Range<usize>,
    to: *mut f32,
    stride: usize,
) {
    let row_bytes = row_type.bytes(columns);
    // SAFETY: the caller's.
    unsafe {
        let start = block.add(row_type.bytes(some.start));
        match row_type {
            RowType::Floats(FloatType::F32) => {
                let start: *const f32 = start.cast();
                for column in (0..some.len()).step_by(LANES) {
                    let from = start.add(column);
                    V::transpose(from, row_bytes / size_of::<f32>(), to.add(column * stride), stride);
                }
            }
            RowType::Floats(float) => {
                // Words of two columns take the places of columns.
                let start: *const f32 = start.cast();
                let mut pairs = [0.0; LANES * BLOCK];
                for column in (0..some.len()).step_by(2 * LANES) {
                    let from = start.add(column / 2);
                    V::transpose(from, row_bytes / size_of::<f32>(), pairs.as_mut_ptr(), BLOCK);
                    for (pair, words) in pairs.chunks_exact(BLOCK).enumerate() {
                        let to = to.add((column + 2 * pair) * stride);
                        let [low, high] = V::load_halves_as(float, words.as_ptr().cast());
                        low.store(to);
                        high.store(to.add(stride));
                    }
                }
            }
            RowType::Q8 => {
                let (group, bytes) = Q8_BLOCK;
                let mut values = [0.0; BLOCK * Q8_BLOCK.0];
                for index in 0..some.len() / group {
                    for row in 0..BLOCK {
                        let block = start.add(row * row_bytes + index * bytes);
                        let scale = V::splat_f16(block);
                        let to = values.as_mut_ptr().add(row * group);
                        let [low, high] = q8_quants::<V>(block);
                        low.mul(scale).store(to);
                        high.mul(scale).store(to.add(LANES));
                    }
                    for half in (0..group).step_by(LANES) {
                        let to = to.add((index * group + half) * stride);
                        V::transpose(values.as_ptr().add(half), group, to, stride);
                    }
                }
            }
        }
    }
}
