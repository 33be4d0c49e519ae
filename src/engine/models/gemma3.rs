//! Gemma 3 (arXiv:2503.19786): five of six layers slide, with a rope of their own; norms of queries
//! and keys.

use super::architecture::{Architecture, Defaults, Gguf, PLAIN};
use super::gemma::{self, scale_embedding};
use super::gemma2::{self, scale_attention};
use crate::engine::config::fields::Fields;
use crate::engine::config::style::{Direction, Placement, QkNorm, Style};
use crate::engine::config::{GgufFields, ModelConfig, Rope, RopeScaling};
use crate::error::Result;

pub const ARCHITECTURE: Architecture = Architecture {
    name: "gemma3",
    model_types: &["gemma3_text", "gemma3"],
    style: Style { placement: Placement::Around, qk_norm: Some(QkNorm::Heads), ..gemma::STYLE },
    names: gemma2::NAMES,
    defaults: Defaults {
        theta: 1_000_000.0,
        local_theta: Some(LOCAL_THETA),
        context: 131_072,
        heads: Some(8),
        kv_heads: Some(4),
        head_dim: Some(256),
        vocabulary: Some(262_208),
        tied: true,
        window: Some(4096),
        ..Defaults::PLAIN
    },
    read,
    gguf: Some(Gguf { names: &["gemma3", EMBEDDING], interleaved: false, read: read_gguf }),
    ..PLAIN
};

/// What GGUF files call a Gemma 3 whose tokens see each other from both sides, which turns texts into vectors.
const EMBEDDING: &str = "gemma-embedding";
const LOCAL_THETA: f64 = 10_000.0;
const PERIOD: usize = 6;

fn read(fields: &Fields, config: &mut ModelConfig) -> Result<()> {
    scale_embedding(config);
    scale_attention(fields, config)?;
    config.attention_cap = fields.float("attn_logit_softcapping")?.map(|cap| cap as f32);
    config.logits_cap = fields.float("final_logit_softcapping")?.map(|cap| cap as f32);
    let period = fields.number("sliding_window_pattern")?.or(fields.number("_sliding_window_pattern")?);
    config.slide_but_every(period.unwrap_or(PERIOD));
    Ok(())
}

fn read_gguf(_: &GgufFields, config: &mut ModelConfig) -> Result<()> {
    if config.model_type == EMBEDDING {
        config.direction = Direction::Both;
    }
    scale_embedding(config);
    // The file does not say it: llama.cpp knows the largest model by its layers.
    if config.layers == 62 {
        config.attention_scale = (config.hidden_size as f32 / config.heads as f32).sqrt().recip();
    }
    config.local_rope = Some(Rope {
        theta: LOCAL_THETA as f32,
        scaling: RopeScaling::Default,
        magnitude: 1.0,
        ..config.rope.clone()
    });
    config.sliding_window.get_or_insert(1024);
    config.slide_but_every(PERIOD);
    Ok(())
}
