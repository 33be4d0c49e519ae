//! Projections of so few tokens that reading the weights is what takes the time.

use std::ops::Range;

use super::MAX_MATRICES;
use super::job::Job;
use crate::engine::kernels::gemv;
use crate::engine::kernels::isa::Task;
use crate::engine::kernels::lanes::Lanes;
use crate::engine::kernels::pool;
use crate::engine::kernels::scratch::Scratch;

/// Work below this many bytes of weights is not shared: waking and waiting would cost as much.
const ALONE: usize = 24 << 10;
/// Chunks a thread, so that one that comes late leaves little to wait for.
const CHUNKS: usize = 6;
/// A chunk's largest size in bytes of weights, for the same reason.
const LARGEST: usize = 128 << 10;

pub(super) fn run(job: &Job<'_>) {
    let x = job.input();
    let sums = GroupSums::new(job, &x);
    let blocks = job.blocks();
    let bytes: usize = job.views().iter().map(|view| view.layout.bytes()).sum();
    let chunks = if bytes <= ALONE { 1 } else { (pool::threads() * CHUNKS).max(bytes.div_ceil(LARGEST)) };
    let together = blocks.div_ceil(chunks);
    pool::run(blocks.div_ceil(together), &|chunk| {
        let first = chunk * together;
        let range = first..blocks.min(first + together);
        match job.tokens {
            1 => multiply::<1>(job, &x, &sums, range),
            2 => multiply::<2>(job, &x, &sums, range),
            3 => multiply::<3>(job, &x, &sums, range),
            4 => multiply::<4>(job, &x, &sums, range),
            5 => multiply::<5>(job, &x, &sums, range),
            6 => multiply::<6>(job, &x, &sums, range),
            7 => multiply::<7>(job, &x, &sums, range),
            _ => multiply::<{ gemv::MAX_TOKENS }>(job, &x, &sums, range),
        }
    });
}

/// A task of its own for each number of tokens: all of them in one function would need a huge stack where
/// the compiler does not optimise.
fn multiply<const T: usize>(job: &Job<'_>, x: &[f32], sums: &GroupSums, range: Range<usize>) {
    // SAFETY: each block is one worker's; the level was detected.
    unsafe { job.isa.run(Blocks::<T> { job, x, sums, range }) };
}

/// For each matrix the sums of `x` over its groups of columns, `[tokens, groups]`.
struct GroupSums {
    all: Scratch,
    starts: [usize; MAX_MATRICES],
}

impl GroupSums {
    fn new(job: &Job<'_>, x: &[f32]) -> Self {
        let mut groups = [None; MAX_MATRICES];
        for (group, view) in groups.iter_mut().zip(job.views()) {
            *group = view.layout.element.group();
        }
        let mut all = Scratch::new(groups.iter().flatten().map(|group| x.len() / group).sum());
        let (mut starts, mut next) = ([0; MAX_MATRICES], 0);
        for matrix in 0..MAX_MATRICES {
            let Some(group) = groups[matrix] else { continue };
            if let Some(same) = groups[..matrix].iter().position(|earlier| *earlier == Some(group)) {
                starts[matrix] = starts[same];
                continue;
            }
            starts[matrix] = next;
            let to = &mut all[next..][..x.len() / group];
            next += to.len();
            // SAFETY: the level was detected.
            unsafe { job.isa.run(gemv::Sum { x, group, to }) };
        }
        Self { all, starts }
    }

    fn of(&self, matrix: usize) -> *const f32 {
        self.all[self.starts[matrix]..].as_ptr()
    }
}

struct Blocks<'a, const T: usize> {
    job: &'a Job<'a>,
    x: &'a [f32],
    sums: &'a GroupSums,
    range: Range<usize>,
}

impl<const T: usize> Task for Blocks<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let job = self.job;
        assert!(self.x.len() == T * job.columns, "tokens of another number");
        for index in self.range.clone() {
            let part = job.part(index);
            let gated = job.finish.is_gate();
            let parts = [part, if gated { job.second(part) } else { part }];
            // SAFETY: the caller's; views have the lengths of their layouts, `x` and the sums were made
            // for them.
            unsafe {
                let mut products = [[V::zero(); T]; 2];
                for (products, part) in products.iter_mut().zip(parts).take(1 + usize::from(gated)) {
                    let view = job.view(part);
                    let block = view.block(part.block).as_ptr();
                    let sums = self.sums.of(part.matrix);
                    *products = gemv::products::<V, T>(view.layout, block, self.x.as_ptr(), sums);
                }
                let [first, second] = products;
                for (token, (first, second)) in first.into_iter().zip(second).enumerate() {
                    job.finish(token, part, first, second);
                }
            }
        }
    }
}
