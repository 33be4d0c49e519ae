//! Projections of many tokens: two blocks of weights at a time are unpacked into a panel that stays in
//! the second-level cache while all tokens are multiplied by it.

use std::ops::Range;

use super::job::{Job, Part};
use crate::engine::kernels::gemm::{self, Product};
use crate::engine::kernels::isa::Task;
use crate::engine::kernels::lanes::Lanes;
use crate::engine::kernels::packed::{BLOCK, View};
use crate::engine::kernels::pool;
use crate::engine::kernels::scratch::Scratch;

/// Columns of a panel: two blocks of rows.
const PANEL: usize = 2 * BLOCK;
/// A panel's greatest depth: 160 KiB.
const MAX_DEPTH: usize = 1280;
/// Chunks a thread, so that one that comes late leaves little to wait for.
const CHUNKS: usize = 4;
/// The fewest tokens that are worth unpacking a panel once more.
const MIN_TOKENS: usize = 96;
/// Parts are whole runs of the innermost kernel, where there are enough tokens.
const TOKENS: usize = 12;

pub(super) fn run(job: &Job<'_>) {
    let x = job.input();
    let panels = if job.finish.is_gate() { job.blocks() } else { job.blocks().div_ceil(2) };
    let depth = panel_depth(job);
    let parts = (pool::threads() * CHUNKS).div_ceil(panels).clamp(1, (job.tokens / MIN_TOKENS).max(1));
    let together = job.tokens.div_ceil(parts).next_multiple_of(TOKENS);
    let parts = job.tokens.div_ceil(together);
    pool::run(panels * parts, &|chunk| {
        let (panel, part) = (chunk / parts, chunk % parts);
        let tokens = part * together..job.tokens.min((part + 1) * together);
        multiply(job, &x, panel_parts(job, panel), depth, tokens);
    });
}

/// The blocks of a panel: two that follow each other, or the same of both matrices of a gate.
fn panel_parts(job: &Job<'_>, panel: usize) -> (Part, Option<Part>) {
    if job.finish.is_gate() {
        let part = job.part(panel);
        return (part, Some(job.second(part)));
    }
    let second = 2 * panel + 1;
    (job.part(2 * panel), (second < job.blocks()).then(|| job.part(second)))
}

/// Equal parts of the columns that end at borders of groups in every matrix.
fn panel_depth(job: &Job<'_>) -> usize {
    let steps = job.views().iter().map(|view| view.layout.element.step());
    let step = steps.fold(1, least_common_multiple);
    let parts = job.columns.div_ceil(MAX_DEPTH);
    job.columns.div_ceil(parts).next_multiple_of(step).min(job.columns)
}

fn least_common_multiple(a: usize, b: usize) -> usize {
    let (mut x, mut y) = (a, b);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    a / x * b
}

fn multiply(job: &Job<'_>, x: &[f32], parts: (Part, Option<Part>), depth: usize, tokens: Range<usize>) {
    let mut panel = Scratch::new(depth * PANEL);
    let mut products = Scratch::new(tokens.len() * PANEL);
    let blocks = [Some(parts.0), parts.1];
    for first in (0..job.columns).step_by(depth) {
        let last = job.columns.min(first + depth);
        for (half, part) in blocks.into_iter().flatten().enumerate() {
            let (view, block) = (job.view(part), part.block);
            let to = &mut panel[half * BLOCK..];
            // SAFETY: the level was detected.
            unsafe { job.isa.run(Unpack { view, block, columns: first..last, to }) };
        }
        let rows = &x[tokens.start * job.columns..tokens.end * job.columns];
        let product = Product {
            a: rows[first..].as_ptr(),
            a_stride: job.columns,
            b: panel.as_ptr(),
            b_stride: PANEL,
            c: products.as_mut_ptr(),
            c_stride: PANEL,
            rows: tokens.len(),
            depth: last - first,
            width: if parts.1.is_some() { PANEL } else { BLOCK },
            add: first > 0,
        };
        // SAFETY: the slices above have these sizes; the level was detected.
        unsafe { job.isa.run(product) };
    }
    // SAFETY: these rows of these tokens are this worker's; the level was detected.
    unsafe { job.isa.run(End { job, parts, tokens, products: &products }) };
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

struct End<'a> {
    job: &'a Job<'a>,
    parts: (Part, Option<Part>),
    tokens: Range<usize>,
    /// `[tokens, PANEL]`
    products: &'a [f32],
}

impl Task for End<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let (part, second) = self.parts;
        for (token, row) in self.tokens.zip(self.products.chunks_exact(PANEL)) {
            // SAFETY: the caller's; a row holds two vectors.
            unsafe {
                let (low, high) = (V::load(row.as_ptr()), V::load(row.as_ptr().add(BLOCK)));
                match second {
                    _ if self.job.finish.is_gate() => self.job.finish(token, part, low, high),
                    Some(second) => {
                        self.job.finish(token, part, low, V::zero());
                        self.job.finish(token, second, high, V::zero());
                    }
                    None => self.job.finish(token, part, low, V::zero()),
                }
            }
        }
    }
}
