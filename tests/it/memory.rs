//! What the memory gate counts, against what is there.

use std::path::Path;

use mlx_cache::engine::config::Packing;
use mlx_cache::engine::format::checkpoint::Checkpoint;
use mlx_cache::engine::format::weight::FloatType;
use mlx_cache::engine::layers::Backend;
use mlx_cache::engine::models;
use mlx_rs::Dtype;

#[cfg(target_os = "linux")]
use crate::sandbox::{Sandbox, minilm, smollm2};

/// Bytes that the gate counts for weights where MLX computes, and those of all arrays.
fn weights(checkpoint: &Checkpoint) -> (f64, f64) {
    let model =
        models::load(checkpoint, Backend::Stock, Dtype::Float32, 64, &mut |_, _| {}).expect("a model");
    assert!(!checkpoint.config.tie_word_embeddings, "the table would count twice");
    let bytes: usize = model.arrays().iter().map(|array| array.nbytes()).sum();
    (checkpoint.sizes().bytes(false, FloatType::F32, 0) as f64, bytes as f64)
}

#[test]
fn weights_are_counted_as_they_are() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let open = |name: &str| Checkpoint::open(&fixtures.join(name)).expect("checkpoint");
    let quantized = |name: &str, bits: &str| {
        open(name).quantized(Packing::asked(bits, None).expect("a packing")).expect("an original")
    };
    for (what, checkpoint) in [
        ("bfloat16", open("tiny/llama_untied")),
        ("4 bits", open("tiny/quant_4bit_g64")),
        ("mxfp4", open("tiny/quant_mxfp4")),
        ("GGUF", open("architectures/qwen3_moe/model.gguf")),
        ("on load", quantized("quantize/llama", "4")),
        ("experts on load", quantized("quantize/qwen3_moe", "4")),
        ("mxfp4 on load", quantized("quantize/llama", "mxfp4")),
    ] {
        let (counted, found) = weights(&checkpoint);
        assert!((counted / found - 1.0).abs() < 0.01, "{what}: {counted} of {found}");
    }
}

/// A real model with a prompt that fills its context: the whole process.
#[test]
#[cfg(target_os = "linux")]
fn the_estimate_is_within_a_tenth_of_the_peak() {
    let sandbox = Sandbox::new();
    let model = smollm2();
    let model = model.to_str().expect("UTF-8");
    let prompt = |words: usize| vec!["word"; words].join(" ");
    let args = ["run", model, &prompt(200), "--raw", "--temp", "0", "-n", "2", "-c", "256"];
    for flags in [&[][..], &["--kv-bits", "8"], &["--draft-model", model]] {
        is_within_a_tenth(&sandbox, &[&args[..], flags].concat());
    }
    // Four caches at a time.
    let lines: Vec<String> = (0..4)
        .map(|line| serde_json::json!({ "prompt": format!("{line} {}", prompt(60)) }).to_string())
        .collect();
    let path = sandbox.home().join("prompts.jsonl");
    std::fs::write(&path, lines.join("\n")).expect("prompts");
    let batch = ["run", model, "--batch", path.to_str().expect("UTF-8"), "--batch-size", "4"];
    is_within_a_tenth(&sandbox, &[&batch[..], &["--raw", "--temp", "0", "-n", "2", "-c", "64"]].concat());
}

/// Texts that threads share among them, and one.
#[test]
#[cfg(target_os = "linux")]
fn the_estimate_of_embedding_is_near_the_peak() {
    /// Of the table of words, which is counted whole and read row by row: these texts have one word.
    const TABLE: f64 = 30_522.0 * 384.0 * 4.0;
    let sandbox = Sandbox::new();
    let model = minilm();
    let text = |index: usize| vec!["word"; 8 + 37 * index % 120].join(" ");
    let texts: Vec<String> = (0..40).map(text).collect();
    let path = sandbox.home().join("texts.txt");
    std::fs::write(&path, texts.join("\n")).expect("texts");
    let model = model.to_str().expect("UTF-8");
    // A third of what is computed at once at most, which is counted as if no two results shared a place.
    let share = estimated(&sandbox, &["embed", model, "-i", path.to_str().expect("UTF-8")], TABLE);
    assert!((0.9..1.3).contains(&share), "{share}");
    is_within_a_tenth(&sandbox, &["embed", model, "one short text"]);
}

#[cfg(target_os = "linux")]
fn is_within_a_tenth(sandbox: &Sandbox, args: &[&str]) {
    let share = estimated(sandbox, args, 0.0);
    assert!((share - 1.0).abs() < 0.1, "{share}: {args:?}");
}

/// The estimate without `absent` bytes, compared with the peak.
#[cfg(target_os = "linux")]
fn estimated(sandbox: &Sandbox, args: &[&str], absent: f64) -> f64 {
    let (status, envelope) = sandbox.json(args);
    assert_eq!(status, 0, "{envelope}");
    let memory = &envelope["data"]["memory"];
    let bytes = |name: &str| memory[name].as_f64().expect("bytes");
    (bytes("estimate_bytes") - absent) / bytes("peak_bytes")
}
