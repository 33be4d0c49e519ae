//! Caches that hold less than everything: packed keys and values, and a limited number of tokens.

use std::path::Path;

use mlx_cache::engine::cache::{CacheOptions, KvCache, KvQuantization, LayerShape};
use mlx_cache::engine::format::checkpoint::Checkpoint;
use mlx_cache::engine::models::{self, LanguageModel};
use mlx_rs::{Array, Dtype};

use crate::golden::{backends, forward, largest_difference};
use crate::sandbox::Sandbox;

fn load(name: &str, check: impl Fn(&dyn LanguageModel)) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name);
    let checkpoint = Checkpoint::open(&folder).expect("checkpoint");
    for backend in backends() {
        check(&*models::load(&checkpoint, backend, Dtype::Float32, 64, &mut |_, _| {}).expect("model"));
    }
}

/// Logits of 24 steps, the first of several tokens.
fn run(model: &dyn LanguageModel, options: &CacheOptions) -> (Vec<f32>, u64) {
    let mut cache = KvCache::with_options(model.cache_shape(), options).expect("a cache");
    let tokens: Vec<i32> = (0..30).map(|at| 3 + at * 7 % 60).collect();
    let (head, tail) = tokens.split_at(7);
    let mut logits = forward(model, head, &mut cache);
    logits.extend(tail.iter().flat_map(|&id| forward(model, &[id], &mut cache)));
    (logits, cache.bytes().expect("its size"))
}

fn range(logits: &[f32]) -> f32 {
    logits.iter().fold(f32::MIN, |high, &x| high.max(x)) - logits.iter().fold(f32::MAX, |low, &x| low.min(x))
}

#[test]
fn a_limited_cache_is_the_masked_full_one() {
    for name in
        ["tiny/llama_gqa", "architectures/gemma2", "architectures/phi3_long", "architectures/deepseek_v2"]
    {
        load(name, |model| {
            // One that never has to move keeps everything, out of sight.
            let all = CacheOptions { most_tokens: Some(9), keep: 2, ..CacheOptions::AS_COMPUTED };
            let small = CacheOptions { step: 4, rollback: 1, ..all };
            let ((expected, whole), (found, less)) = (run(model, &all), run(model, &small));
            let share = largest_difference(&found, &expected) / range(&expected);
            assert!(share < 1e-4, "{name}: {share:e}");
            assert!(less < whole / 10, "{name}: {less} of {whole} bytes");
            let (full, _) = run(model, &CacheOptions::AS_COMPUTED);
            assert!(largest_difference(&full, &expected) > 0.0, "{name}: nothing was out of sight");
        });
    }
}

/// The same keys and values in the same groups: the logits that mlx_lm has with them.
#[test]
fn packed_caches_are_those_of_mlx_lm() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/packed_caches.safetensors");
    let golden = Array::load_safetensors(golden).expect("logits of mlx_lm");
    let of = |name: &str| golden[name].to_vec_exact::<f32>().expect("float32");
    load("tiny/llama_head_dim", |model| {
        for (name, bits) in [("none", None), ("bits8", Some(8)), ("bits4", Some(4))] {
            let quantization = bits.map(|bits| KvQuantization::new(bits, 32).expect("a quantization"));
            let (found, _) = run(model, &CacheOptions { quantization, ..CacheOptions::AS_COMPUTED });
            let share = largest_difference(&found, &of(name)) / range(&of("none"));
            assert!(share < 1e-4, "{name}: {share:e}");
        }
    });
}

/// A window that moves on holds what one that never has to move shows, packed as well: in layers beside
/// others that keep everything, with sinks, and beside states.
#[test]
fn packed_windows_are_the_masked_full_ones() {
    for (name, within) in [("gemma2_wide", 0.02), ("gpt_oss_wide", 0.02), ("qwen3_5_wide", 0.02)] {
        load(&format!("architectures/{name}"), |model| {
            let (plain, _) = run(model, &CacheOptions::AS_COMPUTED);
            for quantized_from in [0, 11] {
                let quantization = Some(KvQuantization::new(8, 32).expect("a quantization"));
                let all = CacheOptions { quantization, quantized_from, ..CacheOptions::AS_COMPUTED };
                let (expected, _) = run(model, &all);
                let share = largest_difference(&expected, &plain) / range(&plain);
                assert!(share > 0.0 && share < within, "{name} from {quantized_from}: {share:e}");
                let (found, _) = run(model, &CacheOptions { step: 4, rollback: 1, ..all });
                let share = largest_difference(&found, &expected) / range(&plain);
                assert!(share < 1e-4, "{name} from {quantized_from}: {share:e}");
            }
        });
    }
}

