use std::path::{Path, PathBuf};

use serde_json::json;
use tempfile::TempDir;

use super::fails;
use super::samples::{self, Sample, llama_config, llama_folder, llama_gguf, llama_tensors, write};
use crate::engine::config::{Affine, RopeScaling};
use crate::engine::format::checkpoint::Checkpoint;
use crate::engine::format::ggml_type::GgmlType;
use crate::engine::format::metadata::Value;
use crate::engine::format::weight::{FloatType, WeightData};
use crate::error::{Code, Result};

const LAYER: &str = "model.layers.0";

fn temporary() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Opens the plain model after its tensors were changed.
fn with_tensors(change: impl FnOnce(&mut Vec<Sample>)) -> Result<Checkpoint> {
    let folder = temporary();
    let mut tensors = llama_tensors();
    change(&mut tensors);
    Checkpoint::open(&llama_folder(folder.path(), &llama_config(), &tensors))
}

/// Writes the model in two shards with this index; the second shard has the norm only.
fn sharded(folder: &Path, index: &str) -> PathBuf {
    let (last, first): (Vec<_>, Vec<_>) =
        llama_tensors().into_iter().partition(|tensor| tensor.name == "model.norm.weight");
    llama_folder(folder, &llama_config(), &[]);
    std::fs::remove_file(folder.join("model.safetensors")).unwrap();
    write(&folder.join("model-00001-of-00002.safetensors"), &samples::safetensors(&first));
    write(&folder.join("model-00002-of-00002.safetensors"), &samples::safetensors(&last));
    write(&folder.join("model.safetensors.index.json"), index.as_bytes());
    folder.to_owned()
}

fn index(shard_of: impl Fn(&str) -> &'static str) -> String {
    let map: serde_json::Map<_, _> = llama_tensors()
        .into_iter()
        .map(|tensor| {
            let shard = shard_of(&tensor.name);
            (tensor.name, json!(shard))
        })
        .collect();
    json!({"metadata": {"total_size": 1}, "weight_map": map}).to_string()
}

fn honest(name: &str) -> &'static str {
    if name == "model.norm.weight" {
        "model-00002-of-00002.safetensors"
    } else {
        "model-00001-of-00002.safetensors"
    }
}

/// Replaces a dense matrix by a packed one of these shapes, all zero.
fn pack(tensors: &mut Vec<Sample>, module: &str, rows: usize, words: usize, groups: usize) {
    let name = format!("{module}.weight");
    tensors.retain(|tensor| tensor.name != name);
    tensors.push(Sample::new(name, "U32", &[rows, words], vec![0; rows * words * 4]));
    for part in ["scales", "biases"] {
        let name = format!("{module}.{part}");
        tensors.push(Sample::new(name, "BF16", &[rows, groups], vec![0; rows * groups * 2]));
    }
}

fn packed_model(
    quantization: &serde_json::Value,
    change: impl FnOnce(&mut Vec<Sample>),
) -> Result<Checkpoint> {
    let folder = temporary();
    let mut config = llama_config();
    config["quantization"] = quantization.clone();
    let mut tensors = llama_tensors();
    change(&mut tensors);
    Checkpoint::open(&llama_folder(folder.path(), &config, &tensors))
}

#[test]
fn a_plain_folder_gives_its_weights_and_vectors() {
    let checkpoint = with_tensors(|_| {}).unwrap();
    let WeightData::Dense { shape, values } = checkpoint.weight(&format!("{LAYER}.mlp.down_proj")).unwrap()
    else {
        panic!("not dense");
    };
    assert_eq!(shape, [64, 96]);
    assert_eq!(values.to_f32()[..3], [0.0, 1.0 / 64.0, 2.0 / 64.0]);
    assert_eq!(checkpoint.vector("model.norm.weight").unwrap().len(), 64);
    assert_eq!(checkpoint.config.dtype, FloatType::F32);
    assert!(!checkpoint.contains("lm_head.weight"));
}

