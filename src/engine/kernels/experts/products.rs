//! The products of one expert with the tokens that come to it: of a few row by row, of many by panels.

use std::ops::Range;

use super::routing::Visit;
use crate::engine::config::style::Gating;
use crate::engine::ffi::SharedSlice;
use crate::engine::kernels::gemv::{self, MAX_TOKENS, Prepared};
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
    pub(super) prepared: [Prepared<'a>; 2],
    /// `[visits, inner]`
    pub(super) to: SharedSlice<'a, f32>,
}

impl Inside<'_> {
    /// For the visits of an expert, these blocks of the inner size, which are the caller's alone.
    pub(super) fn compute(&self, expert: usize, run: &Range<usize>, blocks: Range<usize>) {
        if run.len() > MAX_TOKENS {
            return self.compute_many(expert, run, blocks);
        }
        for part in few(run) {
            match part.len() {
                1 => self.compute_few::<1>(expert, part.start, blocks.clone()),
                2 => self.compute_few::<2>(expert, part.start, blocks.clone()),
                3 => self.compute_few::<3>(expert, part.start, blocks.clone()),
                4 => self.compute_few::<4>(expert, part.start, blocks.clone()),
                5 => self.compute_few::<5>(expert, part.start, blocks.clone()),
                6 => self.compute_few::<6>(expert, part.start, blocks.clone()),
                7 => self.compute_few::<7>(expert, part.start, blocks.clone()),
                _ => self.compute_few::<MAX_TOKENS>(expert, part.start, blocks.clone()),
            }
        }
    }

    fn compute_few<const T: usize>(&self, expert: usize, first: usize, blocks: Range<usize>) {
        // SAFETY: each block of each token is one worker's; the level was detected.
        unsafe { self.isa.run(FewInside::<T> { inside: self, expert, first, blocks }) };
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

struct FewInside<'a, const T: usize> {
    inside: &'a Inside<'a>,
    expert: usize,
    /// The first visit.
    first: usize,
    blocks: Range<usize>,
}

impl<const T: usize> Task for FewInside<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let Self { inside, expert, first, blocks } = self;
        for block in blocks {
            // SAFETY: the caller's; views have the lengths of their layouts, what was prepared T rows from the first.
            unsafe {
                let mut products = [[V::zero(); T]; 2];
                let factors = [inside.gate, inside.up];
                let skipped = usize::from(!inside.is_gated());
                let parts = products.iter_mut().zip(factors).zip(&inside.prepared).skip(skipped);
                for ((products, factors), prepared) in parts {
                    let layout = factors.view.layout;
                    let weights = factors.view.block(factors.block(expert, block)).as_ptr();
                    *products = gemv::products::<V, T>(layout, weights, prepared.rows(first, T));
                }
                let [gates, ups] = products;
                for (token, (gate, up)) in gates.into_iter().zip(ups).enumerate() {
                    inside.finish(expert, first + token, block, gate, up);
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
    pub(super) prepared: Prepared<'a>,
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
            let visits = &visits[part.clone()];
            match visits.len() {
                1 => self.add_few::<1>(visits, part.start, block),
                2 => self.add_few::<2>(visits, part.start, block),
                3 => self.add_few::<3>(visits, part.start, block),
                4 => self.add_few::<4>(visits, part.start, block),
                5 => self.add_few::<5>(visits, part.start, block),
                6 => self.add_few::<6>(visits, part.start, block),
                7 => self.add_few::<7>(visits, part.start, block),
                _ => self.add_few::<MAX_TOKENS>(visits, part.start, block),
            }
        }
    }

    fn add_few<const T: usize>(&self, visits: &[Visit], first: usize, block: usize) {
        // SAFETY: the block is one worker's; the level was detected.
        unsafe { self.isa.run(FewOutside::<T> { outside: self, visits, first, block }) };
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

struct FewOutside<'a, const T: usize> {
    outside: &'a Outside<'a>,
    /// Of one expert.
    visits: &'a [Visit],
    first: usize,
    block: usize,
}

impl<const T: usize> Task for FewOutside<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let Self { outside, visits, first, block } = self;
        let view = &outside.down.view;
        let weights = view.block(outside.down.block(visits[0].expert, block)).as_ptr();
        // SAFETY: the caller's; the view has the length of its layout, what was prepared T rows from the first.
        unsafe {
            let products = gemv::products::<V, T>(view.layout, weights, outside.prepared.rows(first, T));
            for (visit, products) in visits.iter().zip(products) {
                outside.finish(visit, block, products);
            }
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
