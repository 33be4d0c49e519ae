//! GLM 4.5 and later (arXiv:2508.06471): DeepSeek's way to choose experts over ordinary attention.

use super::architecture::{Architecture, Defaults, Gguf, OnLoad, PLAIN};
use super::names::{self, ExpertNames, Names};
use crate::engine::config::fields::Fields;
use crate::engine::config::style::{Experts, Groups, QkNorm, Routing, Scoring, SharedExpert};
use crate::engine::config::{AttentionBias, GgufFields, ModelConfig};
use crate::engine::format::file::damaged;
use crate::error::Result;

pub const ARCHITECTURE: Architecture = Architecture {
    name: "glm4_moe",
    model_types: &["glm4_moe"],
    sparse: true,
    names: Names { experts: EXPERTS, ..names::PLAIN },
    defaults: Defaults {
        norm_eps: 1e-5,
        partial: 0.5,
        context: 131_072,
        heads: Some(96),
        kv_heads: Some(8),
        vocabulary: Some(151_552),
        ..Defaults::PLAIN
    },
    read,
    gguf: Some(Gguf { names: &["glm4moe"], interleaved: false, read: read_gguf }),
    on_load: OnLoad { precise: &[], whole: &["mlp.gate"] },
    ..PLAIN
};

pub const EXPERTS: ExpertNames = ExpertNames {
    shared: ["mlp.shared_experts.gate_proj", "mlp.shared_experts.up_proj", "mlp.shared_experts.down_proj"],
    ..names::EXPERTS
};

/// Experts of a group that tell how good it is.
pub const JUDGED_BY: usize = 2;

fn read(fields: &Fields, config: &mut ModelConfig) -> Result<()> {
    config.attention_bias = AttentionBias { qkv: fields.flag("attention_bias")?.unwrap_or(false), o: false };
    if fields.flag("use_qk_norm")? == Some(true) {
        config.style.qk_norm = Some(QkNorm::Heads);
    }
    let routing = Routing { scoring: Scoring::Sigmoid, corrected: true, ..Routing::softmax(128, 8) };
    mix(fields, config, Experts::plain(routing, 1408), 1)
}

/// Reads DeepSeek's fields of a mixture of experts, with these defaults; the first `dense` layers have
/// none if the configuration does not say.
pub fn mix(fields: &Fields, config: &mut ModelConfig, defaults: Experts, dense: usize) -> Result<()> {
    let number =
        |name: &str, default: usize| -> Result<usize> { Ok(fields.number(name)?.unwrap_or(default)) };
    let intermediate_size = number("moe_intermediate_size", defaults.intermediate_size)?;
    let of_groups = defaults.routing.groups;
    let groups = Groups {
        count: number("n_group", of_groups.map_or(1, |groups| groups.count))?,
        used: number("topk_group", of_groups.map_or(1, |groups| groups.used))?,
        judged_by: of_groups.map_or(JUDGED_BY, |groups| groups.judged_by),
    };
    let routing = Routing {
        count: number("n_routed_experts", defaults.routing.count)?,
        used: number("num_experts_per_tok", defaults.routing.used)?,
        normalized: fields.flag("norm_topk_prob")?.unwrap_or(defaults.routing.normalized),
        scale: fields.float("routed_scaling_factor")?.map_or(defaults.routing.scale, |scale| scale as f32),
        groups: Some(groups).filter(|groups| groups.count != 1),
        ..defaults.routing
    };
    let shared = match fields.number("n_shared_experts")? {
        None if fields.has("n_shared_experts") => 0,
        shared => shared.unwrap_or(1),
    };
    let shared_size = shared.checked_mul(intermediate_size);
    let shared_size = shared_size
        .ok_or_else(|| damaged(fields.path(), &format!("has the impossible n_shared_experts {shared}")))?;
    let shared = (shared > 0).then_some(SharedExpert { intermediate_size: shared_size, gated: false });
    config.experts = Some(Experts { routing, intermediate_size, shared, ..defaults });
    let dense = number("first_k_dense_replace", dense)?;
    for (index, layer) in config.plan.iter_mut().enumerate() {
        layer.sparse = index >= dense;
    }
    Ok(())
}

fn read_gguf(fields: &GgufFields, config: &mut ModelConfig) -> Result<()> {
    if fields.has("self_attn.q_norm", "weight") {
        config.style.qk_norm = Some(QkNorm::Heads);
    }
    leave_ahead(fields, config)?;
    if fields.number("expert_gating_func")?.unwrap_or(0) == 0 {
        set_sigmoid(config);
    }
    mix_gguf(fields, config)
}

/// Leaves layers that guess further tokens, which count as layers in GGUF files.
pub fn leave_ahead(fields: &GgufFields, config: &mut ModelConfig) -> Result<()> {
    let ahead = fields.number("nextn_predict_layers")?.unwrap_or(0);
    if ahead >= config.layers {
        return Err(damaged(
            fields.path(),
            &format!("has {ahead} of {} layers to look ahead", config.layers),
        ));
    }
    config.layers -= ahead;
    config.plan.truncate(config.layers);
    Ok(())
}

fn set_sigmoid(config: &mut ModelConfig) {
    if let Some(experts) = &mut config.experts {
        experts.routing.scoring = Scoring::Sigmoid;
    }
}

/// What a GGUF file says about DeepSeek's way to choose experts.
pub fn mix_gguf(fields: &GgufFields, config: &mut ModelConfig) -> Result<()> {
    let dense = fields.number("leading_dense_block_count")?.unwrap_or(0);
    for (index, layer) in config.plan.iter_mut().enumerate() {
        layer.sparse = config.experts.is_some() && index >= dense;
    }
    let Some(experts) = &mut config.experts else { return Ok(()) };
    let shared = fields.number("expert_shared_count")?.unwrap_or(0);
    let size = shared.checked_mul(experts.intermediate_size);
    let size = size.ok_or_else(|| damaged(fields.path(), &format!("has {shared} shared experts")))?;
    experts.shared = (shared > 0).then_some(SharedExpert { intermediate_size: size, gated: false });
    route_gguf(fields, config)
}

/// What a GGUF file says about which experts are chosen by their corrected scores, of which groups.
pub fn route_gguf(fields: &GgufFields, config: &mut ModelConfig) -> Result<()> {
    let Some(experts) = &mut config.experts else { return Ok(()) };
    // The key is left out where it is false.
    experts.routing.normalized = fields.flag("expert_weights_norm").unwrap_or(false);
    experts.routing.corrected = fields.has_anywhere(config.architecture.names.experts.correction);
    let groups = fields.number("expert_group_count")?.unwrap_or(0);
    if groups > 1 {
        let used = fields.required("expert_group_used_count")?;
        let judged_by = if experts.routing.corrected { JUDGED_BY } else { 1 };
        experts.routing.groups = Some(Groups { count: groups, used, judged_by });
    }
    Ok(())
}
