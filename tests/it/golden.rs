//! Tiny random models against the logits that `transformers` computed from the same weights in
//! float32 (see fixtures/README.md), on every backend: all positions of a prefill, then eight cached
//! steps, then the same prompt one token at a time.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use mlx_cache::engine::cache::{CacheOptions, KvCache};
use mlx_cache::engine::format::adapter::Adapter;
use mlx_cache::engine::format::checkpoint::Checkpoint;
use mlx_cache::engine::layers::Backend;
use mlx_cache::engine::models::{self, LanguageModel, Logits, Sequence};
use mlx_rs::{Array, Dtype};

/// Largest difference allowed, as a share of the golden logits' range.
const TOLERANCE: f32 = 1e-4;

/// The same for weights that MLX has no exact form for, computed by its own operations. Random blocks are
/// the hardest case: neighbouring groups of real weights have scales of one size.
const ROUNDED: f32 = 8e-2;
/// The same between llama.cpp and the kernels.
const LLAMA_CPP: f32 = 2.5e-2;

/// What transformers computed.
struct Golden {
    input_ids: Vec<i32>,
    logits: Vec<f32>,
    decode_ids: Vec<i32>,
    decode_logits: Vec<f32>,
}

impl Golden {
    fn read(path: &Path) -> Self {
        let tensors = Array::load_safetensors(path).expect("golden tensors");
        let ints = |name: &str| tensors[name].to_vec_exact::<i32>().expect("int32 tensor");
        let floats = |name: &str| tensors[name].to_vec_exact::<f32>().expect("float32 tensor");
        Self {
            input_ids: ints("input_ids"),
            logits: floats("logits"),
            decode_ids: ints("decode_ids"),
            decode_logits: floats("decode_logits"),
        }
    }

    fn range(&self) -> f32 {
        let (low, high) =
            self.logits.iter().fold((f32::MAX, f32::MIN), |(low, high), &x| (low.min(x), high.max(x)));
        high - low
    }
}

/// Tokens that the tests' models are loaded for.
const CONTEXT: usize = 64;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/tiny")
}

pub fn forward(model: &dyn LanguageModel, tokens: &[i32], cache: &mut KvCache) -> Vec<f32> {
    let tokens = Array::from_slice(tokens, &[tokens.len() as i32]);
    let logits = model.forward(&tokens, cache, Logits::All).expect("forward").expect("logits");
    logits.as_dtype(Dtype::Float32).expect("float32").to_vec_exact::<f32>().expect("logits")
}

/// Tokens of a sequence, and the logits that they are to give.
type Part<'a> = (&'a [i32], &'a [f32]);

/// A step of several sequences: of each the place of its cache, and its tokens. The logits of all of them.
fn together(model: &dyn LanguageModel, step: &[(usize, Part)], caches: &mut [KvCache]) -> Vec<f32> {
    let tokens: Vec<i32> = step.iter().flat_map(|(_, (tokens, _))| tokens.iter().copied()).collect();
    let mut sequences: Vec<Sequence> = caches
        .iter_mut()
        .enumerate()
        .filter_map(|(place, cache)| {
            let (_, (tokens, _)) = step.iter().find(|(wanted, _)| *wanted == place)?;
            Some(Sequence { tokens: tokens.len(), cache, logits: Logits::All })
        })
        .collect();
    let tokens = Array::from_slice(&tokens, &[tokens.len() as i32]);
    let logits = model.forward_together(&tokens, &mut sequences).expect("forward").expect("logits");
    logits.as_dtype(Dtype::Float32).expect("float32").to_vec_exact::<f32>().expect("logits")
}

pub fn largest_difference(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len(), "number of logits");
    found
        .iter()
        .zip(expected)
        .fold(0.0, |worst, (a, b)| if (a - b).abs() <= worst { worst } else { (a - b).abs() })
}

/// Runs one model on one backend; the differences found, as shares of the range.
fn check(model_path: &Path, golden_path: &Path, backend: Backend) {
    check_within(model_path, golden_path, backend, TOLERANCE);
}

fn check_within(model_path: &Path, golden_path: &Path, backend: Backend, tolerance: f32) {
    check_adapted(model_path, None, golden_path, backend, tolerance);
}

