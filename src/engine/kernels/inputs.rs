//! Activations as the products of a few tokens want them.

use super::isa::{Isa, Task};
use super::lanes::{LANES, Lanes};
use super::packed::{Element, Layout};
use super::quants::{Quants, SUBNORMAL, by_reading};
use super::scratch::Scratch;

/// Rows of `x` as each of up to `N` matrices of as many columns wants them; those that want the same share it.
pub(super) struct Inputs<'a, const N: usize> {
    prepared: [Option<Prepared<'a>>; N],
    of: [usize; N],
}

impl<'a, const N: usize> Inputs<'a, N> {
    /// `x` is whole rows of the layouts' columns.
    pub(super) fn new(isa: Isa, layouts: impl Iterator<Item = Layout>, x: &'a [f32]) -> Self {
        let mut inputs = Self { prepared: [const { None }; N], of: [0; N] };
        for (matrix, layout) in layouts.enumerate() {
            let form = Form::of(isa, layout.element, isa.subnormals());
            let serves = |it: &Option<Prepared<'_>>| it.as_ref().is_some_and(|it| it.wanted == form);
            inputs.of[matrix] = inputs.prepared.iter().position(serves).unwrap_or_else(|| {
                inputs.prepared[matrix] = Some(Prepared::new(isa, layout, form, x));
                matrix
            });
        }
        inputs
    }

    /// Some of the rows for one of the matrices.
    pub(super) fn rows(&self, matrix: usize, first: usize, count: usize) -> Rows<'_> {
        match &self.prepared[self.of[matrix]] {
            Some(prepared) => prepared.rows(first, count),
            None => unreachable!("a matrix that nothing was prepared for"),
        }
    }
}

/// Some rows to be [multiplied](super::gemv::multiply).
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) x: &'a [f32],
    /// The sums of `x` over each group, `[rows, groups]`, of elements that have groups.
    pub(super) sums: &'a [f32],
    /// Where numbers are to be taken for subnormal floats: what products with them are too small by.
    pub(super) subnormal: Option<f32>,
}

/// How numbers of an element want what they are multiplied with.
#[derive(Clone, Copy, PartialEq)]
struct Form {
    /// Over how many columns sums are wanted.
    group: Option<usize>,
    /// By which powers of two the numbers of 16 columns are too large.
    powers: [i32; LANES],
}

impl Form {
    fn of(isa: Isa, element: Element, subnormal: bool) -> Self {
        // SAFETY: the level was detected.
        Self { group: element.group(), powers: unsafe { isa.run(Powers { element, subnormal }) } }
    }

    fn is_subnormal(self) -> bool {
        self.powers.iter().all(|&power| power < 0)
    }
}

struct Powers {
    element: Element,
    subnormal: bool,
}

impl Task for Powers {
    type Output = [i32; LANES];

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) -> Self::Output {
        let (Element::Affine { bits, .. } | Element::Nested { bits, .. }) = self.element else {
            return [0; LANES];
        };
        by_reading!(V, self.subnormal, bits, Q => std::array::from_fn(Q::power::<V>))
    }
}

struct Prepared<'a> {
    x: &'a [f32],
    columns: usize,
    /// Sums of a row.
    groups: usize,
    wanted: Form,
    /// `x` with each column made smaller, or larger, by what numbers are too large, or too small, by.
    lowered: Option<Scratch>,
    /// As in [`Rows`].
    sums: Scratch,
    subnormal: Option<f32>,
}

/// Products with subnormal numbers, multiples of 2⁻¹⁴⁹, are too small by 2 to the power of this when what they are
/// multiplied with was between 1 and 2 and is made 2¹²⁶ times as large: the largest there is, so that they are not
/// subnormal themselves.
const SUBNORMAL_PRODUCT: i32 = SUBNORMAL - 126;

