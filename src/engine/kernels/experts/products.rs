//! The products of one expert with the tokens that come to it: of a few row by row, of many by panels.

use std::ops::Range;

use super::routing::Visit;
use crate::engine::config::style::Gating;
use crate::engine::ffi::SharedSlice;
use crate::engine::kernels::gemv::{self, MAX_TOKENS};
use crate::engine::kernels::inputs::Inputs;
use crate::engine::kernels::isa::{Isa, Task};
use crate::engine::kernels::lanes::{LANES, Lanes, activate, load_part, silu};
use crate::engine::kernels::packed::{BLOCK, View};
use crate::engine::kernels::panel::{self, Blocks, PANEL};
use crate::engine::kernels::scratch::Scratch;

/// One matrix of each expert.
pub(super) struct Factors<'a> {
    pub(super) view: View<'a>,
    /// `[experts, rows]`
    pub(super) bias: Option<&'a [f32]>,
    /// Of one expert.
    pub(super) rows: usize,
}

impl Factors<'_> {
    /// Where a block of an expert's rows lies.
    fn block(&self, expert: usize, block: usize) -> usize {
        expert * self.rows.div_ceil(BLOCK) + block
    }

    /// How many rows of a block are not padding.
    fn width(&self, block: usize) -> usize {
        BLOCK.min(self.rows - block * BLOCK)
    }

    #[inline(always)]
    unsafe fn with_bias<V: Lanes>(&self, expert: usize, block: usize, products: V) -> V {
        match self.bias {
            Some(bias) => {
                let bias = &bias[expert * self.rows + block * BLOCK..][..self.width(block)];
                // SAFETY: the caller's.
                unsafe { products.add(load_part(bias)) }
            }
            None => products,
        }
    }
}

/// A few visits at a time for what has a constant number of them.
fn few(run: &Range<usize>) -> impl Iterator<Item = Range<usize>> {
    run.clone().step_by(MAX_TOKENS).map(|first| first..run.end.min(first + MAX_TOKENS))
}

/// The gated inner values of experts.
pub(super) struct Inside<'a> {
    pub(super) isa: Isa,
    pub(super) gating: Gating,
    pub(super) gate: &'a Factors<'a>,
    pub(super) up: &'a Factors<'a>,
    /// `[visits, hidden]`
    pub(super) x: &'a [f32],
    /// The same for the two matrices.
    pub(super) inputs: Inputs<'a, 2>,
    /// `[visits, inner]`
    pub(super) to: SharedSlice<'a, f32>,
}

impl Inside<'_> {
    /// For the visits of an expert, these blocks of the inner size, which are the caller's alone.
    pub(super) fn compute(&self, expert: usize, run: &Range<usize>, blocks: Range<usize>) {
        if run.len() > MAX_TOKENS {
            return self.compute_many(expert, run, blocks);
        }
        for visits in few(run) {
            let task = FewInside { inside: self, expert, visits, blocks: blocks.clone() };
            // SAFETY: each block of each token is one worker's; the level was detected.
            unsafe { self.isa.run(task) };
        }
    }

    fn compute_many(&self, expert: usize, run: &Range<usize>, blocks: Range<usize>) {
        let columns = self.gate.view.layout.columns;
        let x = &self.x[run.start * columns..run.end * columns];
        let depth = panel::depth(&[self.gate.view, self.up.view]);
        let mut products = Scratch::new(run.len() * PANEL);
        for block in blocks {
            let of = |factors: &'_ Factors<'_>| factors.block(expert, block);
            let up = (&self.up.view, of(self.up));
            let (first, second) =
                if self.is_gated() { ((&self.gate.view, of(self.gate)), Some(up)) } else { (up, None) };
            panel::multiply(self.isa, x, Blocks { first, second }, None, depth, &mut products);
            let end = EndInside { inside: self, expert, first: run.start, block, products: &products };
            // SAFETY: this block of these visits is this worker's; the level was detected.
            unsafe { self.isa.run(end) };
        }
    }

    /// Whether there is a gate; else what stands in its place is the same as up, and not computed.
    fn is_gated(&self) -> bool {
        !matches!(self.gating, Gating::Alone(_))
    }

    /// Stores a block of one visit.
    #[inline(always)]
    unsafe fn finish<V: Lanes>(&self, expert: usize, visit: usize, block: usize, gate: V, up: V) {
        // SAFETY: the caller's; ranges are checked.
        unsafe {
            let gate = self.gate.with_bias(expert, block, gate);
            let up = self.up.with_bias(expert, block, up);
            let width = self.gate.width(block);
            let to = self.to.range(visit * self.gate.rows + block * BLOCK, width);
            store_part(gated(self.gating, gate, up), to, width);
        }
    }
}

struct FewInside<'a> {
    inside: &'a Inside<'a>,
    expert: usize,
    visits: Range<usize>,
    blocks: Range<usize>,
}

impl Task for FewInside<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let Self { inside, expert, visits, blocks } = self;
        let factors = [inside.gate, inside.up];
        let skipped = usize::from(!inside.is_gated());
        let mut products = [[[0.0; LANES]; MAX_TOKENS]; 2];
        for block in blocks {
            let parts = products.iter_mut().zip(factors).enumerate().skip(skipped);
            for (matrix, (products, factors)) in parts {
                let rows = inside.inputs.rows(matrix, visits.start, visits.len());
                let weights = factors.block(expert, block);
                gemv::multiply(inside.isa, &factors.view, weights, rows, &mut products[..visits.len()]);
            }
            let [gates, ups] = &products;
            for (visit, (gate, up)) in visits.clone().zip(gates.iter().zip(ups)) {
                // SAFETY: the caller's.
                unsafe {
                    inside.finish(expert, visit, block, V::load(gate.as_ptr()), V::load(up.as_ptr()));
                }
            }
        }
    }
}

