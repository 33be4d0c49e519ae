//! Rotary positions (Su et al., arXiv:2104.09864).

use std::cell::RefCell;

use super::{Attention, Span};
use crate::engine::ffi::SharedSlice;
use crate::engine::kernels::pool;

/// Cosines and sines for a run of positions, which all layers of a model share.
pub(super) struct Table {
    frequencies: Vec<f32>,
    scale: f32,
    offset: usize,
    /// For each position the cosines, then the sines.
    values: Vec<f32>,
}

/// How many positions a worker computes at once.
const TOGETHER: usize = 32;

thread_local! {
    /// The last tables of the thread that runs the operations: the next layer most often wants the same.
    static LAST: RefCell<Vec<Table>> = const { RefCell::new(Vec::new()) };
}

/// Tables that are kept: more than a step has sequences.
const KEPT: usize = 256;

/// Calls `f` with the tables of the positions of these sequences.
pub(super) fn with_tables(layer: &Attention, spans: &[Span], frequencies: &[f32], f: impl FnOnce(&[Table])) {
    let mut last = LAST.take();
    let mut tables = Vec::with_capacity(spans.len());
    for span in spans {
        let known = last.iter().position(|table| table.fits(layer, *span, frequencies));
        tables.push(known.map_or_else(|| Table::new(layer, *span, frequencies), |at| last.swap_remove(at)));
    }
    f(&tables);
    // The newest come first: what no step wants any more falls off the end.
    tables.append(&mut last);
    tables.truncate(KEPT);
    LAST.set(tables);
}

impl Table {
    fn fits(&self, layer: &Attention, span: Span, frequencies: &[f32]) -> bool {
        self.offset == span.offset
            && self.scale.to_bits() == layer.rope_scale.to_bits()
            && self.values.len() == 2 * span.tokens * frequencies.len()
            && self.frequencies == frequencies
    }

    fn new(layer: &Attention, Span { tokens, offset, .. }: Span, frequencies: &[f32]) -> Self {
        let count = frequencies.len();
        let mut values = vec![0.0; 2 * tokens * count];
        let all = SharedSlice::new(&mut values);
        pool::run(tokens.div_ceil(TOGETHER), &|chunk| {
            for token in chunk * TOGETHER..tokens.min((chunk + 1) * TOGETHER) {
                // SAFETY: each position is one worker's.
                let row = unsafe { all.slice(2 * token * count, 2 * count) };
                let (cosines, sines) = row.split_at_mut(count);
                for ((cosine, sine), frequency) in cosines.iter_mut().zip(sines).zip(frequencies) {
                    // The angle is rounded to float32 as in the implementations that models come from.
                    let (s, c) = ((offset + token) as f32 * frequency).sin_cos();
                    *cosine = c * layer.rope_scale;
                    *sine = s * layer.rope_scale;
                }
            }
        });
        Self { frequencies: frequencies.to_vec(), scale: layer.rope_scale, offset, values }
    }

    /// Writes one head of one token rotated and multiplied by `factor`.
    #[inline(always)]
    pub(super) fn rotate(&self, traditional: bool, token: usize, factor: f32, from: &[f32], to: &mut [f32]) {
        let count = self.frequencies.len();
        let row = &self.values[2 * token * count..][..2 * count];
        let (cosines, sines) = row.split_at(count);
        let (from, from_rest) = from.split_at(2 * count);
        let (to, to_rest) = to.split_at_mut(2 * count);
        if traditional {
            let pairs = from.chunks_exact(2).zip(to.chunks_exact_mut(2));
            for ((from, to), (cosine, sine)) in pairs.zip(cosines.iter().zip(sines)) {
                to[0] = factor * (from[0] * cosine - from[1] * sine);
                to[1] = factor * (from[0] * sine + from[1] * cosine);
            }
        } else {
            let (from_low, from_high) = from.split_at(count);
            let (to_low, to_high) = to.split_at_mut(count);
            for i in 0..count {
                to_low[i] = factor * (from_low[i] * cosines[i] - from_high[i] * sines[i]);
                to_high[i] = factor * (from_low[i] * sines[i] + from_high[i] * cosines[i]);
            }
        }
        for (to, from) in to_rest.iter_mut().zip(from_rest) {
            *to = factor * from;
        }
    }
}
