//! Qwen 3.5 with a mixture of experts.

use super::architecture::{Architecture, Defaults, PLAIN};
use super::qwen2_moe::mix;
use super::qwen3_next::{DEFAULTS, STYLE, linear_layers};
use crate::engine::config::ModelConfig;
use crate::engine::config::fields::Fields;
use crate::engine::config::style::Experts;
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
    ..PLAIN
};

fn read(fields: &Fields, config: &mut ModelConfig) -> Result<()> {
    linear_layers(fields, config)?;
    let shared = Some(fields.number("shared_expert_intermediate_size")?.unwrap_or(512));
    mix(fields, config, Experts { count: 256, used: 8, intermediate_size: 512, normalized: true, shared })
}