fn check_adapted(
    model_path: &Path,
    adapter: Option<&Adapter>,
    golden_path: &Path,
    backend: Backend,
    tolerance: f32,
) {
    let golden = Golden::read(golden_path);
    let checkpoint = Checkpoint::open(model_path).expect("checkpoint");
    let model = models::load_adapted(&checkpoint, adapter, backend, Dtype::Float32, CONTEXT, &mut |_, _| {})
        .expect("model");
    let name = format!("{} on {backend:?}", model_path.display());
    let range = golden.range();
    let failures = RefCell::new(Vec::new());
    let near = |what: &str, found: &[f32], expected: &[f32]| {
        let share = largest_difference(found, expected) / range;
        if share.is_nan() || share > tolerance {
            failures.borrow_mut().push(format!("{name}: {what} differs by {share:e} of the logits' range"));
        }
    };

    let mut cache = KvCache::new(model.cache_shape());
    near("prefill", &forward(&*model, &golden.input_ids, &mut cache), &golden.logits);
    let steps: Vec<f32> =
        golden.decode_ids.iter().flat_map(|&id| forward(&*model, &[id], &mut cache)).collect();
    near("cached decoding", &steps, &golden.decode_logits);

    // Step by step, and in two unequal chunks: the same as all at once.
    let mut cache = KvCache::new(model.cache_shape());
    let steps: Vec<f32> =
        golden.input_ids.iter().flat_map(|&id| forward(&*model, &[id], &mut cache)).collect();
    near("one token at a time", &steps, &golden.logits);
    let mut cache = KvCache::new(model.cache_shape());
    let (head, tail) = golden.input_ids.split_at(golden.input_ids.len() / 3);
    let mut chunks = forward(&*model, head, &mut cache);
    chunks.extend(forward(&*model, tail, &mut cache));
    near("two chunks", &chunks, &golden.logits);

    // A cache that drops at once what its windows have passed, saved and restored on the way, taken back
    // as far as it goes and marked: the same as one that holds everything, masked.
    let tight = CacheOptions { step: 4, rollback: 3, ..CacheOptions::AS_COMPUTED };
    let cache = || KvCache::with_options(model.cache_shape(), &tight).expect("a cache");
    let mut first = cache();
    let mut steps: Vec<f32> =
        head.iter().chain(tail).flat_map(|&id| forward(&*model, &[id], &mut first)).collect();
    near("moving windows", &steps, &golden.logits);
    let contents: HashMap<String, Array> = first.contents().expect("contents").into_iter().collect();
    let mut second = cache();
    second.restore(first.offset(), |name| contents.get(name).cloned()).expect("contents that fit");
    let mark = second.mark();
    steps.clear();
    for (index, pair) in golden.decode_ids.chunks(2).enumerate() {
        let mark = if index == 0 { mark.clone() } else { second.mark() };
        let before = second.offset();
        forward(&*model, &[0, 0], &mut second);
        if second.truncate(before).is_err() {
            second.rewind(&mark).expect("a place within reach");
        }
        steps.extend(forward(&*model, pair, &mut second));
    }
    near("a restored cache", &steps, &golden.decode_logits);

    // Beside other sequences, which are at other places, join late and leave early: the same as alone.
    let mut caches = [cache(), KvCache::new(model.cache_shape()), cache()];
    let width = golden.logits.len() / golden.input_ids.len();
    let (first_logits, second_logits) = golden.logits.split_at(head.len() * width);
    let whole = (&golden.input_ids[..], &golden.logits[..]);
    let (first, second) = ((head, first_logits), (tail, second_logits));
    let next = |at: usize| (&golden.decode_ids[at..=at], &golden.decode_logits[at * width..][..width]);
    for step in [
        vec![(0, whole), (1, first)],
        vec![(0, next(0)), (1, second), (2, first)],
        vec![(1, next(0)), (2, second)],
        vec![(1, next(1)), (2, next(0))],
        vec![(2, next(1))],
    ] {
        let found = together(&*model, &step, &mut caches);
        let expected: Vec<f32> = step.iter().flat_map(|(_, (_, logits))| logits.iter().copied()).collect();
        near("a sequence beside others", &found, &expected);
        let near_best = |(found, expected): (&[f32], &[f32])| {
            let token = (0..width).max_by(|&a, &b| found[a].total_cmp(&found[b])).expect("a token");
            expected.iter().all(|logit| logit - expected[token] <= 2.0 * tolerance * range)
        };
        if !found.chunks(width).zip(expected.chunks(width)).all(near_best) {
            failures.borrow_mut().push(format!("{name}: a sequence beside others has other greedy tokens"));
        }
    }
    let failures = failures.into_inner();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Steps of one token are built once, and let go of when the cache changes.
#[cfg(target_os = "linux")]
#[test]
fn steps_of_kernels_alone_are_had_again() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/architectures");
    let mut repeating = BTreeSet::new();
    for case in std::fs::read_dir(folder).expect("fixtures/architectures") {
        let case = case.expect("entry").path();
        let checkpoint = Checkpoint::open(&case).expect("checkpoint");
        let model = models::load(&checkpoint, Backend::Kernels, Dtype::Float32, CONTEXT, &mut |_, _| {})
            .expect("model");
        let id = Array::from_slice(&[3], &[1]);
        let mut cache = KvCache::new(model.cache_shape());
        assert!(cache.again(&id).expect("nothing").is_none(), "there is no step before");
        forward(&*model, &[1, 2], &mut cache);
        assert!(cache.again(&id).expect("nothing").is_none(), "a step of two tokens");
        forward(&*model, &[3], &mut cache);
        let again = cache.again(&id).expect("a step").is_some();
        assert_eq!(cache.offset(), 3 + usize::from(again));
        if again {
            repeating.insert(checkpoint.config.architecture.name);
        }
        cache.truncate(3).unwrap_or_else(|_| cache.clear());
        assert!(cache.again(&id).expect("nothing").is_none(), "the cache was taken back");
    }
    for name in ["cohere2", "gemma3", "llama", "phi3", "qwen3"] {
        assert!(repeating.contains(name), "{name} is not among {repeating:?}");
    }
}

