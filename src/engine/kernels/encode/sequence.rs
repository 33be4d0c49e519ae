//! Attention of some query heads of one sequence.

use std::ops::Range;

use super::SequenceAttention;
use crate::engine::ffi::SharedSlice;
use crate::engine::kernels::gemm::{self, Ahead, Product};
use crate::engine::kernels::isa::{Isa, Task};
use crate::engine::kernels::lanes::{LANES, Lanes, exp};
use crate::engine::kernels::scratch::Scratch;

/// Queries whose scores are computed together: their rows stay in the second-level cache.
const QUERIES: usize = 48;
/// Multiplications that are worth a chunk of their own.
const WORTH: usize = 1 << 18;
/// Chunks a thread, so that one that comes late leaves little to wait for.
const CHUNKS: usize = 4;

pub(super) struct Job<'a> {
    pub(super) isa: Isa,
    pub(super) layer: SequenceAttention,
    pub(super) qkv: &'a [f32],
    /// Dimensions of a head that are rotated.
    pub(super) rotated: usize,
    /// `[P, rotated]`: cosines, then sines.
    pub(super) rotation: &'a [f32],
    pub(super) bias_positions: usize,
    /// `[H, 2 P - 1]`
    pub(super) bias: &'a [f32],
    pub(super) out: SharedSlice<'a, f32>,
}

/// What a worker does at once.
pub(super) struct Unit {
    /// The tokens of the sequence.
    sequence: Range<usize>,
    /// Key heads.
    heads: Range<usize>,
    /// Tokens of the sequence whose queries are answered, counted from its start.
    queries: Range<usize>,
}

impl Unit {
    /// All the work, the largest pieces first.
    pub(super) fn share_out(job: &Job<'_>, starts: &[usize], threads: usize) -> Vec<Self> {
        let layer = job.layer;
        let cost = |length: usize| length * length * layer.heads * layer.head_dim * 2;
        let all: usize = starts.windows(2).map(|pair| cost(pair[1] - pair[0])).sum();
        let largest = (all / (threads * CHUNKS).max(1)).max(WORTH);
        let mut units = Vec::with_capacity(starts.len());
        for pair in starts.windows(2) {
            let (sequence, length) = (pair[0]..pair[1], pair[1] - pair[0]);
            let pieces = cost(length).div_ceil(largest);
            let head_pieces = pieces.clamp(1, layer.kv_heads);
            let query_pieces = pieces.div_ceil(head_pieces).clamp(1, length.div_ceil(QUERIES));
            let heads_each = layer.kv_heads.div_ceil(head_pieces);
            let queries_each = length.div_ceil(query_pieces).next_multiple_of(QUERIES);
            for head in (0..layer.kv_heads).step_by(heads_each) {
                for query in (0..length).step_by(queries_each) {
                    units.push(Self {
                        sequence: sequence.clone(),
                        heads: head..layer.kv_heads.min(head + heads_each),
                        queries: query..length.min(query + queries_each),
                    });
                }
            }
        }
        units.sort_by_key(|unit| {
            std::cmp::Reverse(unit.queries.len() * unit.sequence.len() * unit.heads.len())
        });
        units
    }
}