struct EndInside<'a> {
    inside: &'a Inside<'a>,
    expert: usize,
    first: usize,
    block: usize,
    /// `[visits, PANEL]`: gate, then up.
    products: &'a [f32],
}

impl Task for EndInside<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        for (visit, row) in self.products.chunks_exact(PANEL).enumerate() {
            // SAFETY: the caller's; a row holds two vectors.
            unsafe {
                let first = V::load(row.as_ptr());
                let second = if self.inside.is_gated() { V::load(row.as_ptr().add(BLOCK)) } else { first };
                let (gate, up) = (first, second);
                self.inside.finish(self.expert, self.first + visit, self.block, gate, up);
            }
        }
    }
}

/// What experts add to the result.
pub(super) struct Outside<'a> {
    pub(super) isa: Isa,
    pub(super) down: &'a Factors<'a>,
    /// `[visits, inner]`
    pub(super) x: &'a [f32],
    /// The same for the matrix.
    pub(super) inputs: Inputs<'a, 1>,
    /// `[L, hidden]`
    pub(super) out: SharedSlice<'a, f32>,
}

impl Outside<'_> {
    /// Adds these blocks (one or two) for the visits of a run, which go to one expert; the blocks are the
    /// caller's alone.
    pub(super) fn add(&self, visits: &[Visit], run: &Range<usize>, blocks: Range<usize>) {
        if run.len() > MAX_TOKENS {
            return self.add_many(visits, run, blocks);
        }
        for (part, block) in few(run).flat_map(|part| blocks.clone().map(move |block| (part.clone(), block)))
        {
            // SAFETY: the block is one worker's; the level was detected.
            unsafe { self.isa.run(FewOutside { outside: self, visits, part, block }) };
        }
    }

    fn add_many(&self, visits: &[Visit], run: &Range<usize>, blocks: Range<usize>) {
        let view = &self.down.view;
        let columns = view.layout.columns;
        let visits = &visits[run.clone()];
        let expert = visits[0].expert;
        let of = |block: usize| (view, self.down.block(expert, block));
        let mut products = Scratch::new(run.len() * PANEL);
        let x = &self.x[run.start * columns..run.end * columns];
        let second = (blocks.len() > 1).then(|| of(blocks.start + 1));
        let both = Blocks { first: of(blocks.start), second };
        panel::multiply(self.isa, x, both, None, panel::depth(&[*view]), &mut products);
        // SAFETY: the blocks are one worker's; the level was detected.
        unsafe { self.isa.run(EndOutside { outside: self, visits, blocks, products: &products }) };
    }

    /// Adds the products of one visit with a block.
    #[inline(always)]
    unsafe fn finish<V: Lanes>(&self, visit: &Visit, block: usize, products: V) {
        // SAFETY: the caller's; ranges are checked.
        unsafe {
            let width = self.down.width(block);
            let to = self.out.range(visit.token * self.down.rows + block * BLOCK, width);
            let before = if width == LANES { V::load(to) } else { V::load_part(to, width) };
            let products = self.down.with_bias(visit.expert, block, products);
            store_part(products.mul_add(V::splat(visit.weight), before), to, width);
        }
    }
}

struct FewOutside<'a> {
    outside: &'a Outside<'a>,
    visits: &'a [Visit],
    /// Those of one expert.
    part: Range<usize>,
    block: usize,
}

impl Task for FewOutside<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let Self { outside, visits, part, block } = self;
        let weights = outside.down.block(visits[part.start].expert, block);
        let mut products = [[0.0; LANES]; MAX_TOKENS];
        let products = &mut products[..part.len()];
        let rows = outside.inputs.rows(0, part.start, part.len());
        gemv::multiply(outside.isa, &outside.down.view, weights, rows, products);
        for (visit, products) in visits[part].iter().zip(products) {
            // SAFETY: the caller's.
            unsafe { outside.finish(visit, block, V::load(products.as_ptr())) };
        }
    }
}

struct EndOutside<'a> {
    outside: &'a Outside<'a>,
    visits: &'a [Visit],
    blocks: Range<usize>,
    /// `[visits, PANEL]`
    products: &'a [f32],
}

impl Task for EndOutside<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        for (visit, row) in self.visits.iter().zip(self.products.chunks_exact(PANEL)) {
            for (half, block) in self.blocks.clone().enumerate() {
                // SAFETY: the caller's; a row holds two vectors.
                unsafe { self.outside.finish(visit, block, V::load(row.as_ptr().add(half * BLOCK))) };
            }
        }
    }
}

#[inline(always)]
unsafe fn store_part<V: Lanes>(values: V, to: *mut f32, count: usize) {
    // SAFETY: the caller's.
    unsafe { if count == LANES { values.store(to) } else { values.store_part(to, count) } }
}

#[inline(always)]
unsafe fn gated<V: Lanes>(gating: Gating, gate: V, up: V) -> V {
    // SAFETY: the caller's.
    unsafe {
        match gating {
            Gating::Plain(activation) => activate(activation, gate).mul(up),
            Gating::Alone(activation) => activate(activation, up),
            Gating::Clamped { alpha, limit } => {
                let gate = gate.clamp(V::splat(-f32::MAX), V::splat(limit));
                let up = up.clamp(V::splat(-limit), V::splat(limit)).add(V::splat(1.0));
                silu(gate.mul(V::splat(alpha))).mul(V::splat(alpha.recip())).mul(up)
            }
        }
    }
}
