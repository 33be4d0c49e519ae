//! Command R7B (Cohere, 2024): three of four layers slide, and only those rotate.

use super::architecture::{Architecture, Defaults, Gguf, PLAIN};
use super::cohere::{self, scale_logits, scale_of_gguf};
use crate::engine::config::fields::Fields;
use crate::engine::config::{GgufFields, ModelConfig};
use crate::error::Result;

pub const ARCHITECTURE: Architecture = Architecture {
    name: "cohere2",
    model_types: &["cohere2"],
    style: cohere::STYLE,
    defaults: Defaults {
        norm_eps: 1e-5,
        context: 8192,
        head_dim: Some(128),
        tied: true,
        window: Some(4096),
        ..Defaults::PLAIN
    },
    read,
    gguf: Some(Gguf { names: &["cohere2"], interleaved: true, read: read_gguf }),
    ..PLAIN
};

const PERIOD: usize = 4;

fn read(fields: &Fields, config: &mut ModelConfig) -> Result<()> {
    let period = fields.number("sliding_window_pattern")?.or(fields.number("_sliding_window_pattern")?);
    config.slide_but_every(period.unwrap_or(PERIOD));
    config.style.rotates_only_sliding = true;
    scale_logits(fields, config)
}

fn read_gguf(fields: &GgufFields, config: &mut ModelConfig) -> Result<()> {
    config.slide_but_every(PERIOD);
    config.style.rotates_only_sliding = true;
    scale_of_gguf(fields, config)
}
