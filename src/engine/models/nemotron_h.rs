//! Nemotron-H (arXiv:2504.03624) and Nemotron 3: each layer is one thing only, Mamba 2's state space,
//! attention without positions, a feed-forward block or a mixture of experts, all without gates.

use super::architecture::{Architecture, Defaults, Gguf, OnLoad};
use super::deepseek_v3::corrected;
use super::glm4_moe::{JUDGED_BY, leave_ahead, route_gguf};
use super::mamba2::{state_space_of_gguf, time_limit};
use super::names::{self, ExpertNames, Names};
use crate::engine::config::fields::Fields;
use crate::engine::config::recurrent::{Mamba, Recurrent};
use crate::engine::config::style::{
    self, Activation, Experts, Groups, LayerPlan, Mixer, Routing, Scoring, SharedExpert, Style,
};
use crate::engine::config::{GgufFields, ModelConfig};
use crate::engine::format::file::{damaged, unsupported};
use crate::error::Result;

pub const ARCHITECTURE: Architecture = Architecture {
    name: "nemotron_h",
    model_types: &["nemotron_h"],
    sparse: true,
    also_dense: true,
    style: Style { gated: false, activation: Activation::ReluSquared, ..style::PLAIN },
    names: Names {
        attention_norm: "norm",
        mlp_norm: "norm",
        qkv: &["mixer.q_proj", "mixer.k_proj", "mixer.v_proj"],
        output: "mixer.o_proj",
        gate_up: &["mixer.up_proj"],
        down: "mixer.down_proj",
        mamba: "mixer",
        recurrent: names::state_space!("mixer"),
        final_norm: "model.norm_f",
        experts: EXPERTS,
        ..names::PLAIN
    },
    defaults: Defaults {
        norm_eps: 1e-5,
        context: 4096,
        heads: Some(32),
        kv_heads: Some(8),
        head_dim: Some(128),
        vocabulary: Some(131_072),
        intermediate: Some(21_504),
        ..Defaults::PLAIN
    },
    read,
    // Nothing is rotated, but queries and keys lie as if it were.
    gguf: Some(Gguf { names: &["nemotron_h", "nemotron_h_moe"], interleaved: true, read: read_gguf }),
    on_load: OnLoad { precise: &[], whole: &["mixer.gate"] },
};

const EXPERTS: ExpertNames = ExpertNames {
    router: "mixer.gate",
    each: "mixer.experts",
    stacked: ["", "mixer.switch_mlp.fc1", "mixer.switch_mlp.fc2"],
    correction: "mixer.gate.e_score_correction_bias",
    shared: ["mixer.shared_experts.up_proj", "", "mixer.shared_experts.down_proj"],
    ..names::EXPERTS
};

const STATE_SPACE: LayerPlan =
    LayerPlan { mixer: Mixer::Recurrent, rotates: false, feeds: false, ..LayerPlan::PLAIN };
const ATTENTION: LayerPlan = LayerPlan { mixer: Mixer::Attention, ..STATE_SPACE };
const DENSE: LayerPlan = LayerPlan { mixer: Mixer::Nothing, feeds: true, ..STATE_SPACE };
const SPARSE: LayerPlan = LayerPlan { sparse: true, ..DENSE };

