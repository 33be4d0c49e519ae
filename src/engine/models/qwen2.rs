//! Qwen 2 and 2.5 (arXiv:2407.10671): Llama with biases of queries, keys and values. The text parts of Qwen 2
//! VL and 2.5 VL are the same: the rotations of a picture are those of plain positions in a text.

use super::architecture::{Architecture, Defaults, Gguf, PLAIN, no_more_keys};
use crate::engine::config::fields::Fields;
use crate::engine::config::{AttentionBias, ModelConfig};
use crate::error::Result;

pub const ARCHITECTURE: Architecture = Architecture {
    name: "qwen2",
    model_types: &["qwen2", "qwen2_vl_text", "qwen2_vl", "qwen2_5_vl_text", "qwen2_5_vl"],
    defaults: Defaults { context: 32_768, ..Defaults::PLAIN },
    read,
    gguf: Some(Gguf { names: &["qwen2", "qwen2vl"], interleaved: false, read: no_more_keys }),
    ..PLAIN
};

fn read(fields: &Fields, config: &mut ModelConfig) -> Result<()> {
    config.attention_bias = AttentionBias { qkv: true, o: false };
    window_of_upper_layers(fields, config)
}

/// Layers from `max_window_layers` on slide, if `use_sliding_window` says so.
pub fn window_of_upper_layers(fields: &Fields, config: &mut ModelConfig) -> Result<()> {
    if fields.flag("use_sliding_window")? != Some(true) {
        config.sliding_window = None;
    } else if !fields.has("sliding_window") {
        config.sliding_window = Some(4096);
    }
    let first = fields.number("max_window_layers")?.unwrap_or(28);
    let slides = config.sliding_window.is_some();
    for (index, layer) in config.plan.iter_mut().enumerate() {
        layer.slides = slides && index >= first;
    }
    Ok(())
}
