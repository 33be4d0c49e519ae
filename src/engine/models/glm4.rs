//! GLM 4 (0414): norms around both parts, half of each head rotated by neighbours.

use super::architecture::{Architecture, Defaults, Gguf, PLAIN, no_more_keys};
use super::names::{self, Names};
use crate::engine::config::fields::Fields;
use crate::engine::config::style::{self, Placement, Style};
use crate::engine::config::{AttentionBias, ModelConfig};
use crate::error::Result;

pub const ARCHITECTURE: Architecture = Architecture {
    name: "glm4",
    model_types: &["glm4"],
    style: Style { placement: Placement::Around, interleaved: true, ..style::PLAIN },
    names: Names {
        attention_post_norm: "post_self_attn_layernorm",
        mlp_norm: "post_attention_layernorm",
        mlp_post_norm: "post_mlp_layernorm",
        gate_up: &["mlp.gate_up_proj"],
        ..names::PLAIN
    },
    defaults: Defaults {
        norm_eps: 1.5625e-7,
        partial: 0.5,
        context: 131_072,
        kv_heads: Some(2),
        head_dim: Some(128),
        ..Defaults::PLAIN
    },
    read,
    gguf: Some(Gguf { names: &["glm4"], interleaved: true, read: no_more_keys }),
    ..PLAIN
};

fn read(fields: &Fields, config: &mut ModelConfig) -> Result<()> {
    config.attention_bias = AttentionBias { qkv: fields.flag("attention_bias")?.unwrap_or(true), o: false };
    Ok(())
}
