//! Attention of the query heads that share a key head, for some tokens over some positions: softmax in
//! one pass over tiles of the cache, rescaling what was summed when a larger score turns up (Milakov and
//! Gimelshein, arXiv:1805.02867; Dao et al., arXiv:2205.14135).

use std::ops::Range;

use super::job::Job;
use super::side::{Rows, Side};
use crate::engine::ffi::SharedSlice;
use crate::engine::kernels::gemm::{self, Ahead, Product};
use crate::engine::kernels::isa::Task;
use crate::engine::kernels::lanes::{AHEAD, Float, LANES, Lanes, exp, tanh};
use crate::engine::kernels::scratch::Scratch;

/// Positions of a tile, whose keys and values stay in the first- or second-level cache.
const TILE: usize = 128;
/// Up to so many queries, scalar products with the keys as they lie are faster than transposing them.
const FEW: usize = 8;

pub(super) struct Heads<'a> {
    pub(super) job: &'a Job<'a>,
    /// The key head.
    pub(super) head: usize,
    pub(super) tokens: Range<usize>,
    pub(super) positions: Range<usize>,
}

/// For each query (a token's query heads follow each other) the weighted sum of the values, the largest
/// score and the sum of the weights relative to it.
#[derive(Clone, Copy)]
pub(super) struct Sums<'a> {
    memory: SharedSlice<'a, f32>,
    queries: usize,
    width: usize,
}

impl Heads<'_> {
    fn queries(&self) -> usize {
        self.tokens.len() * self.job.group()
    }

    /// A value's size in whole vectors.
    fn padded(&self) -> usize {
        self.job.layer.value_dim.next_multiple_of(LANES)
    }

    /// Floats that [`Sums`] need.
    pub(super) fn sums_length(&self) -> usize {
        self.queries() * (self.padded() + 2)
    }

    /// The task of attending to the positions.
    pub(super) fn over<'b>(&'b self, sums: Sums<'b>) -> impl Task<Output = ()> + 'b {
        Over { heads: self, sums }
    }

    /// The task of writing the results from the sums over all parts of the positions.
    pub(super) fn ending<'b>(&'b self, parts: &'b [Sums<'b>]) -> impl Task<Output = ()> + 'b {
        End { heads: self, parts }
    }

    fn token(&self, query: usize) -> usize {
        self.tokens.start + query / self.job.group()
    }

    fn query_head(&self, query: usize) -> usize {
        self.head * self.job.group() + query % self.job.group()
    }
}

impl<'a> Sums<'a> {
    /// In memory of [`Heads::sums_length`].
    pub(super) fn new(heads: &Heads<'_>, memory: &'a mut [f32]) -> Self {
        Self { memory: SharedSlice::new(memory), queries: heads.queries(), width: heads.padded() }
    }

    fn values(&self) -> *mut f32 {
        self.memory.range(0, self.queries * self.width)
    }

    fn largest(&self, query: usize) -> *mut f32 {
        self.memory.range(self.queries * self.width + query, 1)
    }

    fn total(&self, query: usize) -> *mut f32 {
        self.memory.range(self.queries * (self.width + 1) + query, 1)
    }
}

struct Over<'a> {
    heads: &'a Heads<'a>,
    sums: Sums<'a>,
}

impl Task for Over<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let heads = self.heads;
        let (job, head_dim) = (heads.job, heads.job.layer.head_dim);
        let value_dim = job.layer.value_dim;
        let queries = heads.queries();
        let rotated = self.rotated_queries();
        let mut scores = Scratch::new(queries * TILE);
        let mut keys_across = Scratch::new(if queries > FEW { head_dim * TILE } else { 0 });
        let padded = heads.padded();
        let mut padded_values = Scratch::new(if padded > value_dim { padded * TILE } else { 0 });
        let unpacked = |side: Option<&Side>| {
            Scratch::new(side.filter(|side| side.is_packed()).map_or(0, |side| side.width() * TILE))
        };
        let (mut key_rows, mut value_rows) = (unpacked(Some(&job.keys)), unpacked(job.values.as_ref()));
        // Half floats are widened once for all queries, a few keys at a time, which stay in the first-level cache.
        let mut few_keys = Scratch::new(if job.keys.is_half() { head_dim * LANES } else { 0 });
        // SAFETY: the caller's; `range` checks the bounds of the caches, whose positions up to the tokens'
        // own are filled and not written any more; the scratch memory is as large as its users assume.
        unsafe {
            self.clear();
            for start in heads.positions.clone().step_by(TILE) {
                let count = TILE.min(heads.positions.end - start);
                let entry = heads.head * job.capacity + start;
                let keys = job.keys.rows(entry, count, &mut key_rows);
                let (mut values, mut stride) = match &job.values {
                    Some(side) => (side.rows(entry, count, &mut value_rows), value_dim),
                    None => (keys.after(head_dim - value_dim), head_dim),
                };
                if queries > FEW {
                    transpose::<V>(keys, count, head_dim, &mut few_keys, &mut keys_across);
                    job.isa.run(Product {
                        a: rotated.as_ptr(),
                        a_stride: head_dim,
                        b: gemm::columns(keys_across.as_ptr()),
                        b_stride: TILE,
                        c: scores.as_mut_ptr(),
                        c_stride: TILE,
                        rows: queries,
                        depth: head_dim,
                        width: count.next_multiple_of(LANES),
                        add: false,
                        ahead: Ahead::NOTHING,
                    });
                } else {
                    let beside = job.values.is_some().then_some((values, value_dim));
                    let keys = (keys, &mut *few_keys);
                    scalar_products::<V>(&rotated, keys, count, head_dim, beside, &mut scores);
                }
                for (query, scores) in scores.chunks_exact_mut(TILE).enumerate() {
                    self.weigh::<V>(query, start, &mut scores[..count.next_multiple_of(LANES)], count);
                }
                if padded > value_dim {
                    for position in 0..count {
                        let to = &mut padded_values[position * padded..][..padded];
                        values.after(position * stride).copy::<V>(&mut to[..value_dim]);
                        to[value_dim..].fill(0.0);
                    }
                    (values, stride) = (Rows::Floats(padded_values.as_ptr()), padded);
                }
                match values {
                    Rows::Floats(values) => job.isa.run(self.weighted(&scores, values, stride, count)),
                    Rows::Halves(values) => job.isa.run(self.weighted(&scores, values, stride, count)),
                }
            }
        }
    }
}

