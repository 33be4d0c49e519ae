//! StarCoder 2 (arXiv:2402.19173): layer norms, biases everywhere, no gate.

use super::architecture::{Architecture, Defaults, Gguf, PLAIN, no_more_keys};
use super::mistral::slides_if_it_can;
use super::names::{self, Names};
use crate::engine::config::fields::Fields;
use crate::engine::config::style::{self, Activation, NormKind, Style};
use crate::engine::config::{AttentionBias, ModelConfig};
use crate::error::Result;

pub const ARCHITECTURE: Architecture = Architecture {
    name: "starcoder2",
    model_types: &["starcoder2"],
    style: Style {
        norm: NormKind::Layer { bias: true },
        gated: false,
        activation: Activation::GeluTanh,
        ..style::PLAIN
    },
    names: Names { gate_up: &["mlp.c_fc"], down: "mlp.c_proj", ..names::PLAIN },
    defaults: Defaults { norm_eps: 1e-5, context: 4096, kv_heads: Some(2), tied: true, ..Defaults::PLAIN },
    read,
    gguf: Some(Gguf { names: &["starcoder2"], interleaved: false, read: no_more_keys }),
    ..PLAIN
};

fn read(fields: &Fields, config: &mut ModelConfig) -> Result<()> {
    let bias = fields.flag("use_bias")?.unwrap_or(true);
    config.attention_bias = AttentionBias { qkv: bias, o: bias };
    config.mlp_bias = bias;
    slides_if_it_can(fields, config)
}
