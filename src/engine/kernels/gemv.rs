//! Products of a few tokens with a block of 16 packed rows, which are read and unpacked once for all of
//! them. Quants are summed before their scale is applied: Σ (s q + b) x = s Σ q x + b Σ x, group by group.
#![expect(clippy::inline_always, reason = "code with lanes must be compiled inside `Isa::run`, see `Task`")]

use super::lanes::{LANES, Lanes, prefetch};
use super::packed::{BLOCK, Element, Layout, Quant};
use crate::engine::format::weight::FloatType;

/// The most tokens at once.
pub(super) const MAX_TOKENS: usize = 4;

/// How far ahead of its use the stream of weights is asked for, in bytes: beyond what processors do by
/// themselves, and across the end of a block, which the next one follows.
const AHEAD: usize = 5120;

/// The products of `T` rows of `x`, `layout.columns` floats each, with the 16 rows of `block`. For affine
/// weights `sums` holds the sums of `x` over each group, `[T, groups]`.
///
/// # Safety
/// `V`'s instructions exist; `block`, `x` and `sums` are as long as `layout` says.
#[inline(always)]
pub(super) unsafe fn products<V: Lanes, const T: usize>(
    layout: Layout,
    block: *const u8,
    x: *const f32,
    sums: *const f32,
) -> [V; T] {
    // SAFETY: the caller's.
    unsafe {
        match layout.element {
            Element::Dense(FloatType::F32) => dense::<V, F32, T>(block, x, layout.columns),
            Element::Dense(FloatType::F16) => dense::<V, F16, T>(block, x, layout.columns),
            Element::Dense(FloatType::BF16) => dense::<V, BF16, T>(block, x, layout.columns),
            Element::Affine { quant: Quant::Nibble, group, scale } => {
                affine::<V, Nibbles, T>(block, x, sums, layout.columns, group, scale)
            }
            Element::Affine { quant: Quant::Byte, group, scale } => {
                affine::<V, Bytes, T>(block, x, sums, layout.columns, group, scale)
            }
        }
    }
}

/// Partial sums a token: enough to hide the latency of a multiplication, few enough for the registers.
const fn partial_sums(tokens: usize) -> usize {
    match tokens {
        1 => 4,
        2 => 2,
        _ => 1,
    }
}

trait Quants {
    /// Bytes of 16 columns.
    const STEP: usize;

    /// Adds the products with 16 columns.
    unsafe fn accumulate<V: Lanes, const T: usize>(
        quants: *const u8,
        x: *const f32,
        stride: usize,
        sums: &mut [[V; 4]; T],
    );
}

struct Nibbles;

impl Quants for Nibbles {
    const STEP: usize = BLOCK * 8;

    #[inline(always)]
    unsafe fn accumulate<V: Lanes, const T: usize>(
        quants: *const u8,
        x: *const f32,
        stride: usize,
        sums: &mut [[V; 4]; T],
    ) {
        // SAFETY: the caller's.
        unsafe {
            let mut words = [V::load_words(quants), V::load_words(quants.add(BLOCK * 4))];
            for column in 0..8 {
                for (half, words) in words.iter_mut().enumerate() {
                    let weights = V::low_nibbles(*words);
                    *words = V::next_nibbles(*words);
                    let chain = (half + 2 * column) % partial_sums(T);
                    for (token, sums) in sums.iter_mut().enumerate() {
                        let value = V::splat(*x.add(token * stride + 8 * half + column));
                        sums[chain] = weights.mul_add(value, sums[chain]);
                    }
                }
            }
        }
    }
}

struct Bytes;

impl Quants for Bytes {
    const STEP: usize = BLOCK * 16;

