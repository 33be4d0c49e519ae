//! Choosing the next token from logits.
//!
//! The order is llama.cpp's: repetition penalty, top-k, top-p, min-p, temperature. The three cuts
//! therefore see the distribution at temperature 1, whatever the temperature, as in mlx-lm too
//! (which cuts by k last, not first). Every cut keeps a beginning of the tokens sorted by
//! descending logit, equal ones by ascending id, so they combine to the shortest.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg64;

use crate::engine::request::SamplingOptions;
use crate::error::{Code, Error, Result};

/// Sorted candidates looked at first; the cuts rarely need more of a large vocabulary.
const FIRST_CANDIDATES: usize = 64;

/// Above this many, selecting and sorting beats keeping a heap of the best.
const HEAP_LIMIT: usize = 512;

/// Chooses tokens by fixed options. It holds no state: the same logits, recent tokens and step give
/// the same token, so a run that resumes from a cache goes on as the uninterrupted one would.
#[derive(Debug, Clone)]
pub struct Sampler {
    options: SamplingOptions,
    /// The seed's random stream; a draw looks at a copy advanced to its step.
    stream: Pcg64,
}

impl Sampler {
    /// # Errors
    /// `INVALID_REQUEST` naming the option that is out of range.
    pub fn new(options: SamplingOptions) -> Result<Self> {
        let SamplingOptions { temperature, top_p, min_p, repetition_penalty, .. } = options;
        check("--temp", "a number from 0 up", temperature, temperature >= 0.0)?;
        check("--top-p", "above 0 and at most 1", top_p, top_p > 0.0 && top_p <= 1.0)?;
        check("--min-p", "from 0 to 1", min_p, (0.0..=1.0).contains(&min_p))?;
        check("--repetition-penalty", "a number above 0", repetition_penalty, repetition_penalty > 0.0)?;
        Ok(Self { options, stream: Pcg64::seed_from_u64(options.seed) })
    }

    /// Chooses from `logits` `[vocabulary]`, which the repetition penalty changes in place.
    /// `recent` are the tokens so far, the last one last; `step` counts the tokens generated.
    /// A logit of minus infinity forbids its token.
    ///
    /// # Errors
    /// `INTEGRITY_FAILED` when a logit is NaN or plus infinity or all are minus infinity.
    pub fn sample(&self, logits: &mut [f32], recent: &[u32], step: u64) -> Result<u32> {
        self.penalize(logits, recent);
        let largest = largest(logits)?;
        if self.options.temperature == 0.0 {
            let id = logits.iter().position(|&logit| logit >= largest);
            return id.map(|id| id as u32).ok_or_else(|| Error::internal("no logit is the largest one"));
        }
        let temperature = self.options.temperature;
        let draw = self.draw(step);
        if self.cuts() {
            let kept = self.kept(logits, largest);
            let weights: Vec<f32> =
                kept.iter().map(|&id| exp((logits[id as usize] - largest) / temperature)).collect();
            Ok(kept[pick(&weights, draw)])
        } else {
            let weights: Vec<f32> =
                logits.iter().map(|&logit| exp((logit - largest) / temperature)).collect();
            Ok(pick(&weights, draw) as u32)
        }
    }

    /// Whether any token can be cut off.
    fn cuts(&self) -> bool {
        self.options.top_k > 0 || self.options.top_p < 1.0 || self.options.min_p > 0.0
    }

    fn penalize(&self, logits: &mut [f32], recent: &[u32]) {
        let penalty = self.options.repetition_penalty;
        if (penalty - 1.0).abs() < f32::EPSILON {
            return;
        }
        let window = recent.len().min(self.options.repetition_window);
        let mut ids = recent[recent.len() - window..].to_vec();
        ids.sort_unstable();
        ids.dedup();
        for id in ids {
            if let Some(logit) = logits.get_mut(id as usize) {
                *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
            }
        }
    }