impl Over<'_> {
    /// The queries, rotated and multiplied by the scores' scale.
    #[inline(always)]
    fn rotated_queries(&self) -> Scratch {
        let heads = self.heads;
        let (job, head_dim) = (heads.job, heads.job.layer.head_dim);
        let mut rotated = Scratch::new(heads.queries() * head_dim);
        for (query, to) in rotated.chunks_exact_mut(head_dim).enumerate() {
            let token = heads.token(query);
            let from = &job.qkv[token * job.width() + heads.query_head(query) * head_dim..][..head_dim];
            let growth = job.layer.growth.map_or(1.0, |growth| growth.at(job.layer.offset + token));
            job.table.rotate(job.layer.traditional, token, job.layer.scale * growth, from, to);
            if let Some(weights) = job.query_weights {
                for (value, weight) in to.iter_mut().zip(weights) {
                    *value *= weight;
                }
            }
        }
        rotated
    }

    /// The task of adding `count` values, `stride` elements apart, weighted by the scores, to what is summed.
    #[inline(always)]
    fn weighted<B: Float>(
        &self,
        scores: &[f32],
        values: *const B,
        stride: usize,
        count: usize,
    ) -> Product<B> {
        let padded = self.heads.padded();
        Product {
            a: scores.as_ptr(),
            a_stride: TILE,
            b: gemm::columns(values),
            b_stride: stride,
            c: self.sums.values(),
            c_stride: padded,
            rows: self.sums.queries,
            depth: count,
            width: padded,
            add: true,
            ahead: Ahead::NOTHING,
        }
    }

    #[inline(always)]
    unsafe fn clear(&self) {
        // SAFETY: the memory belongs to this worker.
        unsafe {
            self.sums.values().write_bytes(0, self.sums.queries * self.sums.width);
            for query in 0..self.sums.queries {
                *self.sums.largest(query) = f32::NEG_INFINITY;
                *self.sums.total(query) = 0.0;
            }
        }
    }

    /// Turns the scores of one query with the positions from `start` on into weights relative to the
    /// largest score so far, and what was summed before with them. `scores` are padded to whole vectors.
    #[inline(always)]
    unsafe fn weigh<V: Lanes>(&self, query: usize, start: usize, scores: &mut [f32], count: usize) {
        let visible = self.heads.job.visible(self.heads.token(query));
        let within = |entry: usize| entry.saturating_sub(start).min(count);
        let (first, last) = (within(visible.start), within(visible.end));
        // Kept entries before the window; all of them are before the token.
        let kept = within(self.heads.job.layer.keep).min(first);
        if first >= last && kept == 0 {
            scores.fill(0.0);
            return;
        }
        if let Some(cap) = self.heads.job.layer.soft_cap {
            // SAFETY: the caller's; scores are whole vectors.
            unsafe {
                let (narrow, wide) = (V::splat(cap.recip()), V::splat(cap));
                for at in (0..scores.len()).step_by(LANES) {
                    let to = scores.as_mut_ptr().add(at);
                    tanh(V::load(to).mul(narrow)).mul(wide).store(to);
                }
            }
        }
        scores[kept..first].fill(f32::NEG_INFINITY);
        scores[last..].fill(f32::NEG_INFINITY);
        // SAFETY: the caller's; the memory of the sums belongs to this worker.
        unsafe {
            let mut largest = V::load(scores.as_ptr());
            for at in (LANES..scores.len()).step_by(LANES) {
                largest = largest.max(V::load(scores.as_ptr().add(at)));
            }
            let before = *self.sums.largest(query);
            let largest = largest.largest().max(before);
            let mut sum = V::zero();
            for at in (0..scores.len()).step_by(LANES) {
                let to = scores.as_mut_ptr().add(at);
                let weight = exp(V::load(to).sub(V::splat(largest)));
                weight.store(to);
                sum = sum.add(weight);
            }
            let factor = (before - largest).exp();
            let total = self.sums.total(query);
            *total = *total * factor + sum.sum();
            *self.sums.largest(query) = largest;
            if factor < 1.0 {
                let values = self.sums.values().add(query * self.sums.width);
                for at in (0..self.sums.width).step_by(LANES) {
                    V::load(values.add(at)).mul(V::splat(factor)).store(values.add(at));
                }
            }
        }
    }
}

