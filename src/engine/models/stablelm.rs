//! StableLM (arXiv:2402.17834): layer norms, a quarter of each head rotated; in the 12B attention and feed-forward in
//! parallel, and a norm of its own for each head of queries and keys.

use super::architecture::{Architecture, Defaults, Gguf, PLAIN};
use super::names::{self, Names};
use crate::engine::config::fields::Fields;
use crate::engine::config::style::{self, NormKind, Placement, QkNorm, Style};
use crate::engine::config::{AttentionBias, GgufFields, ModelConfig};
use crate::error::Result;

pub const ARCHITECTURE: Architecture = Architecture {
    name: "stablelm",
    model_types: &["stablelm"],
    style: Style { norm: NormKind::Layer { bias: true }, ..style::PLAIN },
    names: Names {
        q_norm: "self_attn.q_layernorm",
        k_norm: "self_attn.k_layernorm",
        head_norms: Some("norms"),
        ..names::PLAIN
    },
    defaults: Defaults { norm_eps: 1e-5, partial: 0.25, context: 4096, ..Defaults::PLAIN },
    read,
    gguf: Some(Gguf { names: &["stablelm"], interleaved: false, read: read_gguf }),
    ..PLAIN
};

fn read(fields: &Fields, config: &mut ModelConfig) -> Result<()> {
    if fields.flag("qk_layernorm")? == Some(true) {
        config.style.qk_norm = Some(QkNorm::EachHead);
    }
    config.attention_bias = AttentionBias { qkv: fields.flag("use_qkv_bias")?.unwrap_or(false), o: false };
    if fields.flag("use_parallel_residual")? == Some(true) {
        config.style.placement = Placement::Parallel;
    }
    Ok(())
}

fn read_gguf(fields: &GgufFields, config: &mut ModelConfig) -> Result<()> {
    if fields.has("self_attn.q_layernorm", "weight") {
        config.style.qk_norm = Some(QkNorm::EachHead);
    }
    if !fields.has("post_attention_layernorm", "weight") {
        config.style.placement = Placement::Parallel;
    }
    Ok(())
}
