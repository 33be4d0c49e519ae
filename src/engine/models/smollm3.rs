//! SmolLM 3: Llama whose every fourth layer rotates nothing (NoPE, arXiv:2501.18795).

use super::architecture::{Architecture, Defaults, Gguf, PLAIN};
use crate::engine::config::fields::Fields;
use crate::engine::config::{GgufFields, ModelConfig};
use crate::engine::format::file::damaged;
use crate::error::Result;

pub const ARCHITECTURE: Architecture = Architecture {
    name: "smollm3",
    model_types: &["smollm3"],
    defaults: Defaults {
        theta: 2_000_000.0,
        context: 32_768,
        kv_heads: Some(4),
        tied: true,
        ..Defaults::PLAIN
    },
    read,
    gguf: Some(Gguf { names: &["smollm3"], interleaved: true, read: read_gguf }),
    ..PLAIN
};

const PERIOD: usize = 4;

fn read(fields: &Fields, config: &mut ModelConfig) -> Result<()> {
    match fields.numbers("no_rope_layers")? {
        Some(list) if list.len() == config.plan.len() => {
            for (layer, rotates) in config.plan.iter_mut().zip(list) {
                layer.rotates = rotates != 0;
            }
        }
        Some(list) => {
            let reason = format!("has {} no_rope_layers for {} layers", list.len(), config.layers);
            return Err(damaged(fields.path(), &reason));
        }
        None => rotate_but_every(config, fields.number("no_rope_layer_interval")?.unwrap_or(PERIOD)),
    }
    let slides = fields.flag("use_sliding_window")? == Some(true) && config.sliding_window.is_some();
    for layer in &mut config.plan {
        layer.slides = slides && !layer.rotates;
    }
    Ok(())
}

fn read_gguf(_: &GgufFields, config: &mut ModelConfig) -> Result<()> {
    rotate_but_every(config, PERIOD);
    Ok(())
}

fn rotate_but_every(config: &mut ModelConfig, period: usize) {
    for (index, layer) in config.plan.iter_mut().enumerate() {
        layer.rotates = period == 0 || !(index + 1).is_multiple_of(period);
    }
}
