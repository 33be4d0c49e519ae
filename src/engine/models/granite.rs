//! Granite 3 (IBM, 2024): Llama with four factors.

use super::architecture::{Architecture, Gguf, PLAIN};
use crate::engine::config::fields::Fields;
use crate::engine::config::{GgufFields, ModelConfig};
use crate::error::Result;

pub const ARCHITECTURE: Architecture = Architecture {
    name: "granite",
    model_types: &["granite"],
    read: factors,
    gguf: Some(Gguf { names: &["granite"], interleaved: true, read: factors_of_gguf }),
    ..PLAIN
};

pub fn factors(fields: &Fields, config: &mut ModelConfig) -> Result<()> {
    let factor = |name: &str| -> Result<f32> { Ok(fields.float(name)?.unwrap_or(1.0) as f32) };
    config.embedding_scale = factor("embedding_multiplier")?;
    config.attention_scale = factor("attention_multiplier")?;
    config.residual_scale = factor("residual_multiplier")?;
    config.logits_scale = factor("logits_scaling")?.recip();
    Ok(())
}

pub fn factors_of_gguf(fields: &GgufFields, config: &mut ModelConfig) -> Result<()> {
    let factor = |key: &str| fields.float(key).map(|factor| factor as f32);
    config.embedding_scale = factor("embedding_scale").unwrap_or(1.0);
    config.residual_scale = factor("residual_scale").unwrap_or(1.0);
    config.logits_scale = factor("logit_scale").map_or(1.0, f32::recip);
    Ok(())
}
