//! Tensors of gpt-oss, and norms of single heads, that do not have the shapes that the configuration needs.

use std::path::Path;

use serde_json::{Value, json};

use super::fails;
use super::samples::{Sample, safetensors, write};
use crate::engine::format::checkpoint::Checkpoint;
use crate::error::{Code, Result};

const EXPERTS: &str = "model.layers.0.mlp.experts.gate_up_proj";

/// Opens the fixture after one of its tensors got another type or shape, of zeros.
fn with_tensor(fixture: &str, name: &str, dtype: &'static str, shape: &[usize]) -> Result<Checkpoint> {
    with(fixture, |tensors| {
        let tensor = tensors.iter_mut().find(|tensor| tensor.name == name).unwrap();
        let size = if dtype == "U32" || dtype == "F32" { 4 } else { 1 + usize::from(dtype == "BF16") };
        *tensor = Sample::new(name, dtype, shape, vec![0; shape.iter().product::<usize>() * size]);
    })
}

fn with(fixture: &str, change: impl FnOnce(&mut Vec<Sample>)) -> Result<Checkpoint> {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/architectures").join(fixture);
    let file = std::fs::read(from.join("model.safetensors")).unwrap();
    let start = 8 + u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let header: serde_json::Map<String, Value> = serde_json::from_slice(&file[8..start]).unwrap();
    let number = |value: &Value| usize::try_from(value.as_u64().unwrap()).unwrap();
    let mut tensors: Vec<Sample> = header
        .iter()
        .filter(|(name, _)| *name != "__metadata__")
        .map(|(name, info)| {
            let dtype = ["BF16", "F32", "U8", "U32"].into_iter().find(|it| info["dtype"] == *it).unwrap();
            let shape: Vec<usize> = info["shape"].as_array().unwrap().iter().map(number).collect();
            let [begin, end] = [0, 1].map(|at| start + number(&info["data_offsets"][at]));
            Sample::new(name, dtype, &shape, file[begin..end].to_vec())
        })
        .collect();
    change(&mut tensors);
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("config.json"), &std::fs::read(from.join("config.json")).unwrap());
    write(&folder.path().join("model.safetensors"), &safetensors(&tensors));
    Checkpoint::open(folder.path())
}

#[test]
fn sinks_and_biases_of_another_shape_are_damage() {
    assert!(with("gpt_oss_mxfp4", |_| {}).is_ok());
    let sinks = "model.layers.1.self_attn.sinks";
    for shape in [&[5][..], &[2, 2], &[0], &[]] {
        fails(with_tensor("gpt_oss_mxfp4", sinks, "BF16", shape), Code::IntegrityFailed, &["sinks"]);
    }
    fails(with_tensor("gpt_oss_mxfp4", sinks, "U8", &[4]), Code::ModelUnsupported, &["sinks", "U8"]);
    let bias = format!("{EXPERTS}_bias");
    fails(
        with_tensor("gpt_oss_mxfp4", &bias, "BF16", &[4, 63]),
        Code::IntegrityFailed,
        &["gate_up_proj_bias"],
    );
    let absent = with("gpt_oss_mxfp4", |tensors| tensors.retain(|tensor| tensor.name != sinks));
    fails(absent, Code::IntegrityFailed, &["sinks"]);
}

/// Four heads of queries and two of keys, of 16 elements each.
#[test]
fn norms_of_single_heads_are_needed_of_every_head() {
    let fixture = "stablelm_qk_norm";
    assert!(with(fixture, |_| {}).is_ok());
    for last in ["q_layernorm.norms.3", "k_layernorm.norms.1"] {
        let name = format!("model.layers.1.self_attn.{last}.weight");
        for shape in [&[15][..], &[1, 16], &[64], &[]] {
            fails(with_tensor(fixture, &name, "BF16", shape), Code::IntegrityFailed, &[last]);
        }
        fails(with_tensor(fixture, &name, "U8", &[16]), Code::ModelUnsupported, &[last, "U8"]);
        let absent = with(fixture, |tensors| tensors.retain(|tensor| tensor.name != name));
        fails(absent, Code::IntegrityFailed, &["has no tensor", last]);
    }
    // As in GGUF files: one below the other.
    let stacked = |rows: usize| {
        with(fixture, |tensors| {
            for layer in 0..2 {
                let module = format!("model.layers.{layer}.self_attn.q_layernorm");
                tensors.retain(|tensor| !tensor.name.starts_with(&module));
                let name = format!("{module}.weight");
                tensors.push(Sample::new(&name, "BF16", &[rows, 16], vec![0; rows * 16 * 2]));
            }
        })
    };
    assert!(stacked(4).is_ok());
    fails(stacked(3), Code::IntegrityFailed, &["q_layernorm.weight"]);
}

#[test]
fn small_floats_of_another_shape_are_damage() {
    let (blocks, scales) = (format!("{EXPERTS}_blocks"), format!("{EXPERTS}_scales"));
    let fixture = "gpt_oss_mxfp4";
    let name = "gate_up_proj_blocks";
    // Four experts with 64 rows of two blocks of 32 values.
    for shape in
        [&[4, 64, 2, 15][..], &[4, 64, 3, 16], &[4, 63, 2, 16], &[3, 64, 2, 16], &[0, 64, 2, 16], &[16]]
    {
        fails(with_tensor(fixture, &blocks, "U8", shape), Code::IntegrityFailed, &[name]);
    }
    for shape in [&[4, 64, 1][..], &[4, 64, 3], &[4, 63, 2], &[2], &[4, 64, 0]] {
        fails(with_tensor(fixture, &scales, "U8", shape), Code::IntegrityFailed, &[name]);
    }
    let absent = with(fixture, |tensors| tensors.retain(|tensor| tensor.name != scales));
    fails(absent, Code::IntegrityFailed, &[name]);
    let module = "model.layers.0.mlp.experts.down_proj";
    for (name, shape) in
        [("weight", [4, 64, 5]), ("weight", [4, 63, 4]), ("scales", [4, 64, 2]), ("scales", [3, 64, 1])]
    {
        let dtype = if name == "weight" { "U32" } else { "U8" };
        let opened = with_tensor("gpt_oss_mlx", &format!("{module}.{name}"), dtype, &shape);
        fails(opened, Code::IntegrityFailed, &["down_proj"]);
    }
}

/// Sizes that only the configuration claims take no memory: the tensors are smaller.
#[test]
fn experts_beyond_the_tensors_are_found_before_memory_is_taken() {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/architectures/gpt_oss_mxfp4");
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(from.join("model.safetensors"), folder.path().join("model.safetensors")).unwrap();
    let config: Value = serde_json::from_slice(&std::fs::read(from.join("config.json")).unwrap()).unwrap();
    for (field, value) in
        [("num_local_experts", 4096), ("intermediate_size", 1 << 20), ("num_attention_heads", 4096)]
    {
        let mut config = config.clone();
        config[field] = json!(value);
        write(&folder.path().join("config.json"), config.to_string().as_bytes());
        fails(Checkpoint::open(folder.path()), Code::IntegrityFailed, &["model.layers.0", "needs"]);
    }
}