impl Job<'_> {
    pub(super) fn attend(&self, unit: &Unit) {
        for head in unit.heads.clone() {
            // SAFETY: the level was detected; these heads of these tokens are this worker's.
            unsafe { self.isa.run(Head { job: self, unit, index: head }) };
        }
    }

    fn width(&self) -> usize {
        (self.layer.heads + 2 * self.layer.kv_heads) * self.layer.head_dim
    }

    /// One head of one token in `qkv`: queries come first, then keys, then values.
    fn head(&self, token: usize, head: usize) -> &[f32] {
        &self.qkv[token * self.width() + head * self.layer.head_dim..][..self.layer.head_dim]
    }

    /// The same head of this token and all that follow it, [`width`](Self::width) apart.
    fn from(&self, token: usize, head: usize) -> *const f32 {
        self.qkv[token * self.width() + head * self.layer.head_dim..].as_ptr()
    }

    /// The positions that a query sees, in a sequence of this length.
    fn visible(&self, query: usize, length: usize) -> Range<usize> {
        let (mut first, mut end) = (0, length);
        if let Some(reach) = self.layer.reach {
            first = query.saturating_sub(reach);
            end = end.min(query.saturating_add(reach).saturating_add(1));
        }
        if self.layer.causal {
            end = end.min(query + 1);
        }
        first..end
    }

    /// Writes a head of tokens that follow each other, the first one at `position`, rotated where that is wanted.
    #[inline(always)]
    fn gather(&self, token: usize, position: usize, head: usize, to: &mut [f32]) {
        for (row, to) in to.chunks_exact_mut(self.layer.head_dim).enumerate() {
            let from = self.head(token + row, head);
            if self.rotated > 0 {
                self.rotate(position + row, from, to);
            } else {
                to.copy_from_slice(from);
            }
        }
    }

    /// Writes a head of the token at `position` rotated.
    #[inline(always)]
    fn rotate(&self, position: usize, from: &[f32], to: &mut [f32]) {
        let half = self.rotated / 2;
        let (cosines, sines) = self.rotation[position * self.rotated..][..self.rotated].split_at(half);
        let (from, from_rest) = from.split_at(self.rotated);
        let (to, to_rest) = to.split_at_mut(self.rotated);
        if self.layer.interleaved {
            for i in 0..half {
                to[2 * i] = from[2 * i] * cosines[i] - from[2 * i + 1] * sines[i];
                to[2 * i + 1] = from[2 * i] * sines[i] + from[2 * i + 1] * cosines[i];
            }
        } else {
            let (low, high) = from.split_at(half);
            let (to_low, to_high) = to.split_at_mut(half);
            for i in 0..half {
                to_low[i] = low[i] * cosines[i] - high[i] * sines[i];
                to_high[i] = low[i] * sines[i] + high[i] * cosines[i];
            }
        }
        to_rest.copy_from_slice(from_rest);
    }
}

/// All queries of a unit that share a key head.
struct Head<'a> {
    job: &'a Job<'a>,
    unit: &'a Unit,
    /// Which key head.
    index: usize,
}

impl Task for Head<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let (job, unit) = (self.job, self.unit);
        let (layer, length) = (job.layer, unit.sequence.len());
        let (head_dim, group) = (layer.head_dim, layer.heads / layer.kv_heads);
        // Positions that any of the queries sees.
        let seen =
            job.visible(unit.queries.start, length).start..job.visible(unit.queries.end - 1, length).end;
        let stride = seen.len().next_multiple_of(LANES);
        let padded = head_dim.next_multiple_of(LANES);
        let key_head = layer.heads + self.index;
        let value_head = key_head + layer.kv_heads;
        let first = unit.sequence.start + seen.start;

        let mut keys = Scratch::new(LANES * head_dim);
        let mut keys_across = Scratch::new(head_dim * stride);
        for row in (0..stride).step_by(LANES) {
            let count = LANES.min(seen.len() - row);
            let (mut from, mut from_stride) = (job.from(first + row, key_head), job.width());
            if job.rotated > 0 || count < LANES {
                job.gather(first + row, seen.start + row, key_head, &mut keys[..count * head_dim]);
                keys[count * head_dim..].fill(0.0);
                (from, from_stride) = (keys.as_ptr(), head_dim);
            }
            // SAFETY: the caller's; there are as many rows of keys, and `stride` times `head_dim` floats.
            unsafe { transpose::<V>(from, from_stride, head_dim, &mut keys_across[row..], stride) };
        }
        // Whole vectors of values are read where they lie.
        let mut copied = Scratch::new(if padded > head_dim { seen.len() * padded } else { 0 });
        for (row, to) in copied.chunks_exact_mut(padded).enumerate() {
            to[..head_dim].copy_from_slice(job.head(first + row, value_head));
            to[head_dim..].fill(0.0);
        }
        let (values, values_stride) = if padded > head_dim {
            (copied.as_ptr(), padded)
        } else {
            (job.from(first, value_head), job.width())
        };

        let mut queries = Scratch::new(QUERIES * head_dim);
        let mut scores = Scratch::new(QUERIES * stride);
        let mut sums = Scratch::new(QUERIES * padded);
        for query_head in self.index * group..(self.index + 1) * group {
            for first in unit.queries.clone().step_by(QUERIES) {
                let rows = first..unit.queries.end.min(first + QUERIES);
                let token = unit.sequence.start + rows.start;
                let (mut from, mut from_stride) = (job.from(token, query_head), job.width());
                if job.rotated > 0 {
                    let queries = &mut queries[..rows.len() * head_dim];
                    job.gather(token, rows.start, query_head, queries);
                    (from, from_stride) = (queries.as_ptr(), head_dim);
                }
                // SAFETY: the caller's; the scratch memory is as large as the products assume, and these
                // rows of the output are this worker's.
                unsafe {
                    job.isa.run(Product {
                        a: from,
                        a_stride: from_stride,
                        b: gemm::columns(keys_across.as_ptr()),
                        b_stride: stride,
                        c: scores.as_mut_ptr(),
                        c_stride: stride,
                        rows: rows.len(),
                        depth: head_dim,
                        width: stride,
                        add: false,
                        ahead: Ahead::NOTHING,
                    });
                    let mut totals = [0.0; QUERIES];
                    for (row, position) in rows.clone().enumerate() {
                        let scores = &mut scores[row * stride..][..stride];
                        totals[row] = self.weigh::<V>(query_head, position, &seen, scores);
                    }
                    job.isa.run(Product {
                        a: scores.as_ptr(),
                        a_stride: stride,
                        b: gemm::columns(values),
                        b_stride: values_stride,
                        c: sums.as_mut_ptr(),
                        c_stride: padded,
                        rows: rows.len(),
                        depth: seen.len(),
                        width: padded,
                        add: false,
                        ahead: Ahead::NOTHING,
                    });
                    for (row, position) in rows.enumerate() {
                        let token = unit.sequence.start + position;
                        let to = job.out.range((token * layer.heads + query_head) * head_dim, head_dim);
                        let factor = V::splat(1.0 / totals[row]);
                        for at in (0..head_dim).step_by(LANES) {
                            let value = V::load(sums[row * padded + at..][..LANES].as_ptr()).mul(factor);
                            let count = LANES.min(head_dim - at);
                            if count == LANES {
                                value.store(to.add(at));
                            } else {
                                value.store_part(to.add(at), count);
                            }
                        }
                    }
                }
            }
        }
    }
}

