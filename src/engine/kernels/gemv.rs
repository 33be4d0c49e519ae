//! Products of a few tokens with a block of 16 packed rows, which are read and unpacked once for all of
//! them. Quants are summed before their scale is applied: Σ (s q + b) x = s Σ q x + b Σ x, group by group.

use super::inputs::Rows;
use super::isa::{Isa, Task};
use super::lanes::{AHEAD, LANES, Lanes, prefetch};
use super::packed::{BLOCK, Element, Layout, View};
use super::quants::{Fp4, Fp8, Iq4, Quants, Scaling, by_reading, each_column, outer_factors};
use super::rows;
use crate::engine::format::weight::{CodeTable, FloatType, OUTER};

/// The most tokens at once.
pub(super) const MAX_TOKENS: usize = 8;

/// The products of some rows, up to [`MAX_TOKENS`], with the 16 of a block: those of each row in `to`.
///
/// A function of its own for each number of them, which is called for every block: inlined where blocks are looped over,
/// it would be compiled for each of these places.
pub(super) fn multiply(isa: Isa, view: &View<'_>, block: usize, rows: Rows<'_>, to: &mut [[f32; LANES]]) {
    let layout = view.layout;
    let summed = layout.element.group().is_none_or(|group| rows.sums.len() * group == rows.x.len());
    let fits = rows.x.len() == to.len() * layout.columns && summed;
    assert!(fits && (1..=MAX_TOKENS).contains(&to.len()), "products of rows that do not fit");
    let block = view.block(block);
    match to.len() {
        1 => of::<1>(isa, layout, block, rows, to),
        2 => of::<2>(isa, layout, block, rows, to),
        3 => of::<3>(isa, layout, block, rows, to),
        4 => of::<4>(isa, layout, block, rows, to),
        5 => of::<5>(isa, layout, block, rows, to),
        6 => of::<6>(isa, layout, block, rows, to),
        7 => of::<7>(isa, layout, block, rows, to),
        _ => of::<MAX_TOKENS>(isa, layout, block, rows, to),
    }
}

#[inline(always)]
fn of<const T: usize>(isa: Isa, layout: Layout, block: &[u8], rows: Rows<'_>, to: &mut [[f32; LANES]]) {
    // SAFETY: the level was detected, `multiply` has compared the lengths.
    unsafe { isa.run(Products::<T> { layout, block: block.as_ptr(), rows, to }) };
}

/// `block` is as long as the layout says; there are `T` rows and as many to be written.
struct Products<'a, const T: usize> {
    layout: Layout,
    block: *const u8,
    rows: Rows<'a>,
    to: &'a mut [[f32; LANES]],
}

impl<const T: usize> Task for Products<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        // SAFETY: the caller's; each row has room for a vector.
        unsafe {
            let products: [V; T] = products(self.layout, self.block, self.rows);
            for (products, to) in products.into_iter().zip(self.to) {
                products.store(to.as_mut_ptr());
            }
        }
    }
}

#[inline(always)]
unsafe fn products<V: Lanes, const T: usize>(layout: Layout, block: *const u8, rows: Rows<'_>) -> [V; T] {
    let Rows { x, sums, subnormal } = rows;
    let (x, sums) = (x.as_ptr(), sums.as_ptr());
    // SAFETY: the caller's.
    unsafe {
        match layout.element {
            Element::Dense(FloatType::F32) => dense::<V, F32, T>(block, x, layout.columns),
            Element::Dense(FloatType::F16) => dense::<V, F16, T>(block, x, layout.columns),
            Element::Dense(FloatType::BF16) => dense::<V, BF16, T>(block, x, layout.columns),
            Element::Rows(row_type) => rows::products::<V, T>(row_type, block, x, layout.columns),
            Element::Affine { bits, group, .. } | Element::Nested { bits, group, .. } => {
                let products = by_reading!(V, subnormal.is_some(), bits, Q => {
                    grouped::<V, Q, T>(block, x, sums, layout, group)
                });
                match subnormal {
                    Some(factor) => products.map(|it| it.mul(V::splat(factor))),
                    None => products,
                }
            }
            Element::Codes { table: CodeTable::Iq4, group, .. } => {
                grouped::<V, Iq4, T>(block, x, sums, layout, group)
            }
            Element::Codes { table: CodeTable::Fp4, group, .. } => {
                grouped::<V, Fp4, T>(block, x, sums, layout, group)
            }
            Element::Codes { table: CodeTable::Fp8, group, .. } => {
                grouped::<V, Fp8, T>(block, x, sums, layout, group)
            }
        }
    }
}

