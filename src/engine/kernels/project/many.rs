//! Projections of many tokens: two blocks of weights at a time, see [`panel`].

use std::ops::Range;

use super::job::{Job, Part};
use crate::engine::kernels::isa::Task;
use crate::engine::kernels::lanes::Lanes;
use crate::engine::kernels::packed::BLOCK;
use crate::engine::kernels::panel::{self, Blocks, PANEL};
use crate::engine::kernels::pool;
use crate::engine::kernels::scratch::Scratch;

/// Chunks a thread, so that one that comes late leaves little to wait for.
const CHUNKS: usize = 4;
/// The fewest tokens that are worth unpacking a panel once more.
const MIN_TOKENS: usize = 96;
/// Parts are whole runs of the innermost kernel, where there are enough tokens.
const TOKENS: usize = 12;

pub(super) fn run(job: &Job<'_>) {
    let x = job.input();
    let panels = if job.finish.is_gate() { job.blocks() } else { job.blocks().div_ceil(2) };
    let depth = panel::depth(job.views());
    let parts = (pool::threads() * CHUNKS).div_ceil(panels).clamp(1, (job.tokens / MIN_TOKENS).max(1));
    let together = job.tokens.div_ceil(parts).next_multiple_of(TOKENS);
    let parts = job.tokens.div_ceil(together);
    pool::run(panels * parts, &|chunk| {
        let (panel, part) = (chunk / parts, chunk % parts);
        let tokens = part * together..job.tokens.min((part + 1) * together);
        // The chunks of a thread follow each other.
        let next = (chunk + 1) / parts;
        let next = (next != panel && next < panels).then(|| panel_parts(job, next));
        multiply(job, &x, panel_parts(job, panel), next, depth, tokens);
    });
}

/// The blocks of a panel: two that follow each other, or the same of both matrices of a gate.
type Parts = (Part, Option<Part>);

fn panel_parts(job: &Job<'_>, panel: usize) -> Parts {
    if job.finish.is_gate() {
        let part = job.part(panel);
        return (part, Some(job.second(part)));
    }
    let second = 2 * panel + 1;
    (job.part(2 * panel), (second < job.blocks()).then(|| job.part(second)))
}

fn multiply(job: &Job<'_>, x: &[f32], parts: Parts, next: Option<Parts>, depth: usize, tokens: Range<usize>) {
    let mut products = Scratch::new(tokens.len() * PANEL);
    let rows = &x[tokens.start * job.columns..tokens.end * job.columns];
    let block = |part: Part| (job.view(part), part.block);
    let blocks = |parts: Parts| Blocks { first: block(parts.0), second: parts.1.map(block) };
    panel::multiply(job.isa, rows, blocks(parts), next.map(blocks), depth, &mut products);
    // SAFETY: these rows of these tokens are this worker's; the level was detected.
    unsafe { job.isa.run(End { job, parts, tokens, products: &products }) };
}

struct End<'a> {
    job: &'a Job<'a>,
    parts: Parts,
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
