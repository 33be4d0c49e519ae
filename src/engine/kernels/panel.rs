//! Products of many tokens with two blocks of packed rows, which are unpacked into a panel that stays in
//! the second-level cache while all tokens are multiplied by it.

use std::ops::Range;

use super::gemm::{self, Ahead, Product};
use super::isa::{Isa, Task};
use super::lanes::Lanes;
use super::packed::{BLOCK, Element, View};
use super::scratch::Scratch;
use crate::engine::format::weight::FloatType;

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

/// One or two blocks of rows.
#[derive(Clone, Copy)]
pub(super) struct Blocks<'a> {
    pub(super) first: (&'a View<'a>, usize),
    pub(super) second: Option<(&'a View<'a>, usize)>,
}

impl<'a> Blocks<'a> {
    fn each(self) -> impl Iterator<Item = (&'a View<'a>, usize)> {
        [Some(self.first), self.second].into_iter().flatten()
    }

    /// Where float32 rows lie as a product wants them.
    fn plain(self) -> Option<[*const f32; 2]> {
        let is_plain = |(view, _): (&View<'_>, _)| view.layout.element == Element::Dense(FloatType::F32);
        let start = |(view, block): (&View<'_>, usize)| view.block(block).as_ptr().cast();
        self.each().all(is_plain).then(|| [start(self.first), start(self.second.unwrap_or(self.first))])
    }

    fn ahead(self) -> Ahead {
        let block = |(view, block): (&'a View<'a>, usize)| view.block(block);
        let (first, second) = (block(self.first), block(self.second.unwrap_or(self.first)));
        Ahead { starts: [first.as_ptr(), second.as_ptr()], bytes: first.len().max(second.len()) }
    }
}

/// The products of each row of `x` with some blocks, [`PANEL`] floats a row. Meanwhile the `next` ones are asked
/// for.
pub(super) fn multiply(
    isa: Isa,
    x: &[f32],
    blocks: Blocks<'_>,
    next: Option<Blocks<'_>>,
    depth: usize,
    products: &mut [f32],
) {
    let columns = blocks.first.0.layout.columns;
    let rows = x.len() / columns;
    assert!(products.len() >= rows * PANEL, "products without room");
    assert!(blocks.each().all(|(view, _)| view.layout.columns == columns), "blocks of different lengths");
    let plain = blocks.plain();
    let mut panel = Scratch::new(if plain.is_none() { depth * PANEL } else { 0 });
    let next = next.map_or(Ahead::NOTHING, Blocks::ahead);
    for start in (0..columns).step_by(depth) {
        let end = columns.min(start + depth);
        if plain.is_none() {
            for (half, (view, block)) in blocks.each().enumerate() {
                let to = &mut panel[half * BLOCK..];
                // SAFETY: the level was detected.
                unsafe { isa.run(Unpack { view, block, columns: start..end, to }) };
            }
        }
        let part = |bytes: usize, column: usize| bytes * column / columns;
        let from = part(next.bytes, start);
        let product = Product {
            a: x[start..].as_ptr(),
            a_stride: columns,
            b: plain.map_or(gemm::columns(panel.as_ptr()), |blocks| {
                blocks.map(|block| block.wrapping_add(start * BLOCK))
            }),
            b_stride: if plain.is_some() { BLOCK } else { PANEL },
            c: products.as_mut_ptr(),
            c_stride: PANEL,
            rows,
            depth: end - start,
            width: if blocks.second.is_some() { PANEL } else { BLOCK },
            add: start > 0,
            ahead: Ahead {
                starts: next.starts.map(|address| address.wrapping_add(from)),
                bytes: part(next.bytes, end) - from,
            },
        };
        // SAFETY: the slices above have these sizes, as have blocks of so many columns; the level was detected.
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