    #[inline(always)]
    unsafe fn accumulate<V: Lanes, const T: usize>(
        quants: *const u8,
        x: *const f32,
        stride: usize,
        sums: &mut [[V; 4]; T],
    ) {
        // SAFETY: the caller's.
        unsafe {
            for column in 0..16 {
                let weights = V::load_bytes(quants.add(column * BLOCK));
                let chain = column % partial_sums(T);
                for (token, sums) in sums.iter_mut().enumerate() {
                    let value = V::splat(*x.add(token * stride + column));
                    sums[chain] = weights.mul_add(value, sums[chain]);
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn affine<V: Lanes, Q: Quants, const T: usize>(
    block: *const u8,
    x: *const f32,
    sums: *const f32,
    columns: usize,
    group: usize,
    scale: FloatType,
) -> [V; T] {
    // SAFETY: the caller's; a prefetch may lie anywhere.
    unsafe {
        let groups = columns / group;
        let line = BLOCK * scale.size();
        let mut totals = [V::zero(); T];
        let mut at = block;
        for index in 0..groups {
            let mut partial = [[V::zero(); 4]; T];
            let values = x.add(index * group);
            let mut column = 0;
            // Twice 16 columns where possible: a longer run of independent work.
            while column + 32 <= group {
                for ahead in (0..2 * Q::STEP).step_by(64) {
                    prefetch(at.wrapping_add(AHEAD + ahead));
                }
                Q::accumulate::<V, T>(at, values.add(column), columns, &mut partial);
                Q::accumulate::<V, T>(at.add(Q::STEP), values.add(column + 16), columns, &mut partial);
                at = at.add(2 * Q::STEP);
                column += 32;
            }
            if column < group {
                for ahead in (0..Q::STEP).step_by(64) {
                    prefetch(at.wrapping_add(AHEAD + ahead));
                }
                Q::accumulate::<V, T>(at, values.add(column), columns, &mut partial);
                at = at.add(Q::STEP);
            }
            prefetch(at.wrapping_add(AHEAD));
            let scales = V::load_as(scale, at);
            let biases = V::load_as(scale, at.add(line));
            at = at.add(2 * line);
            for (token, (total, partial)) in totals.iter_mut().zip(partial).enumerate() {
                let sum = V::splat(*sums.add(token * groups + index));
                *total = biases.mul_add(sum, scales.mul_add(fold::<V, T>(partial), *total));
            }
        }
        totals
    }
}

trait Stored {
    const FLOAT: FloatType;
}

struct F32;
struct F16;
struct BF16;

impl Stored for F32 {
    const FLOAT: FloatType = FloatType::F32;
}

impl Stored for F16 {
    const FLOAT: FloatType = FloatType::F16;
}

impl Stored for BF16 {
    const FLOAT: FloatType = FloatType::BF16;
}

#[inline(always)]
unsafe fn dense<V: Lanes, S: Stored, const T: usize>(
    block: *const u8,
    x: *const f32,
    columns: usize,
) -> [V; T] {
    let size = const {
        match S::FLOAT {
            FloatType::F32 => BLOCK * 4,
            FloatType::F16 | FloatType::BF16 => BLOCK * 2,
        }
    };
    // SAFETY: the caller's; a prefetch may lie anywhere.
    unsafe {
        let mut partial = [[V::zero(); 4]; T];
        let whole = columns / LANES * LANES;
        for start in (0..whole).step_by(LANES) {
            let at = block.add(start * size);
            for ahead in (0..LANES * size).step_by(64) {
                prefetch(at.wrapping_add(AHEAD + ahead));
            }
            for column in 0..LANES {
                let weights = V::load_as(S::FLOAT, at.add(column * size));
                let chain = column % partial_sums(T);
                for (token, sums) in partial.iter_mut().enumerate() {
                    let value = V::splat(*x.add(token * columns + start + column));
                    sums[chain] = weights.mul_add(value, sums[chain]);
                }
            }
        }
        for column in whole..columns {
            let weights = V::load_as(S::FLOAT, block.add(column * size));
            for (token, sums) in partial.iter_mut().enumerate() {
                sums[0] = weights.mul_add(V::splat(*x.add(token * columns + column)), sums[0]);
            }
        }
        let mut totals = [V::zero(); T];
        for (total, partial) in totals.iter_mut().zip(partial) {
            *total = fold::<V, T>(partial);
        }
        totals
    }
}

#[inline(always)]
unsafe fn fold<V: Lanes, const T: usize>(partial: [V; 4]) -> V {
    // SAFETY: the caller's.
    unsafe {
        match partial_sums(T) {
            4 => partial[0].add(partial[1]).add(partial[2].add(partial[3])),
            2 => partial[0].add(partial[1]),
            _ => partial[0],
        }
    }
}
