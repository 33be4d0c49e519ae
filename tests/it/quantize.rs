//! Originals that are quantized while they are loaded, against what mlx_lm.convert writes for the same
//! model: bit for bit, and its logits.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mlx_cache::engine::cache::KvCache;
use mlx_cache::engine::config::Packing;
use mlx_cache::engine::format::block_float::BlockFloat;
use mlx_cache::engine::format::checkpoint::Checkpoint;
use mlx_cache::engine::format::weight::WeightData;
use mlx_cache::engine::models;
use mlx_cache::ids;
use mlx_rs::{Array, Dtype};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::golden::{backends, forward, largest_difference};
use crate::sandbox::{Sandbox, smollm2};

/// Largest difference allowed, as a share of the golden logits' range.
const TOLERANCE: f32 = 1e-4;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

fn quantized(model: &Path, name: &str, group: Option<usize>) -> Checkpoint {
    let packing = Packing::asked(name, group).expect("a packing");
    Checkpoint::open(model).expect("checkpoint").quantized(packing).expect("an original")
}

/// The digest of the packed parts as they lie in a file of MLX; `None` for what is not packed.
fn digest(weight: &WeightData) -> Option<String> {
    let mut digest = Sha256::new();
    match weight {
        WeightData::Affine { packed, scales, biases, .. } => {
            digest.update(bytemuck::cast_slice::<u32, u8>(packed));
            digest.update(&scales.bytes);
            digest.update(&biases.bytes);
        }
        WeightData::Codes { table, group, packed, scales, .. } => {
            digest.update(bytemuck::cast_slice::<u32, u8>(packed));
            let mode = BlockFloat::of_codes(*table, *group).expect("a mode");
            digest.update(mode.bytes(scales).expect("scales"));
        }
        _ => return None,
    }
    Some(ids::Digest::from_bytes(digest.finalize().into()).to_string())
}

/// What the converter packed, by the names that the original has; experts that it stacks are left out.
fn expected(about: &Value, checkpoint: &Checkpoint) -> BTreeMap<String, String> {
    let tensors = about["tensors"].as_object().expect("digests");
    let named = tensors.iter().filter(|(module, _)| checkpoint.contains(&format!("{module}.weight")));
    named.map(|(module, digest)| (module.clone(), digest.as_str().expect("a digest").to_owned())).collect()
}

#[test]
fn weights_and_logits_are_those_of_the_converted_model() {
    let mut checked = 0;
    for model in ["llama", "qwen3_moe", "granitemoe"] {
        let folder = fixtures().join("quantize").join(model);
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let golden_path = entry.expect("an entry").path();
            let ask = golden_path.file_stem().and_then(|stem| stem.to_str()).expect("a name").to_owned();
            if ["config", "model"].contains(&ask.as_str()) {
                continue;
            }
            checked += 1;
            let (tensors, about) = Array::load_safetensors_with_metadata(&golden_path).expect("golden");
            let about: Value = serde_json::from_str(&about["about"]).expect("JSON");
            let group = about["flags"]["q_group_size"].as_u64().map(|group| group as usize);
            let name = ask.split('_').next().expect("a name");
            let checkpoint = quantized(&folder, name, group);

            let expected = expected(&about, &checkpoint);
            let found: BTreeMap<String, String> = checkpoint
                .tensor_names()
                .filter_map(|name| name.strip_suffix(".weight"))
                .filter(|module| !module.contains("norm") && !module.contains("expert"))
                .filter(|module| !module.contains("put_linear"))
                .filter_map(|module| {
                    Some((module.to_owned(), digest(&checkpoint.weight(module).expect("a weight"))?))
                })
                .collect();
            assert_eq!(found, expected, "{model} {ask}");
            assert!(found.len() >= 6, "{model} {ask}");

            let ids = tensors["input_ids"].to_vec_exact::<i32>().expect("ids");
            let logits = tensors["logits"].to_vec_exact::<f32>().expect("logits");
            let range = logits.iter().copied().fold(f32::MIN, f32::max)
                - logits.iter().copied().fold(f32::MAX, f32::min);
            for backend in backends() {
                let model =
                    models::load(&checkpoint, backend, Dtype::Float32, 64, &mut |_, _| {}).expect("a model");
                let found = forward(&*model, &ids, &mut KvCache::new(model.cache_shape()));
                let share = largest_difference(&found, &logits) / range;
                assert!(share < TOLERANCE, "{ask} on {backend:?}: {share:e}");
            }
        }
    }
    assert_eq!(checked, 13);
}

