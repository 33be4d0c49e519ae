//! Adapters to every architecture, against weights that they are merged into.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use mlx_cache::engine::cache::KvCache;
use mlx_cache::engine::format::adapter::Adapter;
use mlx_cache::engine::format::checkpoint::Checkpoint;
use mlx_cache::engine::layers::Backend;
use mlx_cache::engine::models;
use mlx_rs::{Array, Dtype, ops};

use crate::golden::{backends, forward, largest_difference};

const RANK: i32 = 4;
/// `lora_alpha` is as much as the rank.
const CONFIG: &str = r#"{"peft_type": "LORA", "r": 4, "lora_alpha": 4, "bias": "none"}"#;
const PROMPT: [i32; 9] = [9, 17, 33, 12, 90, 41, 64, 8, 25];

/// Numbers around zero that look random, the same at every run.
fn random(shape: &[i32], seed: u64, size: f32) -> Array {
    mlx_rs::random::normal::<f32>(shape, None, Some(size), &mlx_rs::random::key(seed).expect("a key"))
        .expect("numbers")
}

/// Whether the trainers adapt the matrix: those of layers, but no norms, convolutions or tables.
fn is_adapted(name: &str, weight: &Array) -> bool {
    let kinds = [Dtype::Float32, Dtype::Bfloat16, Dtype::Float16];
    weight.ndim() == 2
        && kinds.contains(&weight.dtype())
        && name.ends_with(".weight")
        && name.contains("layers.")
        && !["norm", "conv", "embed", "visual"].iter().any(|other| name.contains(other))
}

/// Whether mlx-lm's trainer adapts it: the matrices of all experts in one tensor.
fn are_adapted(name: &str, weight: &Array) -> bool {
    weight.ndim() == 3
        && weight.dtype() != Dtype::Uint32
        && name.ends_with(".weight")
        && ["switch_mlp", "switch_glu"].iter().any(|all| name.contains(all))
}

/// Writes an adapter to the checkpoint in `from`, and the checkpoint that it is merged into.
fn make(from: &Path, adapter: &Path, merged: &Path, layers: usize) -> usize {
    for folder in [adapter, merged] {
        std::fs::create_dir_all(folder).expect("a folder");
    }
    std::fs::copy(from.join("config.json"), merged.join("config.json")).expect("a copy");
    std::fs::write(adapter.join("adapter_config.json"), CONFIG).expect("written");
    let mut weights = Array::load_safetensors(from.join("model.safetensors")).expect("weights");
    let mut parts = HashMap::new();
    let mut names: Vec<String> = weights.keys().cloned().collect();
    names.sort();
    for (name, seed) in names.iter().zip(0..) {
        let weight = &weights[name];
        let ahead = (layers..layers + 2).any(|layer| name.contains(&format!("layers.{layer}.")));
        let ([rows, columns], experts) = match *weight.shape() {
            _ if ahead => continue,
            [rows, columns] if is_adapted(name, weight) => ([rows, columns], None),
            [experts, rows, columns] if are_adapted(name, weight) => ([rows, columns], Some(experts)),
            _ => continue,
        };
        let shape = |sizes: [i32; 2]| experts.into_iter().chain(sizes).collect::<Vec<_>>();
        let a = random(&shape([RANK, columns]), 2 * seed, 0.3 / (columns as f32).sqrt());
        let b = random(&shape([rows, RANK]), 2 * seed + 1, 0.3);
        let product = ops::matmul(&b, &a).expect("a product");
        let sum = ops::add(weight.as_dtype(Dtype::Float32).expect("float32"), &product).expect("a sum");
        let module = name.trim_end_matches(".weight");
        parts.insert(format!("base_model.model.{module}.lora_A.weight"), a);
        parts.insert(format!("base_model.model.{module}.lora_B.weight"), b);
        weights.insert(name.clone(), sum);
    }
    let save = |arrays: &HashMap<String, Array>, path: PathBuf| {
        Array::save_safetensors(arrays, None, path).expect("saved");
    };
    save(&weights, merged.join("model.safetensors"));
    if !parts.is_empty() {
        save(&parts, adapter.join("adapter_model.safetensors"));
    }
    parts.len() / 2
}

#[test]
fn adapters_to_every_architecture_are_as_merged_into_it() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/architectures");
    let (mut failures, mut refused, mut checked) = (Vec::new(), BTreeSet::new(), 0);
    for case in std::fs::read_dir(folder).expect("fixtures") {
        let case = case.expect("an entry").path();
        let temp = tempfile::tempdir().expect("a folder");
        let (adapter, merged) = (temp.path().join("adapter"), temp.path().join("merged"));
        let layers = Checkpoint::open(&case).expect("a checkpoint").config.layers;
        if make(&case, &adapter, &merged, layers) == 0 {
            continue;
        }
        let logits = |path: &Path, adapter: Option<&Adapter>, backend: Backend| -> Result<Vec<f32>, String> {
            let checkpoint = Checkpoint::open(path).map_err(|error| error.to_string())?;
            let dtype = Dtype::Float32;
            let model = models::load_adapted(&checkpoint, adapter, backend, dtype, 64, &mut |_, _| {})
                .map_err(|error| error.to_string())?;
            Ok(forward(&*model, &PROMPT, &mut KvCache::new(model.cache_shape())))
        };
        let adapter = Adapter::open(&adapter).expect("an adapter");
        let gguf = case.join("model.gguf");
        for backend in backends() {
            let expected = logits(&merged, None, backend).expect("the merged model");
            let plain = logits(&case, None, backend).expect("the model");
            let range = expected.iter().fold(0.0f32, |largest, logit| largest.max(logit.abs()));
            assert!(largest_difference(&plain, &expected) > 0.01 * range, "{}", case.display());
            for model in [&case, &gguf].into_iter().filter(|path| path.exists()) {
                checked += 1;
                match logits(model, Some(&adapter), backend) {
                    Ok(found) => {
                        let share = largest_difference(&found, &expected) / range;
                        if share.is_nan() || share > 1e-4 {
                            failures.push(format!("{} on {backend:?}: {share:e}", model.display()));
                        }
                    }
                    // What a GGUF file has in other matrices or in another order.
                    Err(error) if *model == gguf && error.contains("cannot be adapted here") => {
                        refused.insert(
                            case.file_name().and_then(|name| name.to_str()).expect("a name").to_owned(),
                        );
                    }
                    Err(error) => failures.push(format!("{} on {backend:?}: {error}", model.display())),
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(checked > 150, "only {checked} models");
    let others = ["granitemoehybrid", "granitemoehybrid_dense", "qwen3_5_moe", "qwen3_5_text", "qwen3_next"];
    assert_eq!(refused, others.map(str::to_owned).into());
}
