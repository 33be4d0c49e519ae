//! Granite 4 (IBM, 2025): state spaces with attention between them; a feed-forward block that every
//! token goes through, with or without a mixture of experts beside it.

use super::architecture::{Architecture, Defaults, OnLoad, PLAIN};
use super::granite::factors;
use super::granitemoe::EXPERTS;
use super::mamba2::time_limit;
use super::names::{self, ExpertNames, Names};
use crate::engine::config::ModelConfig;
use crate::engine::config::fields::Fields;
use crate::engine::config::recurrent::{Mamba, Recurrent};
use crate::engine::config::style::{Experts, Mixer, Routing, SharedExpert};
use crate::error::Result;

pub const ARCHITECTURE: Architecture = Architecture {
    name: "granitemoehybrid",
    model_types: &["granitemoehybrid"],
    sparse: true,
    names: Names {
        gate_up: &["shared_mlp.input_linear"],
        down: "shared_mlp.output_linear",
        split_mlp: Some(["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]),
        experts: ExpertNames {
            shared: ["shared_mlp.input_linear", "", "shared_mlp.output_linear"],
            ..EXPERTS
        },
        ..names::PLAIN
    },
    defaults: Defaults {
        heads: Some(32),
        intermediate: Some(11_008),
        vocabulary: Some(32_000),
        ..Defaults::PLAIN
    },
    read,
    on_load: OnLoad { precise: &["router.layer"], whole: &[] },
    ..PLAIN
};

fn read(fields: &Fields, config: &mut ModelConfig) -> Result<()> {
    factors(fields, config)?;
    let size = |name: &str, default: usize| -> Result<usize> { Ok(fields.number(name)?.unwrap_or(default)) };
    let heads = size("mamba_n_heads", 128)?;
    let inner = size("mamba_expand", 2)?.saturating_mul(config.hidden_size);
    // A number, or "auto".
    let head_dim = fields.get("mamba_d_head").and_then(|value| usize::try_from(value.as_u64()?).ok());
    config.recurrent = Some(Recurrent::Mamba(Mamba {
        heads,
        head_dim: head_dim.or(inner.checked_div(heads)).unwrap_or(0),
        groups: size("mamba_n_groups", 1)?,
        state_dim: size("mamba_d_state", 256)?,
        width: size("mamba_d_conv", 4)?,
        bias: fields.flag("mamba_proj_bias")?.unwrap_or(false),
        conv_bias: fields.flag("mamba_conv_bias")?.unwrap_or(true),
        time_limit: time_limit(fields),
    }));
    let rotates = fields.text("position_embedding_type")? == Some("rope");
    for layer in &mut config.plan {
        (layer.mixer, layer.rotates) = (Mixer::Recurrent, rotates);
    }
    let shared = size("shared_intermediate_size", 1024)?;
    let count = size("num_local_experts", 8)?;
    if count > 0 {
        let routing = Routing::softmax(count, size("num_experts_per_tok", 2)?);
        let shared = Some(SharedExpert { intermediate_size: shared, gated: false });
        config.mix_all(Experts { shared, ..Experts::plain(routing, config.intermediate_size) });
    }
    config.intermediate_size = shared;
    Ok(())
}
