//! Products of many tokens with two blocks of packed rows, which are unpacked into a panel that stays in
//! the second-level cache while all tokens are multiplied by it.

use std::ops::Range;

use super::gemm::{self, Product};
use super::isa::{Isa, Task};
use super::lanes::Lanes;
use super::packed::{BLOCK, View};
use super::scratch::Scratch;

/// Columns of a panel: two blocks of rows.
pub(super) const PANEL: usize = 2 * BLOCK;
/// A panel's greatest depth: 160 KiB.
const MAX_DEPTH: usize = 1280;

/// Equal parts of the columns that end at borders of groups in every matrix; all have as many columns.
pub(super) fn depth(views: &[View<'_>]) -> usize {
    let columns = views.first().map_or(1, |view| view.layout.columns);
    let steps = views.iter().map(|view| view.layout.element.step());
    let step = steps.fold(1, least_common_multiple);
    let parts = columns.div_ceil(MAX_DEPTH);
    columns.div_ceil(parts).next_multiple_of(step).min(columns)
}

fn least_common_multiple(a: usize, b: usize) -> usize {
    let (mut x, mut y) = (a, b);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    a / x * b
}

/// The products of each row of `x` with one or two blocks, [`PANEL`] floats a row.
pub(super) fn multiply(
    isa: Isa,
    x: &[f32],
    first: (&View<'_>, usize),
    second: Option<(&View<'_>, usize)>,
    depth: usize,
    products: &mut [f32],
) {
    let columns = first.0.layout.columns;
    let rows = x.len() / columns;
    assert!(products.len() >= rows * PANEL, "products without room");
    let mut panel = Scratch::new(depth * PANEL);
    let blocks = [Some(first), second];
    for start in (0..columns).step_by(depth) {
        let end = columns.min(start + depth);
        for (half, (view, block)) in blocks.into_iter().flatten().enumerate() {
            assert_eq!(view.layout.columns, columns, "blocks of different lengths");
            let to = &mut panel[half * BLOCK..];
            // SAFETY: the level was detected.
            unsafe { isa.run(Unpack { view, block, columns: start..end, to }) };
        }
        let product = Product {
            a: x[start..].as_ptr(),
            a_stride: columns,
            b: panel.as_ptr(),
            b_stride: PANEL,
            c: products.as_mut_ptr(),
            c_stride: PANEL,
            rows,
            depth: end - start,
            width: if second.is_some() { PANEL } else { BLOCK },
            add: start > 0,
        };
        // SAFETY: the slices above have these sizes; the level was detected.
        unsafe { isa.run(product) };
    }
}

struct Unpack<'a> {
    view: &'a View<'a>,
    block: usize,
    columns: Range<usize>,
    to: &'a mut [f32],
}

impl Task for Unpack<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let Range { start, end } = self.columns;
        assert!(self.to.len() >= (end - start - 1) * PANEL + BLOCK, "a panel is too short");
        let block = self.view.block(self.block).as_ptr();
        // SAFETY: the caller's, and the panel is long enough.
        unsafe { gemm::unpack::<V>(self.view.layout, block, start, end, self.to.as_mut_ptr(), PANEL) };
    }
}
