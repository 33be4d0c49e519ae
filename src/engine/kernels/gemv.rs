//! Products of a few tokens with a block of 16 packed rows, which are read and unpacked once for all of
//! them. Quants are summed before their scale is applied: Σ (s q + b) x = s Σ q x + b Σ x, group by group.

use super::isa::{Isa, Task};
use super::lanes::{AHEAD, LANES, Lanes, prefetch};
use super::packed::{BLOCK, Element, Layout};
use super::quants::{Fp4, Fp8, Iq4, Quants, Scaling, by_bits, each_column, outer_factors};
use super::rows;
use super::scratch::Scratch;
use crate::engine::format::weight::{CodeTable, FloatType, OUTER};

/// The most tokens at once.
pub(super) const MAX_TOKENS: usize = 8;

/// Rows of `x` as [`products`] with a layout wants them.
pub(super) struct Prepared<'a> {
    x: &'a [f32],
    columns: usize,
    kind: Kind,
    /// `x`, where numbers come too large, with each column as much smaller.
    lowered: Option<Scratch>,
    /// The sums of `x` over each group, `[rows, groups]`.
    sums: Scratch,
}

/// What matrices have in common that want the same.
#[derive(Clone, Copy, PartialEq)]
struct Kind {
    group: Option<usize>,
    /// What 16 columns of `x` are multiplied with, if they are.
    factors: Option<[f32; LANES]>,
}

/// Some rows of [`Prepared`].
#[derive(Clone, Copy)]
pub(super) struct Rows {
    x: *const f32,
    sums: *const f32,
}

impl<'a> Prepared<'a> {
    /// `x` is whole rows of the layout's columns.
    pub(super) fn new(isa: Isa, layout: Layout, x: &'a [f32]) -> Self {
        let kind = Kind::of(isa, layout.element);
        let lowered = kind.factors.map(|factors| {
            let mut lowered = Scratch::new(x.len());
            // SAFETY: the level was detected.
            unsafe { isa.run(Lower { x, factors: &factors, to: &mut lowered }) };
            lowered
        });
        let mut sums = Scratch::new(kind.group.map_or(0, |group| x.len() / group));
        if let Some(group) = kind.group {
            // SAFETY: the level was detected.
            unsafe { isa.run(Sum { x, group, to: &mut sums }) };
        }
        Self { x, columns: layout.columns, kind, lowered, sums }
    }

    /// Whether another layout of as many columns wants the same.
    pub(super) fn serves(&self, isa: Isa, layout: Layout) -> bool {
        self.kind == Kind::of(isa, layout.element)
    }

    pub(super) fn rows(&self, first: usize, count: usize) -> Rows {
        let x = self.lowered.as_deref().unwrap_or(self.x);
        let groups = self.kind.group.map_or(0, |group| self.columns / group);
        let x = &x[first * self.columns..][..count * self.columns];
        Rows { x: x.as_ptr(), sums: self.sums[first * groups..][..count * groups].as_ptr() }
    }
}

impl Kind {
    fn of(isa: Isa, element: Element) -> Self {
        // SAFETY: the level was detected.
        Self { group: element.group(), factors: unsafe { isa.run(Factors(element)) } }
    }
}

/// By what columns of `x` are to be multiplied because their numbers are [`Quants::raised`].
struct Factors(Element);

impl Task for Factors {
    type Output = Option<[f32; LANES]>;

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) -> Self::Output {
        let (Element::Affine { bits, .. } | Element::Nested { bits, .. }) = self.0 else { return None };
        let powers: [usize; LANES] = by_bits!(bits, Q => std::array::from_fn(Q::power::<V>));
        let factors = powers.map(|power| ((1_u64 << power) as f32).recip());
        powers.iter().any(|&power| power > 0).then_some(factors)
    }
}

/// Multiplies whole vectors of columns.
struct Lower<'a> {
    x: &'a [f32],
    factors: &'a [f32; LANES],
    to: &'a mut [f32],
}

impl Task for Lower<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        // SAFETY: the caller's; vectors are whole.
        unsafe {
            let factors = V::load(self.factors.as_ptr());
            for (x, to) in self.x.chunks_exact(LANES).zip(self.to.chunks_exact_mut(LANES)) {
                V::load(x.as_ptr()).mul(factors).store(to.as_mut_ptr());
            }
        }
    }
}

/// The products of `T` rows of `x`, `layout.columns` floats each, with the 16 rows of `block`.
///
/// # Safety
/// `V`'s instructions exist; `block` is as long as `layout` says; the rows were [`Prepared`] for it, and are as many.
#[inline(always)]
pub(super) unsafe fn products<V: Lanes, const T: usize>(
    layout: Layout,
    block: *const u8,
    Rows { x, sums }: Rows,
) -> [V; T] {
    // SAFETY: the caller's.
    unsafe {
        match layout.element {
            Element::Dense(FloatType::F32) => dense::<V, F32, T>(block, x, layout.columns),
            Element::Dense(FloatType::F16) => dense::<V, F16, T>(block, x, layout.columns),
            Element::Dense(FloatType::BF16) => dense::<V, BF16, T>(block, x, layout.columns),
            Element::Rows(row_type) => rows::products::<V, T>(row_type, block, x, layout.columns),
            Element::Affine { bits, group, .. } | Element::Nested { bits, group, .. } => {
                by_bits!(bits, Q => grouped::<V, Q, T>(block, x, sums, layout, group))
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
            let weights = Q::raised::<V>(loaded, column);
            let chain = column % partial_sums(T);
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
                *total = scales.mul_add(fold::<V, T>(partial), *total);
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
            *sum = fold::<V, T>(partial);
        }
        sums
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

/// Sums of `x` over its groups of columns.
struct Sum<'a> {
    x: &'a [f32],
    /// A multiple of 16 that divides the length of a row.
    group: usize,
    to: &'a mut [f32],
}

impl Task for Sum<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        for (sum, values) in self.to.iter_mut().zip(self.x.chunks_exact(self.group)) {
            // SAFETY: the caller's, and groups are whole vectors.
            unsafe {
                let mut total = V::load(values.as_ptr());
                for at in (LANES..self.group).step_by(LANES) {
                    total = total.add(V::load(values.as_ptr().add(at)));
                }
                *sum = total.sum();
            }
        }
    }
}
