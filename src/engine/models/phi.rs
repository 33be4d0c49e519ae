//! Phi 1, 1.5 and 2 (arXiv:2309.05463): parallel blocks, layer norms, biases everywhere.

use super::architecture::{Architecture, Defaults, Gguf, PLAIN, no_more_keys};
use super::names::{self, Names};
use crate::engine::config::fields::Fields;
use crate::engine::config::style::{self, Activation, NormKind, Placement, Style};
use crate::engine::config::{AttentionBias, ModelConfig};
use crate::engine::format::file::unsupported;
use crate::error::Result;

pub const ARCHITECTURE: Architecture = Architecture {
    name: "phi",
    model_types: &["phi"],
    style: Style {
        norm: NormKind::Layer { bias: true },
        placement: Placement::Parallel,
        gated: false,
        activation: Activation::GeluTanh,
        ..style::PLAIN
    },
    names: Names {
        output: "self_attn.dense",
        gate_up: &["mlp.fc1"],
        down: "mlp.fc2",
        final_norm: "model.final_layernorm",
        ..names::PLAIN
    },
    defaults: Defaults { norm_eps: 1e-5, partial: 0.5, ..Defaults::PLAIN },
    read,
    gguf: Some(Gguf { names: &["phi2"], interleaved: false, read: no_more_keys }),
    ..PLAIN
};

fn read(fields: &Fields, config: &mut ModelConfig) -> Result<()> {
    if fields.flag("qk_layernorm")? == Some(true) {
        return Err(unsupported(fields.path(), "needs Phi's norms of queries and keys"));
    }
    config.attention_bias = AttentionBias { qkv: true, o: true };
    config.mlp_bias = true;
    config.head_bias = true;
    Ok(())
}
