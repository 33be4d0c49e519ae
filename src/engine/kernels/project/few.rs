//! Projections of so few tokens that reading the weights is what takes the time.

use std::ops::Range;

use super::MAX_MATRICES;
use super::job::Job;
use crate::engine::kernels::gemv::{self, MAX_TOKENS};
use crate::engine::kernels::inputs::Inputs;
use crate::engine::kernels::isa::Task;
use crate::engine::kernels::lanes::{LANES, Lanes};
use crate::engine::kernels::pool;

/// Work below this many bytes of weights is not shared: waking and waiting would cost as much.
const ALONE: usize = 24 << 10;
/// Chunks a thread, so that one that comes late leaves little to wait for.
const CHUNKS: usize = 6;
/// A chunk's largest size in bytes of weights, for the same reason.
const LARGEST: usize = 128 << 10;

pub(super) fn run(job: &Job<'_>) {
    let x = job.input();
    let inputs = Inputs::new(job.isa, job.views().iter().map(|view| view.layout), &x);
    let blocks = job.blocks();
    let bytes: usize = job.views().iter().map(|view| view.layout.bytes()).sum();
    let chunks = if bytes <= ALONE { 1 } else { (pool::threads() * CHUNKS).max(bytes.div_ceil(LARGEST)) };
    let together = blocks.div_ceil(chunks);
    pool::run(blocks.div_ceil(together), &|chunk| {
        let first = chunk * together;
        // SAFETY: each block is one worker's; the level was detected.
        unsafe { job.isa.run(Blocks { job, inputs: &inputs, range: first..blocks.min(first + together) }) };
    });
}

struct Blocks<'a> {
    job: &'a Job<'a>,
    inputs: &'a Inputs<'a, MAX_MATRICES>,
    range: Range<usize>,
}

impl Task for Blocks<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let job = self.job;
        let mut products = [[[0.0; LANES]; MAX_TOKENS]; 2];
        let gated = job.finish.is_gate();
        for index in self.range {
            let part = job.part(index);
            let parts = [part, if gated { job.second(part) } else { part }];
            for (products, part) in products.iter_mut().zip(parts).take(1 + usize::from(gated)) {
                let rows = self.inputs.rows(part.matrix, 0, job.tokens);
                gemv::multiply(job.isa, job.view(part), part.block, rows, &mut products[..job.tokens]);
            }
            let [first, second] = &products;
            for (token, (first, second)) in first.iter().zip(second).enumerate().take(job.tokens) {
                // SAFETY: the caller's.
                unsafe { job.finish(token, part, V::load(first.as_ptr()), V::load(second.as_ptr())) };
            }
        }
    }
}
