//! Qwen 3.5 with a mixture of experts.

use super::architecture::{Architecture, Defaults, OnLoad, PLAIN};
use super::qwen3_next::{DEFAULTS, STYLE, linear_layers, mix_shared};
use crate::engine::config::ModelConfig;
use crate::engine::config::fields::Fields;
use crate::engine::config::style::Routing;
use crate::error::Result;

pub const ARCHITECTURE: Architecture = Architecture {
    name: "qwen3_5_moe",
    model_types: &["qwen3_5_moe_text", "qwen3_5_moe"],
    sparse: true,
    style: STYLE,
    defaults: Defaults {
        heads: Some(16),
        kv_heads: Some(2),
        vocabulary: Some(248_320),
        // No layer has it, and no configuration says it.
        intermediate: Some(512),
        ..DEFAULTS
    },
    read,
    on_load: OnLoad { precise: &["mlp.gate", "mlp.shared_expert_gate"], whole: &[] },
    ..PLAIN
};

fn read(fields: &Fields, config: &mut ModelConfig) -> Result<()> {
    linear_layers(fields, config)?;
    mix_shared(fields, config, Routing::softmax(256, 8))
}
