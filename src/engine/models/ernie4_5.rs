//! ERNIE 4.5 (Baidu, 2025): Llama with rotated neighbours and biases by one flag.

use super::architecture::{Architecture, Defaults, Gguf, PLAIN, no_more_keys};
use crate::engine::config::fields::Fields;
use crate::engine::config::style::{self, Style};
use crate::engine::config::{AttentionBias, ModelConfig};
use crate::error::Result;

pub const ARCHITECTURE: Architecture = Architecture {
    name: "ernie4_5",
    model_types: &["ernie4_5"],
    style: Style { interleaved: true, ..style::PLAIN },
    defaults: Defaults {
        norm_eps: 1e-5,
        theta: 500_000.0,
        context: 131_072,
        kv_heads: Some(2),
        head_dim: Some(128),
        tied: true,
        ..Defaults::PLAIN
    },
    read,
    gguf: Some(Gguf { names: &["ernie4_5"], interleaved: true, read: no_more_keys }),
    ..PLAIN
};

fn read(fields: &Fields, config: &mut ModelConfig) -> Result<()> {
    let bias = fields.flag("use_bias")?.unwrap_or(false);
    config.attention_bias = AttentionBias { qkv: bias, o: bias };
    config.mlp_bias = bias;
    Ok(())
}
