//! Seed-OSS (ByteDance, 2025): Llama with biases of queries, keys and values.

use super::architecture::{Architecture, Defaults, Gguf, PLAIN, no_more_keys};
use crate::engine::config::fields::Fields;
use crate::engine::config::{AttentionBias, ModelConfig};
use crate::error::Result;

pub const ARCHITECTURE: Architecture = Architecture {
    name: "seed_oss",
    model_types: &["seed_oss"],
    defaults: Defaults { context: 524_288, kv_heads: Some(8), head_dim: Some(128), ..Defaults::PLAIN },
    read,
    gguf: Some(Gguf { names: &["seed_oss"], interleaved: false, read: no_more_keys }),
    ..PLAIN
};

fn read(fields: &Fields, config: &mut ModelConfig) -> Result<()> {
    config.attention_bias = AttentionBias {
        qkv: fields.flag("attention_bias")?.unwrap_or(true),
        o: fields.flag("attention_out_bias")?.unwrap_or(false),
    };
    Ok(())
}
