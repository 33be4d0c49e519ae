//! Writers of small model files for tests: well-formed ones, to be damaged by the tests.

use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};

use crate::engine::format::ggml_type::GgmlType;
use crate::engine::format::metadata::Value;

/// A tensor to be written: name, element type as the format names it, shape, bytes.
pub struct Sample {
    pub name: String,
    pub dtype: &'static str,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

impl Sample {
    pub fn new(name: impl Into<String>, dtype: &'static str, shape: &[usize], bytes: Vec<u8>) -> Self {
        Self { name: name.into(), dtype, shape: shape.to_vec(), bytes }
    }

    /// Float32 values counting up from 0 in steps of 1/64.
    pub fn counting(name: impl Into<String>, shape: &[usize]) -> Self {
        let values = (0..shape.iter().product::<usize>()).map(|i| (i % 1024) as f32 / 64.0);
        Self::new(name, "F32", shape, values.flat_map(f32::to_le_bytes).collect())
    }
}

/// A safetensors file from a header and the bytes after it.
pub fn safetensors_of(header: &str, body: &[u8]) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(body);
    file
}

/// A well-formed safetensors file.
pub fn safetensors(samples: &[Sample]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let mut body = Vec::new();
    for sample in samples {
        let begin = body.len();
        body.extend_from_slice(&sample.bytes);
        let offsets = [begin, body.len()];
        let info = json!({"dtype": sample.dtype, "shape": sample.shape, "data_offsets": offsets});
        header.insert(sample.name.clone(), info);
    }
    safetensors_of(&Json::Object(header).to_string(), &body)
}

/// A GGUF file in the making.
#[derive(Clone)]
pub struct Gguf {
    pub version: u32,
    pub metadata: Vec<(String, Value)>,
    /// Name, type, shape with the outermost dimension first, bytes.
    pub tensors: Vec<(String, GgmlType, Vec<usize>, Vec<u8>)>,
}

impl Gguf {
    pub fn new() -> Self {
        Self { version: 3, metadata: Vec::new(), tensors: Vec::new() }
    }

    pub fn with(mut self, key: &str, value: Value) -> Self {
        self.metadata.push((key.to_owned(), value));
        self
    }

    pub fn tensor(mut self, name: &str, kind: GgmlType, shape: &[usize], bytes: Vec<u8>) -> Self {
        self.tensors.push((name.to_owned(), kind, shape.to_vec(), bytes));
        self
    }

    /// The file, its tensors aligned to 32 bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let mut file = b"GGUF".to_vec();
        file.extend(self.version.to_le_bytes());
        file.extend((self.tensors.len() as u64).to_le_bytes());
        file.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            put_text(&mut file, key);
            put_value(&mut file, value);
        }
        let mut offset = 0;
        for (name, kind, shape, bytes) in &self.tensors {
            put_text(&mut file, name);
            file.extend((shape.len() as u32).to_le_bytes());
            for size in shape.iter().rev() {
                file.extend((*size as u64).to_le_bytes());
            }
            file.extend(number_of(*kind).to_le_bytes());
            file.extend((offset as u64).to_le_bytes());
            offset = (offset + bytes.len()).next_multiple_of(32);
        }
        for (_, _, _, bytes) in &self.tensors {
            file.resize(file.len().next_multiple_of(32), 0);
            file.extend(bytes);
        }
        file
    }
}

pub fn number_of(kind: GgmlType) -> u32 {
    (0..64).find(|&number| GgmlType::from_number(number) == Some(kind)).expect("every type has a number")
}

pub fn put_text(file: &mut Vec<u8>, text: &str) {
    file.extend((text.len() as u64).to_le_bytes());
    file.extend(text.as_bytes());
}

fn put_array<T>(file: &mut Vec<u8>, kind: u32, values: &[T], mut put: impl FnMut(&mut Vec<u8>, &T)) {
    file.extend(9u32.to_le_bytes());
    file.extend(kind.to_le_bytes());
    file.extend((values.len() as u64).to_le_bytes());
    for value in values {
        put(file, value);
    }
}

fn put_value(file: &mut Vec<u8>, value: &Value) {
    let mut scalar = |kind: u32, bytes: &[u8]| {
        file.extend(kind.to_le_bytes());
        file.extend(bytes);
    };
    match value {
        Value::Unsigned(v) => scalar(10, &v.to_le_bytes()),
        Value::Signed(v) => scalar(11, &v.to_le_bytes()),
        Value::Float(v) => scalar(12, &v.to_le_bytes()),
        Value::Bool(v) => scalar(7, &[u8::from(*v)]),
        Value::Text(v) => {
            scalar(8, &[]);
            put_text(file, v);
        }
        Value::Integers(v) => put_array(file, 11, v, |file, v| file.extend(v.to_le_bytes())),
        Value::Floats(v) => put_array(file, 6, v, |file, v| file.extend(v.to_le_bytes())),
        Value::Bools(v) => put_array(file, 7, v, |file, v| file.push(u8::from(*v))),
        Value::Texts(v) => put_array(file, 8, v, |file, v| put_text(file, v)),
    }
}

