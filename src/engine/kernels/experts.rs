//! A mixture of experts (Shazeer et al., arXiv:1701.06538): each token goes to a few of many feed-forward
//! blocks, whose results are added up by weight.

use std::ffi::CStr;
use std::ops::Range;

use mlx_rs::error::Exception;
use mlx_rs::{Array, Dtype};

use super::check;
use super::gemv::{self, MAX_TOKENS};
use super::isa::{Isa, Task};
use super::lanes::{LANES, Lanes, activate};
use super::packed::{BLOCK, Layout, PackedMatrix, View};
use super::pool;
use super::scratch::Scratch;
use crate::engine::config::style::Activation;
use crate::engine::ffi::{Buffers, Kernel, OutputSpec, SharedSlice, cpu_op};

/// Blocks of rows that a worker multiplies at once.
const TOGETHER: usize = 4;

/// How tokens are sent to experts.
#[derive(Debug, Clone, Copy)]
pub struct Routing {
    pub count: usize,
    /// Experts a token.
    pub used: usize,
    /// Whether the weights of the experts used add up to one.
    pub normalized: bool,
    pub activation: Activation,
}

/// `Σ weight · down(act(gate(x)) * up(x))` over each token's experts, `[L, H]` from `x` `[L, H]`.
///
/// `scores` `[L, count]` are what the weights are the softmax of. The matrices of all experts lie one below
/// the other: gate and up `[count * I, H]`, down `[count * H, I]`, where I and H are multiples of 16.
///
/// # Errors
/// Shapes or types that do not fit each other.
pub fn experts(
    x: &Array,
    scores: &Array,
    [gate, up, down]: [&PackedMatrix; 3],
    routing: &Routing,
) -> Result<Array, Exception> {
    let (tokens, hidden) = check::matrix(x, "the input of experts")?;
    let Routing { count, used, .. } = *routing;
    check::shape(scores, "the scores of experts", &[tokens, count])?;
    let inner = down.columns();
    let fits = used > 0
        && used <= count
        && hidden.is_multiple_of(BLOCK)
        && inner.is_multiple_of(BLOCK)
        && [gate, up].iter().all(|it| (it.rows(), it.columns()) == (count * inner, hidden))
        && down.rows() == count * hidden;
    if !fits {
        return Err(Exception::custom(format!("{count} experts of shapes that do not fit each other")));
    }
    let shape = [check::dimension(tokens)?, check::dimension(hidden)?];
    let layouts = [gate.layout(), up.layout(), down.layout()];
    let kernel = Experts { isa: Isa::current(), tokens, hidden, inner, layouts, routing: *routing };
    let inputs = [x, scores, gate.array(), up.array(), down.array()];
    check::single(cpu_op(kernel, &inputs, &[OutputSpec::New { shape: &shape, dtype: Dtype::Float32 }])?)
}

#[derive(Clone, Copy)]
struct Experts {
    isa: Isa,
    tokens: usize,
    hidden: usize,
    inner: usize,
    /// Of gate, up and down.
    layouts: [Layout; 3],
    routing: Routing,
}

/// One token at one expert.
#[derive(Clone, Copy)]
struct Visit {
    expert: usize,
    token: usize,
    weight: f32,
}

impl Kernel for Experts {
    const NAME: &'static CStr = c"Experts";