    /// A number in [0, 1) that depends on seed and step only.
    fn draw(&self, step: u64) -> f64 {
        let mut stream = self.stream.clone();
        stream.advance(u128::from(step));
        (stream.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Ids that the cuts leave, at least one, by descending logit.
    fn kept(&self, logits: &[f32], largest: f32) -> Vec<u32> {
        let SamplingOptions { top_k, top_p, min_p, .. } = self.options;
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
            let more =
                if top_p < 1.0 || min_p > 0.0 { (best.len() * 8).max(FIRST_CANDIDATES) } else { limit };
            best = self::best(logits, more.min(limit));
        }
    }
}

fn check(flag: &str, range: &str, value: f32, fits: bool) -> Result<()> {
    if fits && value.is_finite() {
        return Ok(());
    }
    Err(Error::new(Code::InvalidRequest, format!("{flag} is {value}, but must be {range}"))
        .hint(format!("give {flag} {range}")))
}

/// The largest logit, after a check of all.
fn largest(logits: &[f32]) -> Result<f32> {
    // Neither pass exits early, so that both run at vector speed; NaN is not below infinity.
    let sound = logits.iter().filter(|&&logit| logit < f32::INFINITY).count();
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, |a, b| if b > a { b } else { a });
    if sound < logits.len() || largest == f32::NEG_INFINITY {
        return Err(Error::new(Code::IntegrityFailed, "the model computed logits that are not numbers")
            .hint("check the model's files: damaged or wrongly converted weights do this"));
    }
    Ok(largest)
}

/// Ids of the `count` largest logits, the largest first.
fn best(logits: &[f32], count: usize) -> Vec<u32> {
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

/// The index at which the running sum of `weights` passes `draw` of the whole.
fn pick(weights: &[f32], draw: f64) -> usize {
    let total: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
    let mut left = draw * total;
    let mut last = 0;
    for (index, &weight) in weights.iter().enumerate() {
        if weight > 0.0 {
            left -= f64::from(weight);
            last = index;
            if left < 0.0 {
                break;
            }
        }
    }
    last
}

/// e^x for x <= 0 within 2e-7 (relative): a polynomial after taking out powers of two (Cody and
/// Waite's reduction). Vectorizes, and is the same on every platform, which libm's is not.
fn exp(x: f32) -> f32 {
    /// Adding it rounds to an integer that then sits in the low bits of the mantissa.
    const ROUND: f32 = 12_582_912.0;
    let clamped = x.max(-87.0);
    let power = clamped * std::f32::consts::LOG2_E + ROUND - ROUND;
    let rest = clamped - power * 0.693_359_4 + power * 2.121_944_4e-4;
    let mut value = 1.987_569_1e-4;
    for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5, 1.0, 1.0] {
        value = value * rest + coefficient;
    }
    let scale = f32::from_bits(((power as i32 + 127) as u32) << 23);
    if x < -87.0 { 0.0 } else { value * scale }
}

