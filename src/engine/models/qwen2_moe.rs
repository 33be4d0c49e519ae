//! Qwen 1.5 and 2 with a mixture of experts, one of which every token shares.

use super::architecture::{Architecture, Defaults, Gguf, PLAIN};
use super::qwen2::window_of_upper_layers;
use crate::engine::config::fields::Fields;
use crate::engine::config::style::{Experts, Routing, SharedExpert};
use crate::engine::config::{AttentionBias, GgufFields, ModelConfig};
use crate::error::Result;

pub const ARCHITECTURE: Architecture = Architecture {
    name: "qwen2_moe",
    model_types: &["qwen2_moe"],
    sparse: true,
    defaults: Defaults { context: 32_768, kv_heads: Some(16), ..Defaults::PLAIN },
    read,
    gguf: Some(Gguf { names: &["qwen2moe"], interleaved: false, read: read_gguf }),
    ..PLAIN
};

fn read(fields: &Fields, config: &mut ModelConfig) -> Result<()> {
    config.attention_bias = AttentionBias { qkv: fields.flag("qkv_bias")?.unwrap_or(true), o: false };
    let intermediate_size = fields.number("shared_expert_intermediate_size")?.unwrap_or(5632);
    let shared = Some(SharedExpert { intermediate_size, gated: true });
    let routing = Routing { normalized: false, ..Routing::softmax(60, 4) };
    mix(fields, config, Experts { shared, ..Experts::plain(routing, 1408) })?;
    window_of_upper_layers(fields, config)
}

fn read_gguf(fields: &GgufFields, config: &mut ModelConfig) -> Result<()> {
    if let Some(experts) = &mut config.experts {
        experts.routing.normalized = false;
        let intermediate_size = fields.required("expert_shared_feed_forward_length")?;
        experts.shared = Some(SharedExpert { intermediate_size, gated: true });
    }
    Ok(())
}

/// Reads the experts, with these defaults, and which layers have them.
pub fn mix(fields: &Fields, config: &mut ModelConfig, defaults: Experts) -> Result<()> {
    let count = fields.number("num_experts")?.or(fields.number("num_local_experts")?);
    let routing = Routing {
        count: count.unwrap_or(defaults.routing.count),
        used: fields.number("num_experts_per_tok")?.unwrap_or(defaults.routing.used),
        normalized: fields.flag("norm_topk_prob")?.unwrap_or(defaults.routing.normalized),
        ..defaults.routing
    };
    let inner = fields.number("moe_intermediate_size")?.unwrap_or(defaults.intermediate_size);
    config.experts = Some(Experts { routing, intermediate_size: inner, ..defaults });
    let step = fields.number("decoder_sparse_step")?.unwrap_or(1);
    let dense = fields.numbers("mlp_only_layers")?.unwrap_or_default();
    for (index, layer) in config.plan.iter_mut().enumerate() {
        layer.sparse = step > 0 && (index + 1).is_multiple_of(step) && !dense.contains(&index);
    }
    Ok(())
}