/// Experts whose matrices lie transposed in the file are quantized along the rows that are computed with.
#[test]
fn transposed_experts_are_quantized_as_others_are() {
    let original = fixtures().join("architectures/gpt_oss");
    let stacked = tempfile::tempdir().expect("a folder");
    std::fs::copy(original.join("config.json"), stacked.path().join("config.json")).expect("a copy");
    let mut tensors = Array::load_safetensors(original.join("model.safetensors")).expect("tensors");
    let names: Vec<String> = tensors.keys().filter(|name| name.contains(".experts.")).cloned().collect();
    for name in names {
        let tensor = tensors.remove(&name).expect("a tensor");
        let (layer, part) = name.split_once(".experts.").expect("an expert");
        let mut put = |part: &str, tensor: Array| {
            tensors.insert(format!("{layer}.experts.{part}"), tensor.contiguous().expect("rows"));
        };
        let rows = if tensor.ndim() == 3 { tensor.swap_axes(1, 2).expect("rows") } else { tensor };
        let parameter = if part.ends_with("_bias") { "bias" } else { "weight" };
        if part.starts_with("down") {
            put(&format!("down_proj.{parameter}"), rows);
            continue;
        }
        // Gate and up take turns.
        for (which, name) in ["gate_proj", "up_proj"].into_iter().enumerate() {
            let turns = Array::from_iter((which as i32..rows.dim(1)).step_by(2), &[rows.dim(1) / 2]);
            put(&format!("{name}.{parameter}"), rows.take_axis(turns, 1).expect("rows"));
        }
    }
    Array::save_safetensors(&tensors, None, stacked.path().join("model.safetensors")).expect("written");

    let ids: Vec<i32> = (3..19).collect();
    for backend in backends() {
        let logits = |folder: &Path| {
            let checkpoint = quantized(folder, "8", Some(32));
            let model = models::load(&checkpoint, backend, Dtype::Float32, 64, &mut |_, _| {});
            let model = model.expect("a model");
            forward(&*model, &ids, &mut KvCache::new(model.cache_shape()))
        };
        assert_eq!(logits(&original), logits(stacked.path()), "{backend:?}");
    }
    let bytes = |folder: &Path| quantized(folder, "4", Some(32)).sizes();
    assert_eq!(bytes(&original), bytes(stacked.path()));
}

#[test]
fn the_gate_counts_what_is_quantized() {
    let folder = fixtures().join("quantize/llama");
    let whole = Checkpoint::open(&folder).expect("checkpoint").sizes();
    let four = quantized(&folder, "4", Some(32)).sizes();
    // 128 × 64 twice, 192 × 64, 192 × 64 and 64 × 96: all in 4 bits, with two numbers for each 32.
    let elements = 2 * 128 * 64 + 192 * 64 + 192 * 64 + 64 * 96;
    assert_eq!(four.packed_bytes, elements / 2);
    assert_eq!(four.floats, elements / 16 + 3 * 64);
    assert_eq!(four.kernel_bytes, elements / 2 + elements / 16 * 2 + 3 * 64 * 4);
    assert_eq!(whole.kernel_bytes, elements * 2 + 3 * 64 * 4);
    // Rows of 96 are no whole groups of 64: that matrix stays as it is.
    let wide = quantized(&folder, "4", None).sizes();
    assert_eq!(wide.packed_bytes, (elements - 64 * 96) / 2);
}

#[test]
fn run_and_bench_quantize_and_refuse_what_is_no_original() {
    let sandbox = Sandbox::new();
    let path = |name: &str| fixtures().join(name).to_str().expect("UTF-8").to_owned();
    let tiny = path("tiny/llama_head_dim");
    let answer = |flags: &[&str]| {
        let (status, envelope) =
            sandbox.json(&[&["run", &tiny, "Hello", "-n", "8", "--temp", "0"], flags].concat());
        assert_eq!(status, 0, "{envelope}");
        envelope["data"]["text"].as_str().expect("a text").to_owned()
    };
    assert_eq!(answer(&["--quantize", "8"]), answer(&["--quantize", "8", "--quantize-group-size", "64"]));
    for mode in ["2", "4", "mxfp4", "nvfp4"] {
        answer(&["--quantize", mode, "--quiet"]);
    }
    let bench =
        ["bench", &tiny, "-p", "8", "-g", "0", "-r", "1", "--warmup", "0", "--no-save", "--quantize", "4"];
    let (status, envelope) = sandbox.json(&bench);
    assert_eq!((status, &envelope["data"]["models"][0]["quantization"]), (0, &"4-bit (group 64)".into()));

    let gguf = smollm2().to_str().expect("UTF-8").to_owned();
    let refused: [(&str, &[&str], &str); 7] = [
        (&tiny, &["--quantize", "7"], "\"7\""),
        (&tiny, &["--quantize", "four"], "\"four\""),
        (&tiny, &["--quantize", "4", "--quantize-group-size", "48"], "groups of 48"),
        (&tiny, &["--quantize", "mxfp4", "--quantize-group-size", "64"], "no groups of 64"),
        (&tiny, &["--quantize-group-size", "64"], "--quantize"),
        (&path("tiny/quant_4bit_g64"), &["--quantize", "4"], "is quantized already"),
        (&gguf, &["--quantize", "4"], "is a GGUF file"),
    ];
    for (model, flags, expected) in refused {
        let (status, error) = sandbox.error(&[&["run", model, "x", "-n", "1"], flags].concat());
        let message = error["message"].as_str().expect("a message");
        assert!(status == 2 && message.contains(expected), "{flags:?}: {error}");
    }
    // Rows of 96 are whole groups of 32 only.
    let narrow = path("tiny/llama_gqa");
    let (status, error) = sandbox.error(&["run", &narrow, "x", "-n", "1", "--quantize", "4"]);
    assert!(status == 2 && error["hint"].as_str().is_some_and(|hint| hint.contains("32")), "{error}");
}

/// A prompt cache belongs to the weights that it was computed with.
#[test]
fn a_prompt_cache_of_other_weights_is_refused() {
    let sandbox = Sandbox::new();
    let tiny = fixtures().join("tiny/llama_head_dim");
    let file = sandbox.home().join("cache");
    let (tiny, file) = (tiny.to_str().expect("UTF-8"), file.to_str().expect("UTF-8"));
    let args = ["run", tiny, "Hello", "-n", "2", "--prompt-cache", file];
    assert_eq!(sandbox.json(&args).0, 0);
    let (status, error) = sandbox.error(&[&args[..], &["--quantize", "8"]].concat());
    assert_eq!((status, &error["code"]), (2, &"INVALID_REQUEST".into()), "{error}");
}