fn read(fields: &Fields, config: &mut ModelConfig) -> Result<()> {
    let size = |name: &str, default: usize| -> Result<usize> { Ok(fields.number(name)?.unwrap_or(default)) };
    layers(fields, config)?;
    if config.attention_bias.qkv {
        // transformers leaves them out, mlx-lm does not.
        return Err(unsupported(fields.path(), "has biases in attention"));
    }
    if let Some(name) = fields.text("mlp_hidden_act")? {
        let activation = Activation::of(name);
        config.style.activation = activation
            .ok_or_else(|| unsupported(fields.path(), &format!("needs the activation {name:?}")))?;
    }
    if let Some(other) = fields.text("mamba_hidden_act")?.filter(|&name| name != "silu") {
        return Err(unsupported(
            fields.path(),
            &format!("needs the activation {other:?} in its state space"),
        ));
    }
    config.recurrent = Some(Recurrent::Mamba(Mamba {
        heads: size("mamba_num_heads", 128)?,
        head_dim: size("mamba_head_dim", 64)?,
        groups: size("n_groups", 8)?,
        state_dim: size("ssm_state_size", 128)?,
        width: size("conv_kernel", 4)?,
        bias: fields.flag("use_bias")?.unwrap_or(false),
        conv_bias: fields.flag("use_conv_bias")?.unwrap_or(true),
        time_limit: time_limit(fields),
    }));
    if !config.plan.iter().any(|layer| layer.sparse) {
        return Ok(());
    }
    if config.mlp_bias {
        return Err(unsupported(fields.path(), "has biases in a mixture of experts"));
    }
    let groups = Groups { count: size("n_group", 1)?, used: size("topk_group", 1)?, judged_by: JUDGED_BY };
    let routing = Routing {
        normalized: fields.flag("norm_topk_prob")?.unwrap_or(true),
        scale: fields.float("routed_scaling_factor")?.unwrap_or(1.0) as f32,
        groups: Some(groups).filter(|groups| groups.count != 1),
        ..corrected(size("n_routed_experts", 8)?, size("num_experts_per_tok", 2)?)
    };
    let shared = size("moe_shared_expert_intermediate_size", 7688)?;
    config.experts = Some(Experts {
        shared: Some(SharedExpert { intermediate_size: shared, gated: false }),
        squeezed: fields.number("moe_latent_size")?,
        ..Experts::plain(routing, size("moe_intermediate_size", 7688)?)
    });
    Ok(())
}

/// Layers without heads of keys and without a feed-forward block have the state space.
fn read_gguf(fields: &GgufFields, config: &mut ModelConfig) -> Result<()> {
    leave_ahead(fields, config)?;
    state_space_of_gguf(fields, config)?;
    if fields.has_anywhere("mixer.q_proj.bias") {
        return Err(unsupported(fields.path(), "has biases in attention"));
    }
    config.mlp_bias = fields.has_anywhere("mixer.down_proj.bias");
    let heads = fields.each("attention.head_count_kv", config.layers)?;
    let heads = heads.unwrap_or_else(|| vec![config.kv_heads; config.layers]);
    for (index, layer) in config.plan.iter_mut().enumerate() {
        let inner = layer.inner;
        *layer = match (heads.get(index), layer.feeds) {
            (Some(0) | None, false) => STATE_SPACE,
            (_, false) => ATTENTION,
            _ if fields.has_in(index, "mixer.gate.weight") => SPARSE,
            _ => LayerPlan { inner, ..DENSE },
        };
    }
    route_gguf(fields, config)?;
    let Some(experts) = &mut config.experts else { return Ok(()) };
    experts.routing.scoring = Scoring::Sigmoid;
    let intermediate_size = fields.required("expert_shared_feed_forward_length")?;
    experts.shared = Some(SharedExpert { intermediate_size, gated: false });
    experts.squeezed = fields.number("moe_latent_size")?;
    Ok(())
}

/// What each layer is: `layers_block_type`, or a letter each in `hybrid_override_pattern`.
fn layers(fields: &Fields, config: &mut ModelConfig) -> Result<()> {
    let path = fields.path();
    let types: Vec<String> =
        match (fields.texts("layers_block_type")?, fields.text("hybrid_override_pattern")?) {
            (Some(types), _) => types.into_iter().map(str::to_owned).collect(),
            (None, Some(pattern)) => pattern.chars().map(String::from).collect(),
            (None, None) => return Err(damaged(path, "does not say what its layers are")),
        };
    if types.len() != config.plan.len() {
        let reason = format!("says what {} of {} layers are", types.len(), config.plan.len());
        return Err(damaged(path, &reason));
    }
    for (layer, kind) in config.plan.iter_mut().zip(&types) {
        *layer = match kind.as_str() {
            "linear_attention" | "mamba" | "M" => STATE_SPACE,
            "full_attention" | "attention" | "*" => ATTENTION,
            "mlp" | "-" => DENSE,
            "moe" | "E" => SPARSE,
            other => return Err(unsupported(path, &format!("needs layers of type {other:?}"))),
        };
    }
    Ok(())
}
