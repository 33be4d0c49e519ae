//! A real model, SmolLM2-135M-Instruct: from its GGUF file and from MLX safetensors made of the same
//! weights, against the tokens of mlx_lm in float32 (fixtures/smollm2_golden.json).

use std::path::Path;

use mlx_cache::engine::cache::KvCache;
use mlx_cache::engine::config::ModelConfig;
use mlx_cache::engine::format::checkpoint::Checkpoint;
use mlx_cache::engine::format::weight::{FloatType, Floats, WeightData};
use mlx_cache::engine::layers::Backend;
use mlx_cache::engine::models::{self, Logits};
use mlx_rs::ops::indexing::argmax_axis;
use mlx_rs::{Array, Dtype};
use serde_json::{Value, json};

use crate::sandbox::smollm2;

fn golden() -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/smollm2_golden.json");
    let text = std::fs::read_to_string(path).expect("golden file");
    let parsed: Value = serde_json::from_str(&text).expect("golden JSON");
    parsed["prompts"].as_array().expect("prompts").clone()
}

fn ids(value: &Value) -> Vec<i32> {
    value.as_array().expect("ids").iter().map(|id| id.as_i64().expect("id") as i32).collect()
}

/// Greedy tokens after `prompt`, end-of-turn tokens included, as the reference has them.
fn greedy(model: &dyn models::LanguageModel, prompt: &[i32], count: usize) -> Vec<i32> {
    let mut cache = KvCache::new(model.cache_shape());
    let mut next = Array::from_slice(prompt, &[prompt.len() as i32]);
    (0..count)
        .map(|_| {
            let logits = model.forward(&next, &mut cache, Logits::Last).expect("forward").expect("logits");
            let token =
                argmax_axis(&logits, -1, false).expect("argmax").as_dtype(Dtype::Int32).expect("int32");
            let id = token.try_item_exact::<i32>().expect("token");
            next = Array::from_slice(&[id], &[1]);
            id
        })
        .collect()
}

fn load(path: &Path, backend: Backend) -> Box<dyn models::LanguageModel> {
    let checkpoint = Checkpoint::open(path).expect("checkpoint");
    models::load(&checkpoint, backend, Dtype::Float32, 8192, &mut |_, _| {}).expect("model")
}

#[test]
fn the_gguf_gives_the_tokens_of_mlx_lm() {
    let model = load(&smollm2(), Backend::of(false));
    for prompt in golden() {
        let expected = ids(&prompt["tokens"]);
        assert_eq!(expected.len(), 64);
        let found = greedy(&*model, &ids(&prompt["prompt_ids"]), expected.len());
        assert_eq!(found, expected, "{}", prompt["rendered"]);
    }
}

#[test]
fn stock_operations_give_the_tokens_of_mlx_lm() {
    let model = load(&smollm2(), Backend::Stock);
    let prompt = &golden()[0];
    let expected = ids(&prompt["tokens"]);
    assert_eq!(greedy(&*model, &ids(&prompt["prompt_ids"]), 16), expected[..16]);
}

#[test]
fn the_same_weights_as_mlx_safetensors_give_the_same_tokens() {
    let folder = tempfile::tempdir().expect("folder");
    convert(&Checkpoint::open(&smollm2()).expect("checkpoint"), folder.path());
    let model = load(folder.path(), Backend::of(false));
    for prompt in golden() {
        let expected = ids(&prompt["tokens"]);
        assert_eq!(
            greedy(&*model, &ids(&prompt["prompt_ids"]), expected.len()),
            expected,
            "{}",
            prompt["rendered"]
        );
    }
}

/// Writes the weights of a Llama GGUF as MLX safetensors: quantized words, scales and biases as they
/// are, queries and keys back in the order of rows that Hugging Face checkpoints have.
fn convert(gguf: &Checkpoint, folder: &Path) {
    let config: &ModelConfig = &gguf.config;
    let mut header = serde_json::Map::new();
    let mut data: Vec<u8> = Vec::new();
    let mut overrides = serde_json::Map::new();
    let mut put = |name: String, dtype: &str, shape: &[usize], bytes: &[u8]| {
        let range = [data.len(), data.len() + bytes.len()];
        header.insert(name, json!({ "dtype": dtype, "shape": shape, "data_offsets": range }));
        data.extend_from_slice(bytes);
    };

    let mut modules = vec!["model.embed_tokens".to_owned()];
    let mut norms = vec!["model.norm.weight".to_owned()];
    for layer in 0..config.layers {
        for module in ["q_proj", "k_proj", "v_proj", "o_proj"] {
            modules.push(format!("model.layers.{layer}.self_attn.{module}"));
        }
        for module in ["gate_proj", "up_proj", "down_proj"] {
            modules.push(format!("model.layers.{layer}.mlp.{module}"));
        }
        norms.push(format!("model.layers.{layer}.input_layernorm.weight"));
        norms.push(format!("model.layers.{layer}.post_attention_layernorm.weight"));
    }
    for module in modules {
        let weight = gguf.weight(&module).expect("weight");
        let WeightData::Affine { rows, columns, group, bits, packed, scales, biases } = weight else {
            panic!("{module} is not quantized");
        };
        let order: Vec<usize> = if module.ends_with("q_proj") || module.ends_with("k_proj") {
            half_rotation_order(rows, config.head_dim)
        } else {
            (0..rows).collect()
        };
        let words: Vec<u8> = packed.iter().flat_map(|word| word.to_le_bytes()).collect();
        put(format!("{module}.weight"), "U32", &[rows, columns * bits / 32], &pick(&words, rows, &order));
        for (part, floats) in [("scales", &scales), ("biases", &biases)] {
            let dtype = match floats.dtype {
                FloatType::F32 => "F32",
                FloatType::F16 => "F16",
                FloatType::BF16 => "BF16",
            };
            let Floats { bytes, .. } = floats;
            put(format!("{module}.{part}"), dtype, &[rows, columns / group], &pick(bytes, rows, &order));
        }
        overrides.insert(module, json!({ "group_size": group, "bits": bits }));
    }
    for norm in norms {
        let values = gguf.vector(&norm).expect("norm");
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        put(norm, "F32", &[values.len()], &bytes);
    }

    let header = serde_json::to_vec(&Value::Object(header)).expect("header");
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header);
    file.extend(data);
    std::fs::write(folder.join("model.safetensors"), file).expect("weights");

    let mut quantization = json!({ "group_size": 32, "bits": 4 });
    quantization.as_object_mut().expect("object").extend(overrides);
    let config = json!({
        "model_type": "llama",
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.intermediate_size,
        "vocab_size": config.vocab_size,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope.theta,
        "max_position_embeddings": config.max_position_embeddings,
        "tie_word_embeddings": true,
        "torch_dtype": "float32",
        "quantization": quantization,
    });
    std::fs::write(folder.join("config.json"), config.to_string()).expect("config");
}

/// For each row of the half-rotation layout, the row of the interleaved one that holds it.
fn half_rotation_order(rows: usize, head_dim: usize) -> Vec<usize> {
    (0..rows)
        .map(|row| {
            let (head, within) = (row / head_dim, row % head_dim);
            let (half, pair) = (within / (head_dim / 2), within % (head_dim / 2));
            head * head_dim + 2 * pair + half
        })
        .collect()
}

/// The rows of a row-major matrix in another order.
fn pick(bytes: &[u8], rows: usize, order: &[usize]) -> Vec<u8> {
    let width = bytes.len() / rows;
    order.iter().flat_map(|&row| &bytes[row * width..(row + 1) * width]).copied().collect()
}