    fn run(&self, buffers: &Buffers<'_>) {
        let x = buffers.input::<f32>(0);
        let visits = self.visits(buffers.input::<f32>(1));
        let views: [View<'_>; 3] =
            std::array::from_fn(|i| View::new(self.layouts[i], buffers.input::<u8>(2 + i)));
        let runs = runs(&visits);

        let mut gathered = Scratch::new(visits.len() * self.hidden);
        for (visit, row) in visits.iter().zip(gathered.chunks_exact_mut(self.hidden)) {
            row.copy_from_slice(&x[visit.token * self.hidden..][..self.hidden]);
        }
        let mut inner = Scratch::new(visits.len() * self.inner);
        let sums = [self.sums(self.layouts[0], &gathered), self.sums(self.layouts[1], &gathered)];
        let to = SharedSlice::new(&mut inner);
        let parts = (self.inner / BLOCK).div_ceil(TOGETHER);
        pool::run(runs.len() * parts, &|chunk| {
            let run = runs[chunk / parts].clone();
            let first = chunk % parts * TOGETHER;
            let blocks = first..(self.inner / BLOCK).min(first + TOGETHER);
            let inside = Inside { kernel: self, views: &views, x: &gathered, sums: &sums, to, blocks };
            let expert = visits[run.start].expert;
            match run.len() {
                1 => inside.at::<1>(expert, run.start),
                2 => inside.at::<2>(expert, run.start),
                3 => inside.at::<3>(expert, run.start),
                4 => inside.at::<4>(expert, run.start),
                5 => inside.at::<5>(expert, run.start),
                6 => inside.at::<6>(expert, run.start),
                7 => inside.at::<7>(expert, run.start),
                _ => inside.at::<MAX_TOKENS>(expert, run.start),
            }
        });

        let sums = self.sums(self.layouts[2], &inner);
        let out = buffers.output::<f32>(0);
        // A block of columns of the result is one worker's, whatever the experts that add to it.
        pool::run(self.hidden / BLOCK, &|block| {
            for token in 0..self.tokens {
                // SAFETY: these columns are this worker's.
                unsafe { out.slice(token * self.hidden + block * BLOCK, BLOCK) }.fill(0.0);
            }
            let outside = Outside { kernel: self, view: &views[2], x: &inner, sums: &sums, out, block };
            for run in &runs {
                let visits = &visits[run.clone()];
                match visits.len() {
                    1 => outside.at::<1>(visits, run.start),
                    2 => outside.at::<2>(visits, run.start),
                    3 => outside.at::<3>(visits, run.start),
                    4 => outside.at::<4>(visits, run.start),
                    5 => outside.at::<5>(visits, run.start),
                    6 => outside.at::<6>(visits, run.start),
                    7 => outside.at::<7>(visits, run.start),
                    _ => outside.at::<MAX_TOKENS>(visits, run.start),
                }
            }
        });
    }
}

impl Experts {
    /// Who goes where, by expert. Scores that are no numbers make a weight that is none.
    fn visits(&self, scores: &[f32]) -> Vec<Visit> {
        let Routing { count, used, normalized, .. } = self.routing;
        let mut visits = Vec::with_capacity(self.tokens * used);
        let mut order: Vec<usize> = Vec::with_capacity(count);
        for (token, scores) in scores.chunks_exact(count).enumerate() {
            order.clear();
            order.extend(0..count);
            order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
            let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let weight = |expert: usize| (scores[expert] - largest).exp();
            let among = if normalized { &order[..used] } else { &order[..] };
            let total: f32 = among.iter().map(|&expert| weight(expert)).sum();
            visits.extend(order[..used].iter().map(|&expert| Visit {
                expert,
                token,
                weight: weight(expert) / total,
            }));
        }
        visits.sort_by_key(|visit| visit.expert);
        visits
    }

