//! Qwen 3 Next: three of four layers follow the gated delta rule (arXiv:2412.06464), the fourth has
//! attention whose result is gated; a mixture of experts in all of them.

use super::architecture::{Architecture, Defaults, OnLoad, PLAIN};
use super::qwen2_moe::mix;
use crate::engine::config::ModelConfig;
use crate::engine::config::fields::Fields;
use crate::engine::config::recurrent::{Delta, Recurrent};
use crate::engine::config::style::{self, Experts, NormKind, QkNorm, Routing, SharedExpert, Style};
use crate::error::Result;

pub const ARCHITECTURE: Architecture = Architecture {
    name: "qwen3_next",
    model_types: &["qwen3_next"],
    sparse: true,
    style: STYLE,
    defaults: Defaults {
        kv_heads: Some(2),
        vocabulary: Some(151_936),
        intermediate: Some(5632),
        heads: Some(16),
        ..DEFAULTS
    },
    read,
    on_load: OnLoad { precise: &["mlp.gate", "mlp.shared_expert_gate"], whole: &[] },
    ..PLAIN
};

pub const STYLE: Style =
    Style { norm: NormKind::RmsPlusOne, qk_norm: Some(QkNorm::Heads), gated_attention: true, ..style::PLAIN };

pub const DEFAULTS: Defaults =
    Defaults { context: 32_768, partial: 0.25, head_dim: Some(256), ..Defaults::PLAIN };

const PERIOD: usize = 4;

fn read(fields: &Fields, config: &mut ModelConfig) -> Result<()> {
    linear_layers(fields, config)?;
    mix_shared(fields, config, Routing::softmax(512, 10))
}

/// Reads the experts, by default routed so, and the one that every token goes to.
pub fn mix_shared(fields: &Fields, config: &mut ModelConfig, routing: Routing) -> Result<()> {
    let intermediate_size = fields.number("shared_expert_intermediate_size")?.unwrap_or(512);
    let shared = Some(SharedExpert { intermediate_size, gated: true });
    mix(fields, config, Experts { shared, ..Experts::plain(routing, 512) })
}

/// Reads the sizes of the delta rule, and which layers follow it where there are no `layer_types`.
pub fn linear_layers(fields: &Fields, config: &mut ModelConfig) -> Result<()> {
    let size = |name: &str, default: usize| -> Result<usize> { Ok(fields.number(name)?.unwrap_or(default)) };
    config.recurrent = Some(Recurrent::Delta(Delta {
        key_heads: size("linear_num_key_heads", 16)?,
        value_heads: size("linear_num_value_heads", 32)?,
        key_dim: size("linear_key_head_dim", 128)?,
        value_dim: size("linear_value_head_dim", 128)?,
        width: size("linear_conv_kernel_dim", 4)?,
    }));
    config.recur_but_every(size("full_attention_interval", PERIOD)?);
    Ok(())
}