pub fn backends() -> Vec<Backend> {
    if cfg!(target_os = "linux") { vec![Backend::Stock, Backend::Kernels] } else { vec![Backend::Stock] }
}

/// Folders of fixtures that begin with one of these prefixes.
pub fn folders(prefixes: &[&str]) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(fixtures())
        .expect("fixtures/tiny")
        .map(|entry| entry.expect("entry").path())
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            prefixes.iter().any(|prefix| name.starts_with(prefix))
        })
        .collect();
    found.sort();
    found
}

#[test]
fn llama_and_mistral_match_transformers() {
    let folders = folders(&["llama_", "mistral"]);
    assert!(folders.len() >= 16, "only {} models found", folders.len());
    for folder in folders {
        for backend in backends() {
            check(&folder, &folder.join("golden.safetensors"), backend);
        }
    }
}

#[test]
fn adapters_match_weights_that_they_are_merged_into() {
    let adapters = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/adapters");
    for (adapter, golden, model) in [
        ("mlx", "mlx", "llama_tied"),
        ("peft", "mlx", "llama_tied"),
        ("quantized", "quantized", "quant_4bit_g64"),
        ("gguf", "gguf", "gguf/llama_F32.gguf"),
        ("latent", "latent", "../architectures/deepseek_v3"),
        // Whose keys and values are unfolded apart.
        ("latent", "latent", "../architectures/deepseek_v3/model.gguf"),
    ] {
        let adapter = Adapter::open(&adapters.join(adapter)).expect(adapter);
        let golden = adapters.join(golden).join("golden.safetensors");
        for backend in backends() {
            check_adapted(&fixtures().join(model), Some(&adapter), &golden, backend, TOLERANCE);
        }
    }
}

#[test]
fn every_architecture_matches_transformers() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/architectures");
    let mut cases: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("fixtures/architectures")
        .map(|entry| entry.expect("entry").path())
        .collect();
    cases.sort();
    let (mut checked, mut ggufs) = (BTreeSet::new(), 0);
    for case in cases {
        let checkpoint = Checkpoint::open(&case).expect("checkpoint");
        checked.insert(checkpoint.config.architecture.name);
        let gguf = case.join("model.gguf");
        ggufs += usize::from(gguf.exists());
        for model in [&case, &gguf].into_iter().filter(|model| model.exists()) {
            for backend in backends() {
                check(model, &case.join("golden.safetensors"), backend);
            }
        }
    }
    assert!(ggufs >= 50, "only {ggufs} GGUF files");
    // Llama and Mistral have models of their own above.
    checked.extend(["llama", "mistral"]);
    let known: BTreeSet<_> = models::ARCHITECTURES.iter().map(|architecture| architecture.name).collect();
    assert_eq!(checked, known);
}