/// Partial sums a token: enough to hide the latency of a multiplication, few enough for the registers.
pub(super) const fn partial_sums(tokens: usize) -> usize {
    match tokens {
        1 => 4,
        2 => 2,
        _ => 1,
    }
}

/// The same with quants, whose masks are in registers too.
const fn chains<V: Lanes>(tokens: usize) -> usize {
    if tokens == 1 { V::CHAINS } else { partial_sums(tokens) }
}

/// Adds the products with 16 columns.
#[inline(always)]
unsafe fn accumulate<V: Lanes, Q: Quants, const T: usize>(
    quants: *const u8,
    x: *const f32,
    stride: usize,
    sums: &mut [[V; 4]; T],
) {
    // SAFETY: the caller's.
    unsafe {
        let loaded = Q::load::<V>(quants);
        each_column!(column => {
            let weights = Q::column::<V>(loaded, column);
            let chain = column % chains::<V>(T);
            for (token, sums) in sums.iter_mut().enumerate() {
                let value = V::splat(*x.add(token * stride + column));
                sums[chain] = weights.mul_add(value, sums[chain]);
            }
        });
    }
}

#[inline(always)]
unsafe fn grouped<V: Lanes, Q: Quants, const T: usize>(
    block: *const u8,
    x: *const f32,
    sums: *const f32,
    layout: Layout,
    group: usize,
) -> [V; T] {
    // SAFETY: the caller's; a prefetch may lie anywhere.
    unsafe {
        let groups = layout.columns / group;
        let scaling = Scaling::new(layout.element);
        let is_nested = matches!(layout.element, Element::Nested { .. });
        let mut totals = [V::zero(); T];
        let mut outer = [V::zero(); 2];
        let mut at = block;
        for index in 0..groups {
            if is_nested && (index * group).is_multiple_of(OUTER) {
                prefetch(at.wrapping_add(AHEAD));
                prefetch(at.wrapping_add(AHEAD + 64));
                outer = outer_factors(at);
                at = at.add(layout.element.head_bytes());
            }
            let mut partial = [[V::zero(); 4]; T];
            let sum = |token: usize| *sums.add(token * groups + index);
            if let Some(zero) = scaling.zero {
                for (token, partial) in partial.iter_mut().enumerate() {
                    partial[0] = V::splat(zero * sum(token));
                }
            }
            let values = x.add(index * group);
            for column in (0..group).step_by(LANES) {
                for ahead in (0..Q::STEP).step_by(64) {
                    prefetch(at.wrapping_add(AHEAD + ahead));
                }
                accumulate::<V, Q, T>(at, values.add(column), layout.columns, &mut partial);
                at = at.add(Q::STEP);
            }
            prefetch(at.wrapping_add(AHEAD));
            let (scales, biases) = scaling.read(at, outer);
            at = at.add(scaling.bytes);
            for (token, (total, partial)) in totals.iter_mut().zip(partial).enumerate() {
                *total = scales.mul_add(fold(partial, chains::<V>(T)), *total);
                if let Some(biases) = biases {
                    *total = biases.mul_add(V::splat(sum(token)), *total);
                }
            }
        }
        totals
    }
}

/// The type of floats, as a type.
pub(super) trait Stored {
    const FLOAT: FloatType;
}

pub(super) struct F32;
pub(super) struct F16;
pub(super) struct BF16;

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
        folded(partial)
    }
}

/// The sums of each token's chains.
#[inline(always)]
pub(super) unsafe fn folded<V: Lanes, const T: usize>(partial: [[V; 4]; T]) -> [V; T] {
    // SAFETY: the caller's.
    unsafe {
        let mut sums = [V::zero(); T];
        for (sum, partial) in sums.iter_mut().zip(partial) {
            *sum = fold(partial, partial_sums(T));
        }
        sums
    }
}

/// The sum of the first so many of up to four.
#[inline(always)]
unsafe fn fold<V: Lanes>(partial: [V; 4], count: usize) -> V {
    // SAFETY: the caller's.
    unsafe {
        match count {
            4 => partial[0].add(partial[1]).add(partial[2].add(partial[3])),
            3 => partial[0].add(partial[1]).add(partial[2]),
            2 => partial[0].add(partial[1]),
            _ => partial[0],
        }
    }
}