impl Head<'_> {
    /// Turns the scores of one query with the positions `seen` into weights relative to the largest, and
    /// sums them up. `scores` are padded to whole vectors.
    #[inline(always)]
    unsafe fn weigh<V: Lanes>(
        &self,
        head: usize,
        query: usize,
        seen: &Range<usize>,
        scores: &mut [f32],
    ) -> f32 {
        let job = self.job;
        let visible = job.visible(query, self.unit.sequence.len());
        // SAFETY: the caller's; `scores` are whole vectors.
        unsafe {
            if job.bias_positions > 0 {
                let row = 2 * job.bias_positions - 1;
                let bias = &job.bias[head * row..][..row];
                let bias = &bias[job.bias_positions - 1 + seen.start - query..][..seen.len()];
                for (score, bias) in scores.iter_mut().zip(bias) {
                    *score = *score * job.layer.scale + bias;
                }
            }
            scores[..visible.start - seen.start].fill(f32::NEG_INFINITY);
            scores[visible.end - seen.start..].fill(f32::NEG_INFINITY);
            let scale = V::splat(if job.bias_positions > 0 { 1.0 } else { job.layer.scale });
            let mut largest = V::load(scores.as_ptr());
            for at in (LANES..scores.len()).step_by(LANES) {
                largest = largest.max(V::load(scores.as_ptr().add(at)));
            }
            let largest = V::splat(largest.largest());
            let mut total = V::zero();
            for at in (0..scores.len()).step_by(LANES) {
                let to = scores.as_mut_ptr().add(at);
                let weight = exp(V::load(to).sub(largest).mul(scale));
                weight.store(to);
                total = total.add(weight);
            }
            total.sum()
        }
    }
}

/// `to[dimension][position]` of 16 positions from `from[position][dimension]`.
#[inline(always)]
unsafe fn transpose<V: Lanes>(
    from: *const f32,
    from_stride: usize,
    dims: usize,
    to: &mut [f32],
    to_stride: usize,
) {
    assert!(to.len() >= (dims - 1) * to_stride + LANES, "keys of another size");
    let (whole, to) = (dims / LANES * LANES, to.as_mut_ptr());
    // SAFETY: the caller's; squares lie within both matrices, see the assertion.
    unsafe {
        for column in (0..whole).step_by(LANES) {
            V::transpose(from.add(column), from_stride, to.add(column * to_stride), to_stride);
        }
        for row in 0..LANES {
            for column in whole..dims {
                *to.add(column * to_stride + row) = *from.add(row * from_stride + column);
            }
        }
    }
}