impl<'a> Prepared<'a> {
    fn new(isa: Isa, layout: Layout, wanted: Form, x: &'a [f32]) -> Self {
        let exponent = if wanted.is_subnormal() { exponent(isa, x) } else { None };
        let (form, unit, product) = match exponent {
            Some(exponent) => (wanted, exponent, SUBNORMAL_PRODUCT + exponent),
            None if wanted.is_subnormal() => (Form::of(isa, layout.element, false), 0, 0),
            None => (wanted, 0, 0),
        };
        let is_raised = form.powers.iter().any(|&power| power != 0);
        let mut lowered = is_raised.then(|| Scratch::new(x.len()));
        let groups = form.group.map_or(0, |group| layout.columns / group);
        let mut sums = Scratch::new(x.len() / layout.columns * groups);
        if let Some(group) = form.group {
            let task = Prepare {
                x,
                group,
                to: lowered.as_deref_mut(),
                factor: power_of_two(-unit),
                factors: form.powers.map(|power| power_of_two(unit - product - power)),
                sums: &mut sums,
                sum_factor: power_of_two(-product),
            };
            // SAFETY: the level was detected.
            unsafe { isa.run(task) };
        }
        let subnormal = exponent.map(|_| power_of_two(product));
        Self { x, columns: layout.columns, groups, wanted, lowered, sums, subnormal }
    }

    fn rows(&self, first: usize, count: usize) -> Rows<'_> {
        let x = self.lowered.as_deref().unwrap_or(self.x);
        let x = &x[first * self.columns..][..count * self.columns];
        let sums = &self.sums[first * self.groups..][..count * self.groups];
        Rows { x, sums, subnormal: self.subnormal }
    }
}

/// 2 to the power of a number in -126..=127.
fn power_of_two(power: i32) -> f32 {
    f32::from_bits(((power + 127) as u32) << 23)
}

/// The exponent of the largest number of `x`, or what is nearest to it among those whose powers of two are floats in
/// all that follows. `None` if one is infinite, or so large that products with subnormal numbers might become so.
fn exponent(isa: Isa, x: &[f32]) -> Option<i32> {
    const MOST: i32 = 100;
    // SAFETY: the level was detected.
    let largest = unsafe { isa.run(Largest(x)) };
    let exponent = (largest.to_bits() >> 23) as i32 - 127;
    (exponent <= MOST).then_some(exponent.max(-MOST))
}

/// The largest magnitude.
struct Largest<'a>(&'a [f32]);

impl Task for Largest<'_> {
    type Output = f32;

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) -> f32 {
        // SAFETY: the caller's; vectors are whole.
        unsafe {
            let mut largest = V::zero();
            for x in self.0.chunks_exact(LANES) {
                let x = V::load(x.as_ptr());
                // The second operand is the result when one is NaN: what was found before it stays.
                largest = V::zero().sub(x).max(x.max(largest));
            }
            largest.largest()
        }
    }
}

/// Multiplies columns and sums up groups of them.
struct Prepare<'a> {
    x: &'a [f32],
    /// A multiple of 16 that divides the length of a row.
    group: usize,
    to: Option<&'a mut [f32]>,
    /// What all of `to` is multiplied with, and then each of 16 columns; the product of both may be no float.
    factor: f32,
    factors: [f32; LANES],
    sums: &'a mut [f32],
    sum_factor: f32,
}

impl Task for Prepare<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(mut self) {
        // SAFETY: the caller's; groups are whole vectors.
        unsafe {
            let (factor, factors) = (V::splat(self.factor), V::load(self.factors.as_ptr()));
            for (index, sum) in self.sums.iter_mut().enumerate() {
                let range = index * self.group..(index + 1) * self.group;
                let mut total = V::zero();
                for (step, x) in self.x[range.clone()].chunks_exact(LANES).enumerate() {
                    let x = V::load(x.as_ptr());
                    total = if step == 0 { x } else { total.add(x) };
                    if let Some(to) = &mut self.to {
                        let to = &mut to[range.start + step * LANES..][..LANES];
                        x.mul(factor).mul(factors).store(to.as_mut_ptr());
                    }
                }
                *sum = total.sum() * self.sum_factor;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_hides_no_large_one() {
        let mut x = [1.0; 4 * LANES];
        (x[3], x[LANES + 3], x[2 * LANES + 5]) = (-1e30, f32::NAN, f32::NAN);
        for isa in Isa::available() {
            assert_eq!(exponent(isa, &x), Some(99), "{isa:?}");
            let mut infinite = x;
            infinite[5] = f32::NEG_INFINITY;
            assert_eq!(exponent(isa, &infinite), None, "{isa:?}");
        }
    }
}
