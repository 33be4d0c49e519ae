//! What the samplers leave, and what a seed draws.

#![allow(clippy::float_cmp, reason = "the compared values are exact")]

use std::path::Path;

use proptest::prelude::*;
use serde_json::Value;

use super::numeric::exp;
use super::*;

fn sampler(options: SamplingOptions) -> Sampler {
    Sampler::new(options, Vec::new()).unwrap()
}

fn warm() -> SamplingOptions {
    SamplingOptions { temperature: 1.0, ..SamplingOptions::default() }
}

fn kept(options: SamplingOptions, logits: &[f32]) -> Vec<u32> {
    sampler(options).kept(logits, largest(logits).unwrap(), 0)
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
    let mut greedy = sampler(SamplingOptions::default());
    assert_eq!(greedy.sample(&mut [1.0, 3.0, 3.0, -1.0], &[], 0).unwrap(), 1);
    assert_eq!(greedy.sample(&mut [-0.0, 0.0], &[], 0).unwrap(), 0);
    assert_eq!(greedy.sample(&mut [f32::NEG_INFINITY, -5.0], &[], 0).unwrap(), 1);
}

#[test]
fn logits_that_are_no_numbers_are_an_error() {
    for temperature in [0.0, 1.0] {
        let mut sampler = sampler(SamplingOptions { temperature, top_k: 2, ..SamplingOptions::default() });
        for bad in [&mut [0.0, f32::NAN][..], &mut [f32::INFINITY, 0.0], &mut [f32::NEG_INFINITY], &mut []] {
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
        ("--typical-p", SamplingOptions { typical_p: 0.0, ..warm() }),
        ("--xtc-probability", SamplingOptions { xtc_probability: 1.5, ..warm() }),
        ("--xtc-threshold", SamplingOptions { xtc_threshold: 0.0, ..warm() }),
        ("--mirostat-tau", SamplingOptions { mirostat_tau: -1.0, ..warm() }),
        ("--mirostat-eta", SamplingOptions { mirostat_eta: 0.0, ..warm() }),
        ("--repetition-penalty", SamplingOptions { repetition_penalty: 0.0, ..warm() }),
        ("--presence-penalty", SamplingOptions { presence_penalty: f32::NAN, ..warm() }),
        ("--frequency-penalty", SamplingOptions { frequency_penalty: f32::INFINITY, ..warm() }),
    ];
    for (flag, options) in bad {
        let error = Sampler::new(options, Vec::new()).unwrap_err();
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

fn golden() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/samplers.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn logits_of(golden: &Value, case: &Value) -> Vec<f32> {
    let name = case["logits"].as_str().unwrap();
    golden["logits"][name].as_array().unwrap().iter().map(|logit| logit.as_f64().unwrap() as f32).collect()
}

/// The options of a golden case; what it does not name is off.
fn options_of(case: &Value) -> SamplingOptions {
    let given = &case["options"];
    let or = |name: &str, off: f32| given[name].as_f64().map_or(off, |value| value as f32);
    SamplingOptions {
        temperature: or("temperature", 1.0),
        top_k: given["top_k"].as_u64().unwrap_or(0) as usize,
        top_p: or("top_p", 1.0),
        min_p: or("min_p", 0.0),
        typical_p: or("typical_p", 1.0),
        xtc_probability: if given["xtc_threshold"].is_null() { 0.0 } else { 1.0 },
        xtc_threshold: or("xtc_threshold", 0.1),
        mirostat_tau: or("mirostat_tau", 0.0),
        mirostat_eta: or("mirostat_eta", 0.1),
        repetition_penalty: or("repetition_penalty", 1.0),
        presence_penalty: or("presence_penalty", 0.0),
        frequency_penalty: or("frequency_penalty", 0.0),
        ..SamplingOptions::default()
    }
}

#[test]
fn kept_sets_are_those_of_transformers_and_mlx_lm() {
    let golden = golden();
    let cases = golden["cuts"].as_array().unwrap();
    assert_eq!(cases.len(), 36);
    for case in cases {
        let mut ids = kept(options_of(case), &logits_of(&golden, case));
        ids.sort_unstable();
        let expected: Vec<u32> =
            case["kept"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
        assert_eq!(ids, expected, "{} {}", case["logits"], case["options"]);
    }
}

#[test]
fn bias_and_penalties_are_those_of_transformers_and_mlx_lm() {
    let golden = golden();
    let cases = golden["penalties"].as_array().unwrap();
    assert_eq!(cases.len(), 12);
    for case in cases {
        let recent: Vec<u32> = case["options"]["recent"]
            .as_array()
            .unwrap()
            .iter()
            .map(|id| id.as_u64().unwrap() as u32)
            .collect();
        let bias = case["options"]["bias"].as_object().into_iter().flatten();
        let bias = bias.map(|(id, value)| (id.parse().unwrap(), value.as_f64().unwrap() as f32)).collect();
        let mut logits = logits_of(&golden, case);
        Sampler::new(options_of(case), bias).unwrap().adjusted(&mut logits, &recent).unwrap();
        for (found, expected) in logits.iter().zip(case["adjusted"].as_array().unwrap()) {
            let expected = expected.as_f64().unwrap();
            assert!((f64::from(*found) - expected).abs() < 1e-5, "{found} for {expected} in {case}");
        }
    }
}

#[test]
fn mirostat_follows_its_paper() {
    let golden = golden();
    let cases = golden["mirostat"].as_array().unwrap();
    assert_eq!(cases.len(), 6);
    for case in cases {
        let mut logits = logits_of(&golden, case);
        // The golden run always draws the likeliest token: it stands first here.
        logits.sort_by(|a, b| b.total_cmp(a));
        let mut sampler = sampler(options_of(case));
        for step in case["steps"].as_array().unwrap() {
            let kept: usize = {
                // The last draw that is possible takes the last token that is kept.
                let mut probe = sampler.clone();
                probe.mirostat(&logits, logits[0], 1.0) as usize + 1
            };
            assert_eq!(kept as u64, step["kept"].as_u64().unwrap(), "{case}");
            assert_eq!(sampler.mirostat(&logits, logits[0], 0.0), 0);
            let limit = step["limit"].as_f64().unwrap();
            assert!((sampler.surprise - limit).abs() < 1e-4, "{} for {limit}", sampler.surprise);
        }
    }
}

#[test]
fn xtc_leaves_the_likeliest_out_as_often_as_it_should() {
    let mut sampler = sampler(SamplingOptions { xtc_probability: 0.25, ..warm() });
    let mut first = 0;
    for step in 0..4000 {
        // 49 % and 51 %: without XTC the second comes about as often as the first.
        first += usize::from(sampler.kept(&[0.0, 0.04], 0.04, step).len() == 2);
        assert!(sampler.sample(&mut [0.0, 0.04], &[], step).unwrap() < 2);
    }
    assert!((2880..3120).contains(&first), "{first} of 4000");
}

#[test]
fn a_bias_that_forbids_all_that_is_left_is_told_apart_from_broken_logits() {
    let never = |ids: &[u32]| ids.iter().map(|&id| (id, f32::NEG_INFINITY)).collect();
    let mut two = Sampler::new(warm(), never(&[0, 2])).unwrap();
    for step in 0..50 {
        assert_eq!(two.sample(&mut [5.0, 0.0, 5.0], &[], step).unwrap(), 1);
    }
    let error = two.sample(&mut [5.0, f32::NEG_INFINITY, 5.0], &[], 0).unwrap_err();
    assert_eq!(error.code(), Code::InvalidRequest);
    let error = two.sample(&mut [5.0, f32::NAN, 5.0], &[], 0).unwrap_err();
    assert_eq!(error.code(), Code::IntegrityFailed);
}

#[test]
fn log_probabilities_are_those_of_the_definition() {
    let logits = [1.0f32, 3.0, -2.0, 3.0, f32::NEG_INFINITY];
    let total: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
    let (chosen, best) = likely(&logits, 2, 3).unwrap();
    assert!((chosen - (-2.0 - total.ln())).abs() < 1e-6);
    assert_eq!(best.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 3, 0]);
    assert!((best[0].1 - (3.0 - total.ln())).abs() < 1e-6);
    assert_eq!(likely(&logits, 0, 0).unwrap().1, []);
    assert_eq!(likely(&logits, 0, 99).unwrap().1.len(), 5);
}

#[test]
fn draws_are_frozen() {
    // Changing these changes what a seed means: users would get other texts.
    let sampler = sampler(SamplingOptions { seed: 42, ..warm() });
    let draws: Vec<u64> = (0..3).map(|step| (draw(&sampler.stream, step) * 1e9) as u64).collect();
    assert_eq!(draws, FROZEN);
}

const FROZEN: [u64; 3] = [226_512_517, 239_106_690, 760_833_410];

#[test]
fn a_step_draws_the_same_whatever_came_before() {
    let options = SamplingOptions { seed: 7, ..warm() };
    let logits: Vec<f32> = (0..100).map(|i| (i % 13) as f32 / 3.0).collect();
    let all: Vec<u32> =
        (0..20).map(|step| sampler(options).sample(&mut logits.clone(), &[], step).unwrap()).collect();
    let mut one = sampler(options);
    for step in (0..20).rev() {
        assert_eq!(one.sample(&mut logits.clone(), &[1, 2], step).unwrap(), all[step as usize]);
    }
    let mut other = sampler(SamplingOptions { seed: 8, ..options });
    assert!((0..20).any(|step| other.sample(&mut logits.clone(), &[], step).unwrap() != all[step as usize]));
}

#[test]
fn frequencies_follow_the_temperature() {
    let weights = [0.5f32, 0.3, 0.2];
    for temperature in [0.5, 1.0, 2.0] {
        let mut sampler = sampler(SamplingOptions { temperature, ..warm() });
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
    let mut sampler = sampler(SamplingOptions { top_k: 3, ..warm() });
    for step in 0..200 {
        let mut logits = [f32::NEG_INFINITY, 0.0, f32::NEG_INFINITY, 0.5];
        assert!([1, 3].contains(&sampler.sample(&mut logits, &[], step).unwrap()));
    }
}

#[test]
fn tiny_temperatures_are_nearly_greedy() {
    let mut sampler = sampler(SamplingOptions { temperature: f32::MIN_POSITIVE, ..warm() });
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