#[test]
fn half_precision_vectors_become_float32() {
    let halves = |dtype: &'static str, bits: u16| {
        with_tensors(|tensors| {
            tensors.retain(|tensor| tensor.name != "model.norm.weight");
            let bytes = bits.to_le_bytes().repeat(64);
            tensors.push(Sample::new("model.norm.weight", dtype, &[64], bytes));
        })
        .unwrap()
        .vector("model.norm.weight")
        .unwrap()[63]
    };
    assert_eq!(halves("F16", 0x3e00).to_bits(), 1.5f32.to_bits());
    assert_eq!(halves("BF16", 0xbfc0).to_bits(), (-1.5f32).to_bits());
}

#[test]
fn missing_and_misshapen_tensors_are_found_when_opening() {
    let without =
        |name: &'static str| with_tensors(move |tensors| tensors.retain(|tensor| tensor.name != name));
    for name in ["model.embed_tokens.weight", "model.norm.weight", "model.layers.0.self_attn.k_proj.weight"] {
        fails(without(name), Code::IntegrityFailed, &["model.safetensors", "has no tensor", name]);
    }
    let wide = with_tensors(|tensors| {
        tensors.retain(|tensor| tensor.name != "model.layers.0.mlp.up_proj.weight");
        tensors.push(Sample::counting("model.layers.0.mlp.up_proj.weight", &[97, 64]));
    });
    fails(wide, Code::IntegrityFailed, &["up_proj", "[97, 64]", "[96, 64]"]);
}

#[test]
fn a_type_that_the_engine_lacks_is_unsupported_and_named() {
    let checkpoint = with_tensors(|tensors| {
        tensors.retain(|tensor| tensor.name != "model.norm.weight");
        tensors.push(Sample::new("model.norm.weight", "F8_E4M3", &[64], vec![0; 64]));
    });
    fails(checkpoint, Code::ModelUnsupported, &["model.norm.weight", "F8_E4M3"]);
}

#[test]
fn declared_biases_must_be_there() {
    let folder = temporary();
    let mut config = llama_config();
    config["attention_bias"] = json!(true);
    let mut tensors = llama_tensors();
    fails(
        Checkpoint::open(&llama_folder(folder.path(), &config, &tensors)),
        Code::IntegrityFailed,
        &["self_attn.q_proj.bias"],
    );
    for (module, size) in [("q_proj", 64), ("k_proj", 32), ("v_proj", 32), ("o_proj", 64)] {
        tensors.push(Sample::counting(format!("{LAYER}.self_attn.{module}.bias"), &[size]));
    }
    let checkpoint = Checkpoint::open(&llama_folder(folder.path(), &config, &tensors)).unwrap();
    assert!(checkpoint.config.attention_bias.qkv && checkpoint.config.attention_bias.o);
}

#[test]
fn without_a_word_on_tying_a_head_tensor_decides() {
    let folder = temporary();
    let mut config = llama_config();
    config.as_object_mut().unwrap().remove("tie_word_embeddings");
    let mut tensors = llama_tensors();
    let open = |tensors: &[Sample]| Checkpoint::open(&llama_folder(folder.path(), &config, tensors)).unwrap();
    assert!(open(&tensors).config.tie_word_embeddings);
    tensors.push(Sample::counting("lm_head.weight", &[32, 64]));
    assert!(!open(&tensors).config.tie_word_embeddings);
}

#[test]
fn shards_are_read_through_their_index() {
    let folder = temporary();
    let checkpoint = Checkpoint::open(&sharded(folder.path(), &index(honest))).unwrap();
    assert_eq!(checkpoint.tensor_names().count(), 12);
    assert_eq!(checkpoint.vector("model.norm.weight").unwrap().len(), 64);
}

#[test]
fn shards_without_an_index_are_read_too() {
    let folder = temporary();
    let path = sharded(folder.path(), "{}");
    std::fs::remove_file(path.join("model.safetensors.index.json")).unwrap();
    assert_eq!(Checkpoint::open(&path).unwrap().tensor_names().count(), 12);
}

