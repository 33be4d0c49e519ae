//! Cuts: which tokens stay, of those that are likely enough.
//!
//! Top-k, top-p and min-p keep a beginning of the tokens sorted by descending logit, equal ones by
//! ascending id, so these combine to the shortest. Typical-p and XTC take out others.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::numeric::exp;
use crate::engine::request::SamplingOptions;

/// Sorted candidates looked at first; the cuts rarely need more of a large vocabulary.
const FIRST_CANDIDATES: usize = 64;

/// Above this many, selecting and sorting beats keeping a heap of the best.
const HEAP_LIMIT: usize = 512;

/// Ids that top-k, typical-p, top-p and min-p leave, at least one, by descending logit.
pub(super) fn kept(logits: &[f32], largest: f32, options: &SamplingOptions) -> Vec<u32> {
    if options.typical_p >= 1.0 {
        return beginning(logits, largest, options);
    }
    let limit = if options.top_k == 0 { logits.len() } else { options.top_k.min(logits.len()) };
    let mut ids = best(logits, limit);
    ids.retain(|&id| logits[id as usize] > f32::NEG_INFINITY);
    typical(&mut ids, logits, options.typical_p);
    let mut left = probabilities(&ids, logits);
    if options.top_p < 1.0 {
        let mut sum = 0.0;
        let inside = left.iter().take_while(|&&probability| {
            let inside = sum < f64::from(options.top_p);
            sum += probability;
            inside
        });
        let inside = inside.count().max(1);
        ids.truncate(inside);
        left.truncate(inside);
    }
    let likeliest = left.first().copied().unwrap_or(1.0);
    let least = f64::from(options.min_p) * likeliest;
    ids.truncate(left.iter().take_while(|&&probability| probability >= least).count().max(1));
    ids
}

/// XTC, "exclude top choices": of two or more tokens with at least this probability only the least
/// likely one stays.
pub(super) fn exclude_top(ids: &mut Vec<u32>, logits: &[f32], threshold: f32) {
    let above =
        probabilities(ids, logits).iter().filter(|&&probability| probability >= f64::from(threshold)).count();
    if above > 1 {
        ids.drain(..above - 1);
    }
}

/// Locally typical sampling (arXiv:2202.00666): the tokens whose surprise is nearest to the expected
/// one, until they have the probability `mass` together. `ids` are sorted and stay so.
fn typical(ids: &mut Vec<u32>, logits: &[f32], mass: f32) {
    let likely = probabilities(ids, logits);
    let surprise = |probability: f64| -probability.max(f64::MIN_POSITIVE).ln();
    let expected: f64 = likely.iter().map(|&probability| probability * surprise(probability)).sum();
    let mut order: Vec<usize> = (0..ids.len()).collect();
    let distance = |place: usize| (surprise(likely[place]) - expected).abs();
    order.sort_by(|&a, &b| distance(a).total_cmp(&distance(b)).then(a.cmp(&b)));
    let mut sum = 0.0;
    let mut kept: Vec<usize> = order
        .into_iter()
        .take_while(|&place| {
            let inside = sum < f64::from(mass);
            sum += likely[place];
            inside
        })
        .collect();
    kept.sort_unstable();
    *ids = kept.into_iter().map(|place| ids[place]).collect();
}

/// The probabilities of these tokens if there were no others; the first is the most likely one.
fn probabilities(ids: &[u32], logits: &[f32]) -> Vec<f64> {
    let Some(&first) = ids.first() else { return Vec::new() };
    let largest = logits[first as usize];
    let weights: Vec<f64> = ids.iter().map(|&id| f64::from(exp(logits[id as usize] - largest))).collect();
    let total: f64 = weights.iter().sum();
    weights.iter().map(|weight| weight / total).collect()
}

/// Ids that the cuts leave that keep a beginning.
fn beginning(logits: &[f32], largest: f32, options: &SamplingOptions) -> Vec<u32> {
    let SamplingOptions { top_k, top_p, min_p, .. } = *options;
    let limit = if top_k == 0 { logits.len() } else { top_k.min(logits.len()) };
    // p >= min_p * p_max, said of logits.
    let lowest = if min_p > 0.0 { largest + min_p.ln() } else { f32::NEG_INFINITY };
    let weight = |id: u32| f64::from(exp(logits[id as usize] - largest));

    let mut best = Vec::new();
    let wanted = if top_p < 1.0 {
        // Top-p counts within what top-k left.
        let total = if limit < logits.len() {
            best = self::best(logits, limit);
            best.iter().map(|&id| weight(id)).sum()
        } else {
            logits.iter().map(|&logit| f64::from(exp(logit - largest))).sum::<f64>()
        };
        total * f64::from(top_p)
    } else {
        f64::INFINITY
    };

    let (mut kept, mut sum) = (0, 0.0);
    loop {
        while let Some(&id) = best.get(kept) {
            if sum >= wanted || kept > 0 && !(logits[id as usize] >= lowest && weight(id) > 0.0) {
                best.truncate(kept);
                return best;
            }
            sum += weight(id);
            kept += 1;
        }
        if best.len() >= limit {
            return best;
        }
        let more = if top_p < 1.0 || min_p > 0.0 { (best.len() * 8).max(FIRST_CANDIDATES) } else { limit };
        best = self::best(logits, more.min(limit));
    }
}

/// Ids of the `count` largest logits, the largest first.
pub(super) fn best(logits: &[f32], count: usize) -> Vec<u32> {
    let keys = logits.iter().enumerate().map(|(id, &logit)| key(logit, id as u32));
    let mut keys: Vec<u64> = if count <= HEAP_LIMIT {
        let mut heap = BinaryHeap::with_capacity(count + 1);
        for key in keys {
            if heap.len() < count {
                heap.push(Reverse(key));
            } else if heap.peek().is_some_and(|&Reverse(least)| key > least) {
                heap.pop();
                heap.push(Reverse(key));
            }
        }
        heap.into_iter().map(|Reverse(key)| key).collect()
    } else {
        let mut keys: Vec<u64> = keys.collect();
        if count < keys.len() {
            keys.select_nth_unstable_by(count, |a, b| b.cmp(a));
            keys.truncate(count);
        }
        keys
    };
    keys.sort_unstable_by(|a, b| b.cmp(a));
    keys.into_iter().map(|key| !(key as u32)).collect()
}

/// An integer that orders as the logit does, among equal logits the lower id being greater.
fn key(logit: f32, id: u32) -> u64 {
    // Both zeros are equal as logits.
    let bits = (logit + 0.0).to_bits();
    let ordered = if bits >> 31 == 0 { bits | 1 << 31 } else { !bits };
    u64::from(ordered) << 32 | u64::from(!id)
}