/// `to[dimension][position]`, [`TILE`] floats from one dimension to the next. `few` has room for [`LANES`] keys that
/// are half floats.
#[inline(always)]
unsafe fn transpose<V: Lanes>(keys: Rows, count: usize, head_dim: usize, few: &mut [f32], to: &mut [f32]) {
    for row in (0..count).step_by(LANES) {
        let rows = LANES.min(count - row);
        // A square has whole rows; what is none goes number by number.
        let squares = if rows == LANES { head_dim / LANES * LANES } else { 0 };
        // SAFETY: the caller's; `to` has `TILE` floats for each dimension.
        unsafe {
            let keys = keys.after(row * head_dim).floats::<V>(rows * head_dim, few);
            for column in (0..squares).step_by(LANES) {
                let to = to.as_mut_ptr().add(column * TILE + row);
                V::transpose(keys.add(column), head_dim, to, TILE);
            }
            for key in 0..rows {
                for column in squares..head_dim {
                    to[column * TILE + row + key] = *keys.add(key * head_dim + column);
                }
            }
        }
    }
}

/// `scores[query][position]`, [`TILE`] floats from one query to the next, positions padded to whole
/// vectors by repeating the last. `keys` come with room for [`LANES`] that are half floats. The values at the same
/// positions, so many elements each, are wanted next.
#[inline(always)]
unsafe fn scalar_products<V: Lanes>(
    queries: &[f32],
    (keys, few): (Rows, &mut [f32]),
    count: usize,
    head_dim: usize,
    values: Option<(Rows, usize)>,
    scores: &mut [f32],
) {
    for at in (0..count).step_by(LANES) {
        let some = LANES.min(count - at);
        let keys = keys.after(at * head_dim);
        keys.fetch(AHEAD, LANES * head_dim);
        if let Some((values, width)) = values {
            values.after(at * width).fetch(0, some * width);
        }
        // SAFETY: the caller's; a tile is whole vectors.
        unsafe {
            let keys = keys.floats::<V>(some * head_dim, few);
            let rows = std::array::from_fn(|lane| keys.wrapping_add(lane.min(some - 1) * head_dim));
            for (query, scores) in queries.chunks_exact(head_dim).zip(scores.chunks_exact_mut(TILE)) {
                V::products(query.as_ptr(), rows, head_dim).store(scores[at..].as_mut_ptr());
            }
        }
    }
}

struct End<'a> {
    heads: &'a Heads<'a>,
    parts: &'a [Sums<'a>],
}

impl Task for End<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let heads = self.heads;
        let layer = heads.job.layer;
        let mut weights = vec![0.0; self.parts.len()];
        // SAFETY: the caller's; nobody writes the sums any more, and these results belong to this worker.
        unsafe {
            for query in 0..heads.queries() {
                let sink = heads.job.sinks.map(|sinks| sinks[heads.query_head(query)]);
                let least = sink.unwrap_or(f32::NEG_INFINITY);
                let largest = self.parts.iter().fold(least, |all, part| all.max(*part.largest(query)));
                let mut total = sink.map_or(0.0, |sink| (sink - largest).exp());
                for (weight, part) in weights.iter_mut().zip(self.parts) {
                    *weight = (*part.largest(query) - largest).exp();
                    total += *weight * *part.total(query);
                }
                for weight in &mut weights {
                    *weight /= total;
                }
                let at = (heads.token(query) * layer.heads + heads.query_head(query)) * layer.value_dim;
                let to = heads.job.out.range(at, layer.value_dim);
                for start in (0..layer.value_dim).step_by(LANES) {
                    let mut sum = V::zero();
                    for (part, &weight) in self.parts.iter().zip(&weights) {
                        let values = V::load(part.values().add(query * part.width + start));
                        sum = values.mul_add(V::splat(weight), sum);
                    }
                    let count = LANES.min(layer.value_dim - start);
                    sum.store_part(to.add(start), count);
                }
            }
        }
    }
}
