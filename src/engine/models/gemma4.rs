//! Gemma 4 (Google, 2026): layers that do not slide have larger heads, of which a quarter turns, and maybe
//! keys that are values too; the last layers may look at the keys of others, each may get a part of the token
//! itself, and a mixture of experts may stand beside the dense block.

use std::path::Path;

use serde_json::Value;

use super::architecture::{Architecture, Defaults, Gguf, OnLoad, PLAIN};
use super::gemma::scale_embedding;
use super::names::{self, ExpertNames, LAYER_INPUTS, Names};
use crate::engine::config::fields::Fields;
use crate::engine::config::style::{self, Activation, Experts, Placement, QkNorm, Routing, Style};
use crate::engine::config::{GgufFields, KeyHeads, LayerInputs, ModelConfig, Rope, RopeScaling};
use crate::engine::format::file::{damaged, unsupported};
use crate::error::Result;

pub const ARCHITECTURE: Architecture = Architecture {
    name: "gemma4",
    also_dense: true,
    // The last one has no encoder of images, but the same text part, as in mlx-lm.
    model_types: &["gemma4_text", "gemma4", "gemma4_unified"],
    style: Style {
        placement: Placement::Around,
        qk_norm: Some(QkNorm::Heads),
        activation: Activation::GeluTanh,
        normed_values: true,
        scaled_layers: true,
        ..style::PLAIN
    },
    names: Names { mlp_norm: "pre_feedforward_layernorm", experts: EXPERTS, ..names::PLAIN },
    defaults: Defaults {
        theta: 1_000_000.0,
        local_theta: Some(LOCAL_THETA),
        context: 131_072,
        heads: Some(8),
        kv_heads: Some(4),
        head_dim: Some(256),
        vocabulary: Some(262_144),
        intermediate: Some(9216),
        tied: true,
        window: Some(512),
        ..Defaults::PLAIN
    },
    read,
    gguf: Some(Gguf { names: &["gemma4"], interleaved: false, read: read_gguf }),
    on_load: OnLoad { precise: &["router.proj"], whole: &[] },
    ..PLAIN
};

const EXPERTS: ExpertNames = ExpertNames {
    router: "router.proj",
    each: "experts",
    stacked: ["experts.switch_glu.gate_proj", "experts.switch_glu.up_proj", "experts.switch_glu.down_proj"],
    fused: ["experts.gate_up_proj", "experts.down_proj"],
    ..names::EXPERTS
};

const LOCAL_THETA: f64 = 10_000.0;
const PERIOD: usize = 6;
const FULL_HEAD_DIM: usize = 512;
/// Of a head, in layers that do not slide.
const TURNING: f32 = 0.25;

fn read(fields: &Fields, config: &mut ModelConfig) -> Result<()> {
    scale_embedding(config);
    config.attention_scale = 1.0;
    config.logits_cap = fields.float("final_logit_softcapping")?.map(|cap| cap as f32);
    config.slide_but_every(PERIOD);
    if fields.texts("layer_types")?.is_some_and(|types| types.last() == Some(&"sliding_attention")) {
        return Err(unsupported(fields.path(), "slides in its last layer"));
    }
    let full = full_heads(fields, config)?;
    let share = (config.rope.dims, config.head_dim);
    config.full_heads = Some(full);
    if !fields.has("rope_parameters") {
        config.rope.scaling = RopeScaling::Proportional { share: TURNING, factor: 1.0 };
    }
    config.rope.dims = match config.rope.scaling {
        RopeScaling::Proportional { .. } => full.dim,
        _ => full.dim.saturating_mul(share.0) / share.1,
    };
    leave_keys(fields.number("num_kv_shared_layers")?, fields.path(), config)?;
    if fields.flag("use_double_wide_mlp")?.unwrap_or(false) {
        let (first, inner) = (config.layers - config.without_keys, config.intermediate_size);
        config.plan.iter_mut().skip(first).for_each(|layer| layer.inner = inner.checked_mul(2));
    }
    let size = fields.number("hidden_size_per_layer_input")?.unwrap_or(256);
    let vocabulary = fields.number("vocab_size_per_layer_input")?.unwrap_or(262_144);
    take_inputs(size, vocabulary, fields.path(), config)?;
    if fields.flag("enable_moe_block")?.unwrap_or(false) {
        let routing = Routing::softmax(fields.required("num_experts")?, fields.required("top_k_experts")?);
        let plain = Experts::plain(routing, fields.required("moe_intermediate_size")?);
        config.mix_all(Experts { beside: true, ..plain });
    }
    Ok(())
}

/// Leaves so many last layers without keys of their own.
fn leave_keys(count: Option<usize>, path: &Path, config: &mut ModelConfig) -> Result<()> {
    config.without_keys = count.unwrap_or(0);
    if config.without_keys >= config.layers {
        let reason = format!("has {} of {} layers without keys", config.without_keys, config.layers);
        return Err(damaged(path, &reason));
    }
    Ok(())
}

