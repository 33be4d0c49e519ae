//! Command R (Cohere, 2024): attention and feed-forward in parallel, layer norms without bias.

use super::architecture::{Architecture, Defaults, Gguf, PLAIN};
use crate::engine::config::fields::Fields;
use crate::engine::config::style::{self, NormKind, Placement, QkNorm, Style};
use crate::engine::config::{GgufFields, ModelConfig};
use crate::error::Result;

pub const ARCHITECTURE: Architecture = Architecture {
    name: "cohere",
    model_types: &["cohere"],
    style: STYLE,
    defaults: Defaults { norm_eps: 1e-5, theta: 500_000.0, context: 8192, tied: true, ..Defaults::PLAIN },
    read,
    gguf: Some(Gguf { names: &["command-r"], interleaved: true, read: scale_of_gguf }),
    ..PLAIN
};

pub const STYLE: Style = Style {
    norm: NormKind::Layer { bias: false },
    placement: Placement::Parallel,
    interleaved: true,
    ..style::PLAIN
};

fn read(fields: &Fields, config: &mut ModelConfig) -> Result<()> {
    if fields.flag("use_qk_norm")? == Some(true) {
        config.style.qk_norm = Some(QkNorm::EachHead);
    }
    scale_logits(fields, config)
}

pub fn scale_logits(fields: &Fields, config: &mut ModelConfig) -> Result<()> {
    config.logits_scale = fields.float("logit_scale")?.unwrap_or(0.0625) as f32;
    Ok(())
}

pub fn scale_of_gguf(fields: &GgufFields, config: &mut ModelConfig) -> Result<()> {
    config.logits_scale = fields.float("logit_scale").unwrap_or(0.0625) as f32;
    if fields.has("self_attn.q_norm", "weight") {
        config.style.qk_norm = Some(QkNorm::EachHead);
    }
    Ok(())
}