/// How far packing moves the logits. A group of 32 normal numbers spans about 4.1 of their deviations, so
/// that its steps are 4.1 σ / 255 and their rounding adds 4.1 / 255 / √12 = 0.5 % of σ to each number
/// (4.1 / 15 / √12 = 8 % with 4 bits). Values bring this share into what attention adds, and keys once more
/// the deviation of the queries (1.2 here) times as much, through the scores: 0.7 % and 12 % of the
/// logits' deviation, which is an eighth of their range. The largest of 8,640 differences is about five
/// deviations: 0.5 % and 8 % of the range. mlx_lm's own are 0.63 % and 9.2 %; the bounds leave room for
/// other models.
#[test]
fn packed_caches_are_near_and_small() {
    for name in
        ["tiny/llama_head_dim", "tiny/llama_gqa", "architectures/qwen3", "architectures/deepseek_v3_mlx"]
    {
        load(name, |model| {
            let (expected, whole) = run(model, &CacheOptions::AS_COMPUTED);
            let width = model.cache_shape().layers.iter().find_map(|layer| match layer {
                LayerShape::Tokens(shape) => Some(shape.key_dim),
                _ => None,
            });
            // What a latent loses, all heads lose.
            let coarse = if name.contains("deepseek") { 0.2 } else { 0.15 };
            for (bits, tolerance) in [(8, 1e-2), (4, coarse)] {
                let quantization = KvQuantization::new(bits, 32).expect("a quantization");
                let packed = |quantized_from| CacheOptions {
                    quantization: Some(quantization),
                    quantized_from,
                    ..CacheOptions::AS_COMPUTED
                };
                let Some(32 | 64) = width else {
                    let refused = KvCache::with_options(model.cache_shape(), &packed(0));
                    assert!(refused.is_err(), "{name}: heads of {width:?}");
                    continue;
                };
                let (at_once, bytes) = run(model, &packed(0));
                let share = largest_difference(&at_once, &expected) / range(&expected);
                assert!(share > 0.0 && share < tolerance, "{name} in {bits} bits: {share:e}");
                // Packed numbers, with a scale and a bias of 4 bytes each for 32 of them.
                assert_eq!(bytes, whole * (bits as u64 + 2) / 32, "{name} in {bits} bits");
                let (later, _) = run(model, &packed(20));
                let same = 7 * expected.len() / 30;
                assert_eq!(later[..same], expected[..same], "packed before it was to be");
                assert!(largest_difference(&later, &expected) / range(&expected) < tolerance);
            }
        });
    }
}

/// Half floats have 11 bits: rounding moves a number by at most 2^-11 of itself, and the logits by some 1e-4 of their
/// range. A window that moves on, and first tokens that are kept, are those of a cache that never has to move.
#[test]
fn caches_of_half_floats_are_near_and_half_as_large() {
    for name in [
        "tiny/llama_gqa",
        "architectures/gemma2",
        "architectures/gpt_oss_wide",
        "architectures/qwen3_5_wide",
        "architectures/deepseek_v2",
    ] {
        load(name, |model| {
            let half = CacheOptions { half: true, ..CacheOptions::AS_COMPUTED };
            let ((expected, whole), (found, bytes)) =
                (run(model, &CacheOptions::AS_COMPUTED), run(model, &half));
            let share = largest_difference(&found, &expected) / range(&expected);
            assert!(share > 0.0 && share < 1e-3, "{name}: {share:e}");
            let layers = &model.cache_shape().layers;
            let states: u64 = layers.iter().filter(|it| matches!(it, LayerShape::State(_))).count() as u64;
            assert!(
                2 * bytes == whole || states > 0 && 2 * bytes > whole && bytes < whole,
                "{name}: {bytes}"
            );
            let all = CacheOptions { most_tokens: Some(9), keep: 2, ..half };
            let (expected, _) = run(model, &all);
            let (found, _) = run(model, &CacheOptions { step: 4, rollback: 1, ..all });
            let share = largest_difference(&found, &expected) / range(&expected);
            assert!(share < 1e-4, "{name}, limited: {share:e}");
        });
    }
}

#[test]
fn bench_and_run_take_the_flags_of_the_cache() {
    let sandbox = Sandbox::new();
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/tiny/llama_head_dim");
    let model = model.to_str().expect("UTF-8");
    let cache = |flags: &[&str]| {
        let args =
            ["bench", model, "-c", "512", "-p", "300", "-g", "0", "-r", "1", "--warmup", "0", "--no-save"];
        let (status, envelope) = sandbox.json(&[&args, flags].concat());
        assert_eq!(status, 0, "{envelope}");
        let results = envelope["data"]["results"].as_array().cloned().expect("results");
        let cache = results.iter().find(|result| result["test"] == "kv_cache").expect("kv_cache");
        cache["mean"].as_f64().expect("bytes")
    };
    let whole = cache(&["--kv-bits", "32"]);
    assert!((cache(&["--kv-bits", "16"]) / whole - 0.5).abs() < 1e-9);
    let packed = cache(&["--kv-bits", "8", "--kv-group-size", "32"]);
    assert!((packed / whole - 10.0 / 32.0).abs() < 1e-9, "{packed} of {whole}");
    let (later, by_default) = (["--kv-bits", "4", "--kv-group-size", "32", "--kv-start", "1000"], cache(&[]));
    assert!((cache(&later) - by_default).abs() < 0.5);
    assert!((cache(&["--max-kv-size", "64"]) - by_default).abs() < 0.5, "a short text fits");
    let refused: [(&[&str], &str); 8] = [
        (&["--kv-bits", "5"], "5 bits"),
        (&["--kv-bits", "0"], "0 bits"),
        (&["--kv-bits", "16", "--kv-group-size", "64"], "16 bits are not packed"),
        (&["--kv-bits", "32", "--kv-start", "9"], "32 bits are not packed"),
        (&["--kv-bits", "8", "--kv-group-size", "48"], "groups of 48"),
        (&["--kv-bits", "8"], "heads of 32 elements"),
        (&["--max-kv-size", "4"], "4 tokens"),
        (&["--kv-start", "4"], "--kv-bits"),
    ];
    for (flags, expected) in refused {
        let (status, error) = sandbox.error(&[&["run", model, "x", "-n", "1"], flags].concat());
        let message = error["message"].as_str().expect("a message");
        assert!(status == 2 && message.contains(expected), "{flags:?}: {error}");
        assert_eq!(error["code"], "INVALID_REQUEST", "{error}");
        if expected == "5 bits" {
            assert_eq!(error["hint"], "4, 8, 16 and 32 bits are supported");
        }
    }
}
