//! Projections of so few tokens that reading the weights is what takes the time.

use std::ops::Range;

use super::MAX_MATRICES;
use super::job::Job;
use crate::engine::kernels::gemv::{self, Prepared, Rows};
use crate::engine::kernels::isa::Task;
use crate::engine::kernels::lanes::Lanes;
use crate::engine::kernels::pool;

/// Work below this many bytes of weights is not shared: waking and waiting would cost as much.
const ALONE: usize = 24 << 10;
/// Chunks a thread, so that one that comes late leaves little to wait for.
const CHUNKS: usize = 6;
/// A chunk's largest size in bytes of weights, for the same reason.
const LARGEST: usize = 128 << 10;

pub(super) fn run(job: &Job<'_>) {
    let x = job.input();
    let inputs = Inputs::new(job, &x);
    let blocks = job.blocks();
    let bytes: usize = job.views().iter().map(|view| view.layout.bytes()).sum();
    let chunks = if bytes <= ALONE { 1 } else { (pool::threads() * CHUNKS).max(bytes.div_ceil(LARGEST)) };
    let together = blocks.div_ceil(chunks);
    pool::run(blocks.div_ceil(together), &|chunk| {
        let first = chunk * together;
        let range = first..blocks.min(first + together);
        match job.tokens {
            1 => multiply::<1>(job, &inputs, range),
            2 => multiply::<2>(job, &inputs, range),
            3 => multiply::<3>(job, &inputs, range),
            4 => multiply::<4>(job, &inputs, range),
            5 => multiply::<5>(job, &inputs, range),
            6 => multiply::<6>(job, &inputs, range),
            7 => multiply::<7>(job, &inputs, range),
            _ => multiply::<{ gemv::MAX_TOKENS }>(job, &inputs, range),
        }
    });
}

/// A task of its own for each number of tokens: all of them in one function would need a huge stack where
/// the compiler does not optimise.
fn multiply<const T: usize>(job: &Job<'_>, inputs: &Inputs<'_>, range: Range<usize>) {
    // SAFETY: each block is one worker's; the level was detected.
    unsafe { job.isa.run(Blocks::<T> { job, inputs, range }) };
}

/// `x` as each matrix wants it; matrices that want the same share it.
struct Inputs<'a> {
    prepared: [Option<Prepared<'a>>; MAX_MATRICES],
    of: [usize; MAX_MATRICES],
}

impl<'a> Inputs<'a> {
    fn new(job: &Job<'_>, x: &'a [f32]) -> Self {
        let mut inputs = Self { prepared: [const { None }; MAX_MATRICES], of: [0; MAX_MATRICES] };
        for (matrix, view) in job.views().iter().enumerate() {
            let serves =
                |it: &Option<Prepared<'_>>| it.as_ref().is_some_and(|it| it.serves(job.isa, view.layout));
            inputs.of[matrix] = inputs.prepared.iter().position(serves).unwrap_or_else(|| {
                inputs.prepared[matrix] = Some(Prepared::new(job.isa, view.layout, x));
                matrix
            });
        }
        inputs
    }

    fn of(&self, matrix: usize, tokens: usize) -> Rows {
        match &self.prepared[self.of[matrix]] {
            Some(prepared) => prepared.rows(0, tokens),
            None => unreachable!("a matrix that nothing was prepared for"),
        }
    }
}

struct Blocks<'a, const T: usize> {
    job: &'a Job<'a>,
    inputs: &'a Inputs<'a>,
    range: Range<usize>,
}

impl<const T: usize> Task for Blocks<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let job = self.job;
        for index in self.range.clone() {
            let part = job.part(index);
            let gated = job.finish.is_gate();
            let parts = [part, if gated { job.second(part) } else { part }];
            // SAFETY: the caller's; views have the lengths of their layouts, and `x` was prepared for them, a
            // row for each token.
            unsafe {
                let mut products = [[V::zero(); T]; 2];
                for (products, part) in products.iter_mut().zip(parts).take(1 + usize::from(gated)) {
                    let view = job.view(part);
                    let block = view.block(part.block).as_ptr();
                    *products = gemv::products::<V, T>(view.layout, block, self.inputs.of(part.matrix, T));
                }
                let [first, second] = products;
                for (token, (first, second)) in first.into_iter().zip(second).enumerate() {
                    job.finish(token, part, first, second);
                }
            }
        }
    }
}