#[test]
fn a_whole_file_wins_over_the_index_of_another_model() {
    let folder = temporary();
    let path = llama_folder(folder.path(), &llama_config(), &llama_tensors());
    write(&path.join("model.safetensors.index.json"), index(honest).as_bytes());
    assert_eq!(Checkpoint::open(&path).unwrap().tensor_names().count(), 12);
}

#[test]
fn indexes_that_lie_are_refused() {
    let cases: Vec<(String, Code, &str)> = vec![
        ("{}".to_owned(), Code::IntegrityFailed, "broken index"),
        ("[".to_owned(), Code::IntegrityFailed, "broken index"),
        (index(|_| "model-00001-of-00002.safetensors"), Code::IntegrityFailed, "model.norm.weight"),
        (index(|_| "model-00003-of-00002.safetensors"), Code::IntegrityFailed, "is missing, a shard"),
        (index(|_| "../model.safetensors"), Code::BoundaryViolation, "outside its folder"),
        (index(|_| "/etc/passwd"), Code::BoundaryViolation, "outside its folder"),
        (index(|_| "sub/model.safetensors"), Code::BoundaryViolation, "outside its folder"),
        (index(|_| ".."), Code::BoundaryViolation, "outside its folder"),
        (index(|_| ""), Code::BoundaryViolation, "outside its folder"),
        (index(|_| "a\0b"), Code::BoundaryViolation, "outside its folder"),
    ];
    for (content, code, reason) in cases {
        let folder = temporary();
        fails(Checkpoint::open(&sharded(folder.path(), &content)), code, &[reason]);
    }
}

#[test]
fn folders_without_weights_say_what_they_lack() {
    let folder = temporary();
    let path = folder.path();
    fails(Checkpoint::open(path), Code::FileNotFound, &["no safetensors or GGUF"]);
    fails(Checkpoint::open(&path.join("none")), Code::FileNotFound, &["none"]);
    write(&path.join("pytorch_model.bin"), b"x");
    fails(Checkpoint::open(path), Code::ModelUnsupported, &["pytorch_model.bin"]);
    write(&path.join("a.gguf"), &llama_gguf(GgmlType::F32).bytes());
    assert!(Checkpoint::open(path).is_ok());
    write(&path.join("b.gguf"), b"x");
    fails(Checkpoint::open(path), Code::ModelAmbiguous, &["2 GGUF files"]);
    write(&path.join("notes.md"), b"hello");
    fails(Checkpoint::open(&path.join("notes.md")), Code::IntegrityFailed, &["neither a GGUF"]);
    write(&path.join("model.safetensors"), &samples::safetensors(&[]));
    fails(
        Checkpoint::open(&path.join("model.safetensors")),
        Code::ModelUnsupported,
        &["one file of a model"],
    );
    std::fs::remove_file(path.join("a.gguf")).unwrap();
    std::fs::remove_file(path.join("b.gguf")).unwrap();
    fails(Checkpoint::open(path), Code::FileNotFound, &["config.json"]);
}

#[test]
fn packed_matrices_are_checked_against_the_configuration() {
    let quantization = json!({"group_size": 32, "bits": 4});
    let module = format!("{LAYER}.self_attn.q_proj");
    let open = |rows, words, groups| packed_model(&quantization, |t| pack(t, &module, rows, words, groups));
    let weight = open(64, 8, 2).unwrap().weight(&module).unwrap();
    let WeightData::Affine { rows, columns, group, bits, packed, scales, .. } = weight else {
        panic!("not packed");
    };
    assert_eq!((rows, columns, group, bits, packed.len(), scales.bytes.len()), (64, 64, 32, 4, 512, 256));

    fails(open(64, 7, 2), Code::IntegrityFailed, &["q_proj", "not 4 bits in groups of 32"]);
    fails(open(64, 8, 3), Code::IntegrityFailed, &["q_proj", "3 scales"]);
    fails(open(32, 8, 2), Code::IntegrityFailed, &["[32, 64]", "[64, 64]"]);
    fails(open(64, 0, 0), Code::IntegrityFailed, &["0 words and 0 scales"]);
}