/// config.json of a Llama with one layer: hidden 64, 2 heads, 1 key-value head, 96 intermediate, 32 tokens.
pub fn llama_config() -> Json {
    json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "intermediate_size": 96,
        "vocab_size": 32,
        "max_position_embeddings": 128,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": true,
        "torch_dtype": "float32",
        "eos_token_id": 2,
        "bos_token_id": 1
    })
}

/// The tensors of [`llama_config`].
pub fn llama_tensors() -> Vec<Sample> {
    let layer = "model.layers.0";
    vec![
        Sample::counting("model.embed_tokens.weight", &[32, 64]),
        Sample::counting(format!("{layer}.input_layernorm.weight"), &[64]),
        Sample::counting(format!("{layer}.self_attn.q_proj.weight"), &[64, 64]),
        Sample::counting(format!("{layer}.self_attn.k_proj.weight"), &[32, 64]),
        Sample::counting(format!("{layer}.self_attn.v_proj.weight"), &[32, 64]),
        Sample::counting(format!("{layer}.self_attn.o_proj.weight"), &[64, 64]),
        Sample::counting(format!("{layer}.self_attn.rotary_emb.inv_freq"), &[16]),
        Sample::counting(format!("{layer}.post_attention_layernorm.weight"), &[64]),
        Sample::counting(format!("{layer}.mlp.gate_proj.weight"), &[96, 64]),
        Sample::counting(format!("{layer}.mlp.up_proj.weight"), &[96, 64]),
        Sample::counting(format!("{layer}.mlp.down_proj.weight"), &[64, 96]),
        Sample::counting("model.norm.weight", &[64]),
    ]
}

/// A folder with the model of [`llama_config`] and a token of a tokenizer.
pub fn llama_folder(folder: &Path, config: &Json, tensors: &[Sample]) -> PathBuf {
    std::fs::create_dir_all(folder).expect("the folder is ours");
    write(&folder.join("config.json"), config.to_string().as_bytes());
    write(&folder.join("model.safetensors"), &safetensors(tensors));
    write(&folder.join("tokenizer.json"), b"{}");
    folder.to_owned()
}

/// The same model as a GGUF, its embedding of type `kind`.
pub fn llama_gguf(kind: GgmlType) -> Gguf {
    let number = Value::Unsigned;
    let tokens = (0..32).map(|i| if i == 7 { "<|eot_id|>".to_owned() } else { format!("t{i}") }).collect();
    let types = (0..32).map(|i| if i == 7 { 3 } else { 1 }).collect();
    let gguf = Gguf::new()
        .with("general.architecture", Value::Text("llama".to_owned()))
        .with("llama.block_count", number(1))
        .with("llama.context_length", number(128))
        .with("llama.embedding_length", number(64))
        .with("llama.feed_forward_length", number(96))
        .with("llama.attention.head_count", number(2))
        .with("llama.attention.head_count_kv", number(1))
        .with("llama.attention.layer_norm_rms_epsilon", Value::Float(1e-5))
        .with("tokenizer.ggml.tokens", Value::Texts(tokens))
        .with("tokenizer.ggml.token_type", Value::Integers(types))
        .with("tokenizer.ggml.eos_token_id", number(2));
    let embedding = 32 * 64 / kind.block_elements() * kind.block_bytes();
    let gguf = gguf.tensor("token_embd.weight", kind, &[32, 64], vec![0; embedding as usize]);
    let floats = [
        ("blk.0.attn_norm.weight", &[64][..]),
        ("blk.0.attn_q.weight", &[64, 64]),
        ("blk.0.attn_k.weight", &[32, 64]),
        ("blk.0.attn_v.weight", &[32, 64]),
        ("blk.0.attn_output.weight", &[64, 64]),
        ("blk.0.ffn_norm.weight", &[64]),
        ("blk.0.ffn_gate.weight", &[96, 64]),
        ("blk.0.ffn_up.weight", &[96, 64]),
        ("blk.0.ffn_down.weight", &[64, 96]),
        ("output_norm.weight", &[64]),
    ];
    floats.into_iter().fold(gguf, |gguf, (name, shape)| {
        gguf.tensor(name, GgmlType::F32, shape, Sample::counting(name, shape).bytes)
    })
}

pub fn write(path: &Path, content: &[u8]) {
    std::fs::write(path, content).expect("the folder is ours");
}