/// Gives each layer `size` elements of a token's row, of `vocabulary` rows.
fn take_inputs(size: usize, vocabulary: usize, path: &Path, config: &mut ModelConfig) -> Result<()> {
    if size > 0 && vocabulary < config.vocab_size {
        let reason = format!("has inputs of layers for {vocabulary} of {} tokens", config.vocab_size);
        return Err(unsupported(path, &reason));
    }
    config.layer_inputs = (size > 0).then_some(LayerInputs { size, vocabulary });
    Ok(())
}

/// Lengths of heads are those of layers that do not slide, but for the keys that say otherwise.
fn read_gguf(fields: &GgufFields, config: &mut ModelConfig) -> Result<()> {
    let path = fields.path();
    scale_embedding(config);
    config.attention_scale = 1.0;
    let slides = fields.flags("attention.sliding_window_pattern");
    let slides = slides.ok_or_else(|| damaged(path, "does not say which layers slide"))?;
    if slides.get(config.layers - 1) != Some(&false) {
        return Err(unsupported(path, "slides in its last layer"));
    }
    let dim = fields.required("attention.key_length_swa")?;
    if fields.number("attention.value_length_swa")?.is_some_and(|values| values != dim) {
        return Err(unsupported(path, &format!("has keys of length {dim} and values of another")));
    }
    let counts = fields.each("attention.head_count_kv", config.layers)?;
    let counts = counts.unwrap_or_else(|| vec![config.heads; config.layers]);
    let heads = |sliding: bool| -> Result<Option<usize>> {
        let mut of_kind = counts.iter().zip(slides).filter(|(_, slides)| **slides == sliding);
        let first = of_kind.next().map(|(count, _)| *count);
        if of_kind.any(|(count, _)| Some(*count) != first) {
            return Err(unsupported(path, "has different heads in layers of the same kind"));
        }
        Ok(first)
    };
    leave_keys(fields.number("attention.shared_kv_layers")?, path, config)?;
    let full = heads(false)?.unwrap_or(config.kv_heads);
    let has_keys = |index: usize| fields.has_in(index, "self_attn.k_proj.weight");
    let first = (0..config.layers).find(|&index| slides.get(index) == Some(&false) && has_keys(index));
    let are_values = first.is_some_and(|index| !fields.has_in(index, "self_attn.v_proj.weight"));
    config.full_heads = Some(KeyHeads { count: full, dim: config.head_dim, are_values });
    config.kv_heads = heads(true)?.unwrap_or(full);
    config.head_dim = dim;
    config.local_rope = Some(Rope {
        theta: LOCAL_THETA as f32,
        dims: fields.number("rope.dimension_count_swa")?.unwrap_or(dim),
        scaling: RopeScaling::Default,
        magnitude: 1.0,
        ..config.rope.clone()
    });
    let size = fields.number("embedding_length_per_layer_input")?.unwrap_or(0);
    take_inputs(size, fields.rows_of(LAYER_INPUTS.table).unwrap_or(0), path, config)?;
    if let Some(experts) = &mut config.experts {
        experts.beside = true;
    }
    Ok(())
}

/// Heads of layers that do not slide: `global_head_dim` and the like, which transformers 5 writes layer by
/// layer.
fn full_heads(fields: &Fields, config: &ModelConfig) -> Result<KeyHeads> {
    let path = fields.path();
    let are_values = fields.flag("attention_k_eq_v")?.unwrap_or(false);
    let Some(by_layer) = fields.object("per_layer_config", "per_layer_config.")? else {
        let count = fields.number("num_global_key_value_heads")?.filter(|_| are_values);
        return Ok(KeyHeads {
            count: count.unwrap_or(config.kv_heads),
            dim: fields.number("global_head_dim")?.unwrap_or(FULL_HEAD_DIM),
            are_values,
        });
    };
    let types = fields.texts("layer_types")?.unwrap_or_default();
    let mut found: Option<KeyHeads> = None;
    for (index, _) in types.iter().enumerate().filter(|(_, kind)| **kind != "sliding_attention") {
        let index = index.to_string();
        let own = by_layer.object(&index, "per_layer_config.")?;
        let number = |name: &str| own.map_or(Ok(None), |own| own.number(name));
        let heads = KeyHeads {
            count: number("num_key_value_heads")?.unwrap_or(config.kv_heads),
            dim: number("head_dim")?.unwrap_or(config.head_dim),
            are_values,
        };
        if found.is_some_and(|found| found != heads) {
            return Err(unsupported(path, "has different heads in layers that do not slide"));
        }
        found = Some(heads);
    }
    let others = fields.get("per_layer_config").and_then(Value::as_object).into_iter().flatten();
    for (index, own) in others {
        let slides = index.parse().ok().and_then(|at: usize| types.get(at)) == Some(&"sliding_attention");
        let known = |name: &String| ["num_key_value_heads", "head_dim"].contains(&name.as_str());
        if slides || !own.as_object().is_some_and(|own| own.keys().all(known)) {
            return Err(unsupported(path, &format!("has a per_layer_config for layer {index}")));
        }
    }
    found.ok_or_else(|| damaged(path, "has a per_layer_config without layers that do not slide"))
}