#[test]
fn the_shapes_tell_a_packing_that_the_configuration_does_not_name() {
    let module = format!("{LAYER}.self_attn.q_proj");
    // Eight bits in groups of 64.
    let open = |quantization: &serde_json::Value| packed_model(quantization, |t| pack(t, &module, 64, 16, 1));
    let weight = open(&json!({"group_size": 32, "bits": 4})).unwrap().weight(&module).unwrap();
    assert!(matches!(weight, WeightData::Affine { group: 64, bits: 8, .. }));
    let named = json!({"group_size": 64, "bits": 8, &module: {"group_size": 32, "bits": 4}});
    fails(open(&named), Code::IntegrityFailed, &["not 4 bits in groups of 32"]);
    let named = json!({"group_size": 32, "bits": 4, &module: {"group_size": 64, "bits": 8}});
    assert!(open(&named).is_ok());
    fails(open(&json!(null)), Code::IntegrityFailed, &["does not say how"]);
    fails(
        open(&json!({"group_size": 64, "bits": 8, &module: false})),
        Code::IntegrityFailed,
        &["does not say how"],
    );
}

#[test]
fn infinite_scales_are_damage() {
    let module = format!("{LAYER}.self_attn.q_proj");
    let checkpoint = packed_model(&json!({"group_size": 32, "bits": 4}), |tensors| {
        pack(tensors, &module, 64, 8, 2);
        let scales = tensors.iter_mut().find(|tensor| tensor.name.ends_with("scales")).unwrap();
        scales.bytes[6..8].copy_from_slice(&0x7f80u16.to_le_bytes());
    });
    let weight = checkpoint.and_then(|checkpoint| checkpoint.weight(&module));
    fails(weight, Code::IntegrityFailed, &["q_proj", "infinite"]);
}

#[test]
fn every_packing_of_mlx_fits_its_own_shapes() {
    for bits in [2, 3, 4, 5, 6, 8] {
        for group in [32, 64, 128] {
            let columns = 384;
            let fitting = Affine::fitting(columns, columns * bits / 32, columns / group);
            assert_eq!(fitting, Some(Affine { group, bits }));
        }
    }
    for (columns, words, groups) in [(0, 0, 0), (64, 8, 0), (64, 28, 2), (64, 8, 4), (64, 7, 2)] {
        assert_eq!(Affine::fitting(columns, words, groups), None, "{columns} {words} {groups}");
    }
}

#[test]
fn gguf_tensors_have_hugging_face_names() {
    let folder = temporary();
    let path = folder.path().join("model.gguf");
    for kind in [GgmlType::Q4_0, GgmlType::Q4_1, GgmlType::Q8_0] {
        write(&path, &llama_gguf(kind).bytes());
        let checkpoint = Checkpoint::open(&path).unwrap();
        let embedding = checkpoint.weight("model.embed_tokens").unwrap();
        assert!(matches!(embedding, WeightData::Affine { rows: 32, columns: 64, group: 32, .. }));
        let q = checkpoint.weight(&format!("{LAYER}.self_attn.q_proj")).unwrap();
        assert!(matches!(q, WeightData::Dense { shape, .. } if shape == [64, 64]));
        assert_eq!(checkpoint.vector("model.norm.weight").unwrap().len(), 64);
        assert!(checkpoint.config.rope.traditional && checkpoint.config.tie_word_embeddings);
        assert_eq!(checkpoint.config.eos_token_ids, [2, 7], "the end of a turn is known by its text");
        assert_eq!(checkpoint.config.vocab_size, 32);
    }
}

#[test]
fn a_gguf_type_that_the_engine_lacks_is_unsupported_and_named() {
    let folder = temporary();
    let path = folder.path().join("model.gguf");
    write(&path, &llama_gguf(GgmlType::Q8_1).bytes());
    fails(Checkpoint::open(&path), Code::ModelUnsupported, &["model.embed_tokens.weight", "Q8_1"]);
}