#[test]
fn quantizations_match_their_dequantized_weights() {
    let folders = folders(&[
        "quant_2bit",
        "quant_3bit",
        "quant_4bit",
        "quant_5bit",
        "quant_6bit",
        "quant_8bit",
        "quant_mixed",
        "quant_mxfp4",
        "quant_mxfp8",
        "quant_nvfp4",
    ]);
    assert!(folders.len() >= 15, "only {} models found", folders.len());
    for folder in folders {
        for backend in backends() {
            check(&folder, &folder.join("golden.safetensors"), backend);
        }
    }
}

/// As DeepSeek and Qwen publish theirs, and llm-compressor: the kernels keep every value, MLX's operations have
/// such floats for scales that are powers of two only.
#[test]
fn eight_bit_floats_match_their_dequantized_weights() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/fp8");
    for name in ["blocks", "rows", "whole", "experts", "turned"] {
        for backend in backends() {
            let model = folder.join(name);
            let tolerance = if backend == Backend::Stock { ROUNDED } else { TOLERANCE };
            check_within(&model, &model.join("golden.safetensors"), backend, tolerance);
        }
    }
}

/// The types that MLX has in no exact form are rounded once more where MLX's operations compute: there
/// the logits are near, and exact in the kernels.
#[test]
fn mixed_gguf_types_match_their_dequantized_weights() {
    let folder = fixtures().join("gguf");
    for name in ["mixed_32", "mixed_K"] {
        let (model, golden) =
            (folder.join(format!("{name}.gguf")), folder.join(format!("{name}.golden.safetensors")));
        for backend in backends() {
            let is_rounded = name == "mixed_K" && backend == Backend::Stock;
            check_within(&model, &golden, backend, if is_rounded { ROUNDED } else { TOLERANCE });
        }
    }
}

/// llama.cpp rounds activations to 8 bits for such weights, so that it is near but not equal.
#[test]
fn logits_of_mixed_k_types_are_near_those_of_llama_cpp() {
    let folder = fixtures().join("gguf");
    let golden = Golden::read(&folder.join("mixed_K.golden.safetensors"));
    let theirs = Array::load_safetensors(folder.join("mixed_K.llama_cpp.safetensors")).expect("logits");
    let theirs = theirs["logits"].to_vec_exact::<f32>().expect("float32 tensor");
    let checkpoint = Checkpoint::open(&folder.join("mixed_K.gguf")).expect("checkpoint");
    for backend in backends() {
        let model =
            models::load(&checkpoint, backend, Dtype::Float32, CONTEXT, &mut |_, _| {}).expect("model");
        let ours = forward(&*model, &golden.input_ids, &mut KvCache::new(model.cache_shape()));
        let share = largest_difference(&ours, &theirs) / golden.range();
        let tolerance = if backend == Backend::Stock { ROUNDED } else { LLAMA_CPP };
        assert!(share <= tolerance, "{backend:?}: {share:e} of the logits' range");
    }
}

/// The parts of a split file are the same model as the whole one, which has these golden logits.
#[test]
fn a_gguf_in_parts_matches_the_whole_one() {
    let folder = fixtures().join("gguf");
    let golden = folder.join("llama_Q8_0.golden.safetensors");
    for backend in backends() {
        check(&folder.join("split/llama_Q8_0-00001-of-00003.gguf"), &golden, backend);
        check(&folder.join("split"), &golden, backend);
    }
}

#[test]
fn gguf_types_match_their_dequantized_weights() {
    let folder = fixtures().join("gguf");
    for kind in ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q8_0", "rope_freqs_F16"] {
        for backend in backends() {
            check(
                &folder.join(format!("llama_{kind}.gguf")),
                &folder.join(format!("llama_{kind}.golden.safetensors")),
                backend,
            );
        }
    }
}
