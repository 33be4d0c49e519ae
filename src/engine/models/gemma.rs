//! Gemma (arXiv:2403.08295): norms by one plus the weight, a scaled embedding, GELU.

use super::architecture::{Architecture, Defaults, Gguf, PLAIN};
use crate::engine::config::fields::Fields;
use crate::engine::config::style::{self, Activation, NormKind, Style};
use crate::engine::config::{GgufFields, ModelConfig};
use crate::error::Result;

pub const ARCHITECTURE: Architecture = Architecture {
    name: "gemma",
    model_types: &["gemma"],
    style: STYLE,
    defaults: Defaults { context: 8192, head_dim: Some(256), tied: true, ..Defaults::PLAIN },
    read,
    gguf: Some(Gguf { names: &["gemma"], interleaved: false, read: read_gguf }),
    ..PLAIN
};

pub const STYLE: Style =
    Style { norm: NormKind::RmsPlusOne, activation: Activation::GeluTanh, ..style::PLAIN };

fn read(_: &Fields, config: &mut ModelConfig) -> Result<()> {
    scale_embedding(config);
    Ok(())
}

fn read_gguf(_: &GgufFields, config: &mut ModelConfig) -> Result<()> {
    scale_embedding(config);
    Ok(())
}

pub fn scale_embedding(config: &mut ModelConfig) {
    config.embedding_scale = (config.hidden_size as f32).sqrt();
}