#[test]
fn gguf_metadata_is_checked() {
    let folder = temporary();
    let path = folder.path().join("model.gguf");
    let open = |key: &str, value: Option<Value>| {
        let mut gguf = llama_gguf(GgmlType::F32);
        gguf.metadata.retain(|(name, _)| name != key);
        gguf.metadata.extend(value.map(|value| (key.to_owned(), value)));
        write(&path, &gguf.bytes());
        Checkpoint::open(&path)
    };
    let text = |value: &str| Some(Value::Text(value.to_owned()));
    let number = |value: u64| Some(Value::Unsigned(value));
    let cases: Vec<(&str, Option<Value>, Code, &str)> = vec![
        ("general.architecture", None, Code::IntegrityFailed, "architecture"),
        ("general.architecture", text("mamba"), Code::ModelUnsupported, "mamba"),
        ("llama.block_count", None, Code::IntegrityFailed, "llama.block_count"),
        ("llama.block_count", number(1_000_000_000), Code::IntegrityFailed, "number of layers 1000000000"),
        ("llama.block_count", number(2), Code::IntegrityFailed, "model.layers.1"),
        ("llama.block_count", text("two"), Code::IntegrityFailed, "not a number"),
        ("llama.embedding_length", number(u64::MAX), Code::IntegrityFailed, "embedding length"),
        ("llama.attention.head_count", number(0), Code::IntegrityFailed, "0 heads"),
        ("llama.attention.head_count", Some(Value::Integers(vec![2])), Code::ModelUnsupported, "each layer"),
        ("llama.attention.head_count_kv", number(0), Code::IntegrityFailed, "key-value heads 0"),
        ("llama.attention.key_length", number(33), Code::ModelUnsupported, "odd head dimension 33"),
        ("llama.attention.value_length", number(8), Code::ModelUnsupported, "values of 8"),
        ("split.count", number(3), Code::ModelUnsupported, "one of the 3 parts"),
        ("llama.expert_count", number(8), Code::IntegrityFailed, "expert_used_count"),
        ("llama.rope.scaling.type", text("mrope"), Code::ModelUnsupported, "mrope"),
        ("llama.rope.scaling.type", text("linear"), Code::IntegrityFailed, "without a factor"),
        ("llama.rope.dimension_count", number(34), Code::IntegrityFailed, "rotates 34 of 32"),
        ("llama.rope.freq_base", Some(Value::Float(-1.0)), Code::IntegrityFailed, "rope base"),
        ("llama.attention.layer_norm_rms_epsilon", None, Code::IntegrityFailed, "epsilon"),
        ("llama.context_length", number(0), Code::IntegrityFailed, "context length 0"),
        (
            "tokenizer.ggml.tokens",
            Some(Value::Texts(vec![String::new(); 33])),
            Code::IntegrityFailed,
            "33 tokens",
        ),
    ];
    for (key, value, code, reason) in cases {
        fails(open(key, value), code, &["model.gguf", reason]);
    }
    assert!(open("llama.attention.head_count_kv", number(1)).is_ok());
}

#[test]
fn gguf_rope_factors_come_from_their_tensor() {
    let folder = temporary();
    let path = folder.path().join("model.gguf");
    let factors = |values: &[f32]| {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let gguf =
            llama_gguf(GgmlType::F32).tensor("rope_freqs.weight", GgmlType::F32, &[values.len()], bytes);
        write(&path, &gguf.bytes());
        Checkpoint::open(&path)
    };
    let scaling = factors(&[2.0; 16]).unwrap().config.rope.scaling;
    assert_eq!(scaling, RopeScaling::Factors(vec![2.0; 16]));
    fails(factors(&[2.0; 15]), Code::IntegrityFailed, &["15 factors"]);
    fails(factors(&[0.0; 16]), Code::IntegrityFailed, &["rope_freqs"]);
}

#[test]
fn one_tensor_under_two_names_is_damage() {
    let folder = temporary();
    let path = folder.path().join("model.gguf");
    let gguf = llama_gguf(GgmlType::F32).tensor("model.norm.weight", GgmlType::F32, &[64], vec![0; 256]);
    write(&path, &gguf.bytes());
    fails(Checkpoint::open(&path), Code::IntegrityFailed, &["under two names"]);
}