    /// Sums of rows of `x` over the groups of a layout.
    fn sums(&self, layout: Layout, x: &[f32]) -> Scratch {
        let Some(group) = layout.element.group() else { return Scratch::new(0) };
        let mut sums = Scratch::new(x.len() / group);
        // SAFETY: the level was detected.
        unsafe { self.isa.run(gemv::Sum { x, group, to: &mut sums }) };
        sums
    }
}

/// Visits of one expert that follow each other, at most as many as a product takes.
fn runs(visits: &[Visit]) -> Vec<Range<usize>> {
    let mut runs = Vec::new();
    let mut first = 0;
    while first < visits.len() {
        let expert = visits[first].expert;
        let most = visits.len().min(first + MAX_TOKENS);
        let last = (first..most).find(|&at| visits[at].expert != expert).unwrap_or(most);
        runs.push(first..last);
        first = last;
    }
    runs
}

/// Where the sums of row `first` begin.
fn sums_at(layout: Layout, sums: &[f32], first: usize) -> *const f32 {
    layout.element.group().map_or(sums.as_ptr(), |group| sums[first * (layout.columns / group)..].as_ptr())
}

/// The inner sizes of one expert for some tokens: `act(gate(x)) * up(x)`.
struct Inside<'a> {
    kernel: &'a Experts,
    views: &'a [View<'a>; 3],
    x: &'a [f32],
    sums: &'a [Scratch; 2],
    to: SharedSlice<'a, f32>,
    /// Of the inner size.
    blocks: Range<usize>,
}

impl Inside<'_> {
    fn at<const T: usize>(&self, expert: usize, first: usize) {
        // SAFETY: each block of each token is one worker's; the level was detected.
        unsafe { self.kernel.isa.run(InsideOf::<T> { inside: self, expert, first }) };
    }
}

struct InsideOf<'a, const T: usize> {
    inside: &'a Inside<'a>,
    expert: usize,
    /// The first visit.
    first: usize,
}

impl<const T: usize> Task for InsideOf<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let Inside { kernel, views, x, sums, to, blocks } = self.inside;
        let x = x[self.first * kernel.hidden..][..T * kernel.hidden].as_ptr();
        for block in blocks.clone() {
            let at = self.expert * (kernel.inner / BLOCK) + block;
            // SAFETY: the caller's; views have the lengths of their layouts, `x` and sums T rows.
            unsafe {
                let mut products = [[V::zero(); T]; 2];
                for (index, products) in products.iter_mut().enumerate() {
                    let (view, sums) = (&views[index], &sums[index]);
                    let sums = sums_at(view.layout, sums, self.first);
                    *products = gemv::products::<V, T>(view.layout, view.block(at).as_ptr(), x, sums);
                }
                let [gates, ups] = products;
                for (token, (gate, up)) in gates.into_iter().zip(ups).enumerate() {
                    let to = to.range((self.first + token) * kernel.inner + block * BLOCK, BLOCK);
                    activate(kernel.routing.activation, gate).mul(up).store(to);
                }
            }
        }
    }
}

/// What one expert adds to a block of some tokens' results.
struct Outside<'a> {
    kernel: &'a Experts,
    view: &'a View<'a>,
    x: &'a [f32],
    sums: &'a [f32],
    out: SharedSlice<'a, f32>,
    /// Of the hidden size.
    block: usize,
}

impl Outside<'_> {
    fn at<const T: usize>(&self, visits: &[Visit], first: usize) {
        // SAFETY: the block is one worker's; the level was detected.
        unsafe { self.kernel.isa.run(OutsideOf::<T> { outside: self, visits, first }) };
    }
}

struct OutsideOf<'a, const T: usize> {
    outside: &'a Outside<'a>,
    /// Of one expert.
    visits: &'a [Visit],
    first: usize,
}

impl<const T: usize> Task for OutsideOf<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let Outside { kernel, view, x, sums, out, block } = *self.outside;
        let x = x[self.first * kernel.inner..][..T * kernel.inner].as_ptr();
        let at = self.visits[0].expert * (kernel.hidden / BLOCK) + block;
        // SAFETY: the caller's; the view has the length of its layout, `x` and sums T rows.
        unsafe {
            let sums = sums_at(view.layout, sums, self.first);
            let products = gemv::products::<V, T>(view.layout, view.block(at).as_ptr(), x, sums);
            for (visit, product) in self.visits.iter().zip(products) {
                let to = out.range(visit.token * kernel.hidden + block * LANES, LANES);
                product.mul_add(V::splat(visit.weight), V::load(to)).store(to);
            }
        }
    }
}