#[cfg(test)]
#[allow(clippy::float_cmp, reason = "the compared values are exact")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sampler(options: SamplingOptions) -> Sampler {
        Sampler::new(options).unwrap()
    }

    fn warm() -> SamplingOptions {
        SamplingOptions { temperature: 1.0, ..SamplingOptions::default() }
    }

    fn kept(options: SamplingOptions, logits: &[f32]) -> Vec<u32> {
        sampler(options).kept(logits, largest(logits).unwrap())
    }

    /// The cuts one after the other, each as its definition says.
    fn reference(options: SamplingOptions, logits: &[f32]) -> Vec<u32> {
        let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
        let logit = |id: u32| logits[id as usize];
        ids.sort_by(|&a, &b| logit(b).partial_cmp(&logit(a)).unwrap().then(a.cmp(&b)));
        if options.top_k > 0 {
            ids.truncate(options.top_k);
        }
        let weight = |id: u32| f64::from(logit(id) - logit(ids[0])).exp();
        let total: f64 = ids.iter().map(|&id| weight(id)).sum();
        let mut sum = 0.0;
        let nucleus = ids.iter().take_while(|&&id| {
            let inside = sum < total * f64::from(options.top_p);
            sum += weight(id);
            inside
        });
        nucleus.copied().filter(|&id| weight(id) >= f64::from(options.min_p) * weight(ids[0])).collect()
    }

    #[test]
    fn greedy_takes_the_lowest_of_equal_ids() {
        let greedy = sampler(SamplingOptions::default());
        assert_eq!(greedy.sample(&mut [1.0, 3.0, 3.0, -1.0], &[], 0).unwrap(), 1);
        assert_eq!(greedy.sample(&mut [-0.0, 0.0], &[], 0).unwrap(), 0);
        assert_eq!(greedy.sample(&mut [f32::NEG_INFINITY, -5.0], &[], 0).unwrap(), 1);
    }

    #[test]
    fn logits_that_are_no_numbers_are_an_error() {
        for temperature in [0.0, 1.0] {
            let sampler = sampler(SamplingOptions { temperature, top_k: 2, ..SamplingOptions::default() });
            for bad in
                [&mut [0.0, f32::NAN][..], &mut [f32::INFINITY, 0.0], &mut [f32::NEG_INFINITY], &mut []]
            {
                let error = sampler.sample(bad, &[], 0).unwrap_err();
                assert_eq!(error.code(), Code::IntegrityFailed);
            }
        }
    }

    #[test]
    fn an_option_out_of_range_is_named() {
        let bad = [
            ("--temp", SamplingOptions { temperature: -0.1, ..warm() }),
            ("--temp", SamplingOptions { temperature: f32::NAN, ..warm() }),
            ("--temp", SamplingOptions { temperature: f32::INFINITY, ..warm() }),
            ("--top-p", SamplingOptions { top_p: 0.0, ..warm() }),
            ("--top-p", SamplingOptions { top_p: 1.1, ..warm() }),
            ("--min-p", SamplingOptions { min_p: -0.5, ..warm() }),
            ("--repetition-penalty", SamplingOptions { repetition_penalty: 0.0, ..warm() }),
        ];
        for (flag, options) in bad {
            let error = Sampler::new(options).unwrap_err();
            assert_eq!(error.code(), Code::InvalidRequest);
            assert!(error.message().starts_with(flag), "{}", error.message());
        }
    }

    #[test]
    fn the_penalty_counts_each_recent_token_once_and_only_in_its_window() {
        let options =
            SamplingOptions { repetition_penalty: 2.0, repetition_window: 3, ..SamplingOptions::default() };
        let mut logits = [4.0, -4.0, 3.0, 1.0];
        assert_eq!(sampler(options).sample(&mut logits, &[2, 0, 1, 0, 99], 0).unwrap(), 2);
        assert_eq!(logits, [2.0, -8.0, 3.0, 1.0]);
    }

    #[test]
    fn draws_are_frozen() {
        // Changing these changes what a seed means: users would get other texts.
        let sampler = sampler(SamplingOptions { seed: 42, ..warm() });
        let draws: Vec<u64> = (0..3).map(|step| (sampler.draw(step) * 1e9) as u64).collect();
        assert_eq!(draws, FROZEN);
    }

    const FROZEN: [u64; 3] = [226_512_517, 239_106_690, 760_833_410];

    #[test]
    fn a_step_draws_the_same_whatever_came_before() {
        let options = SamplingOptions { seed: 7, ..warm() };
        let logits: Vec<f32> = (0..100).map(|i| (i % 13) as f32 / 3.0).collect();
        let all: Vec<u32> =
            (0..20).map(|step| sampler(options).sample(&mut logits.clone(), &[], step).unwrap()).collect();
        let one = sampler(options);
        for step in (0..20).rev() {
            assert_eq!(one.sample(&mut logits.clone(), &[1, 2], step).unwrap(), all[step as usize]);
        }
        let other = sampler(SamplingOptions { seed: 8, ..options });
        assert!(
            (0..20).any(|step| other.sample(&mut logits.clone(), &[], step).unwrap() != all[step as usize])
        );
    }

    #[test]
    fn frequencies_follow_the_temperature() {
        let weights = [0.5f32, 0.3, 0.2];
        for temperature in [0.5, 1.0, 2.0] {
            let sampler = sampler(SamplingOptions { temperature, ..warm() });
            let mut counts = [0usize; 3];
            for step in 0..20_000 {
                let mut logits = weights.map(f32::ln);
                counts[sampler.sample(&mut logits, &[], step).unwrap() as usize] += 1;
            }
            let powers = weights.map(|weight| weight.powf(1.0 / temperature));
            let total: f32 = powers.iter().sum();
            for (count, power) in counts.iter().zip(powers) {
                let (seen, expected) = (*count as f32 / 20_000.0, power / total);
                assert!((seen - expected).abs() < 0.015, "{temperature}: {seen} for {expected}");
            }
        }
    }

    #[test]
    fn forbidden_tokens_are_never_drawn() {
        let sampler = sampler(SamplingOptions { top_k: 3, ..warm() });
        for step in 0..200 {
            let mut logits = [f32::NEG_INFINITY, 0.0, f32::NEG_INFINITY, 0.5];
            assert!([1, 3].contains(&sampler.sample(&mut logits, &[], step).unwrap()));
        }
    }

    #[test]
    fn tiny_temperatures_are_nearly_greedy() {
        let sampler = sampler(SamplingOptions { temperature: f32::MIN_POSITIVE, ..warm() });
        assert_eq!(sampler.sample(&mut [1.0, 1.000_001, 0.0], &[], 5).unwrap(), 1);
    }

    #[test]
    fn exp_is_close() {
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        for i in 0..87_000 {
            let x = -(i as f32) / 1000.0;
            let error = (f64::from(exp(x)) / f64::from(x).exp() - 1.0).abs();
            assert!(error < 2e-7, "exp({x}) is off by {error}");
        }
    }

    #[test]
    fn a_flat_large_vocabulary_is_cut_where_it_should_be() {
        let logits = vec![0.0; 5000];
        let options = SamplingOptions { top_p: 0.5, ..warm() };
        assert_eq!(kept(options, &logits), (0..2500).collect::<Vec<_>>());
        assert_eq!(kept(SamplingOptions { top_k: 1000, ..warm() }, &logits), (0..1000).collect::<Vec<_>>());
    }

    proptest! {
        #[test]
        fn kept_tokens_are_those_of_the_definition(
            // Steps of 1/8 make ties; sums at the border of top-p are avoided by odd thresholds.
            logits in prop::collection::vec((-40i32..40).prop_map(|n| n as f32 / 8.0), 1..300),
            top_k in prop_oneof![Just(0usize), 1usize..300],
            top_p in prop_oneof![Just(1.0f32), 0.01f32..0.999],
            min_p in prop_oneof![Just(0.0f32), 0.001f32..0.999],
        ) {
            let options = SamplingOptions { top_k, top_p, min_p, ..warm() };
            prop_assert_eq!(kept(options, &logits), reference(options, &logits));
        }

        #[test]
        fn a_sampled_token_is_a_kept_one(
            logits in prop::collection::vec(-8f32..8.0, 1..100),
            top_k in 0usize..20,
            top_p in 0.1f32..1.0,
            temperature in 0.01f32..3.0,
            seed: u64,
            step: u64,
        ) {
            let options = SamplingOptions { temperature, top_k, top_p, seed, ..warm() };
            let id = sampler(options).sample(&mut logits.clone(), &[], step).unwrap();
            prop_assert!(reference(options, &logits).contains(&id));
        }
    }
}
