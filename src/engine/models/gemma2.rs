//! Gemma 2 (arXiv:2408.00118): norms around both parts, soft caps, every other layer slides.

use super::architecture::{Architecture, Defaults, Gguf, PLAIN};
use super::gemma::{self, scale_embedding};
use super::names::{self, Names};
use crate::engine::config::fields::Fields;
use crate::engine::config::style::{Placement, Style};
use crate::engine::config::{GgufFields, ModelConfig};
use crate::error::Result;

pub const ARCHITECTURE: Architecture = Architecture {
    name: "gemma2",
    model_types: &["gemma2"],
    style: Style { placement: Placement::Around, ..gemma::STYLE },
    names: NAMES,
    defaults: Defaults {
        context: 8192,
        kv_heads: Some(4),
        head_dim: Some(256),
        tied: true,
        window: Some(4096),
        ..Defaults::PLAIN
    },
    read,
    gguf: Some(Gguf { names: &["gemma2"], interleaved: false, read: read_gguf }),
    ..PLAIN
};

pub const NAMES: Names = Names { mlp_norm: "pre_feedforward_layernorm", ..names::PLAIN };

/// The caps of a configuration that does not say them; null is none.
const CAPS: [f32; 2] = [50.0, 30.0];

fn read(fields: &Fields, config: &mut ModelConfig) -> Result<()> {
    scale_embedding(config);
    scale_attention(fields, config)?;
    let cap = |name: &str, default: f32| -> Result<Option<f32>> {
        let said = fields.float(name)?.map(|cap| cap as f32);
        Ok(if fields.has(name) { said } else { Some(default) })
    };
    config.attention_cap = cap("attn_logit_softcapping", CAPS[0])?;
    config.logits_cap = cap("final_logit_softcapping", CAPS[1])?;
    config.slide_but_every(2);
    Ok(())
}

fn read_gguf(_: &GgufFields, config: &mut ModelConfig) -> Result<()> {
    scale_embedding(config);
    config.attention_cap.get_or_insert(CAPS[0]);
    config.logits_cap.get_or_insert(CAPS[1]);
    // The file does not say it: llama.cpp knows the largest model by its layers.
    if config.layers == 46 {
        config.attention_scale = (config.hidden_size as f32 / config.heads as f32).sqrt().recip();
    }
    config.sliding_window.get_or_insert(4096);
    config.slide_but_every(2);
    Ok(())
}

/// Scores are divided by the root of `query_pre_attn_scalar`.
pub fn scale_attention(fields: &Fields, config: &mut ModelConfig) -> Result<()> {
    let scalar = fields.float("query_pre_attn_scalar")?.unwrap_or(256.0);
    config.attention_scale = (scalar as f32).sqrt().recip();
    Ok(())
}
