//! StableLM (arXiv:2402.17834): layer norms, a quarter of each head rotated.

use super::architecture::{Architecture, Defaults, Gguf, PLAIN};
use crate::engine::config::fields::Fields;
use crate::engine::config::style::{self, NormKind, Placement, Style};
use crate::engine::config::{AttentionBias, GgufFields, ModelConfig};
use crate::engine::format::file::unsupported;
use crate::error::Result;

pub const ARCHITECTURE: Architecture = Architecture {
    name: "stablelm",
    model_types: &["stablelm"],
    style: Style { norm: NormKind::Layer { bias: true }, ..style::PLAIN },
    defaults: Defaults { norm_eps: 1e-5, partial: 0.25, context: 4096, ..Defaults::PLAIN },
    read,
    gguf: Some(Gguf { names: &["stablelm"], interleaved: false, read: read_gguf }),
    ..PLAIN
};

fn read(fields: &Fields, config: &mut ModelConfig) -> Result<()> {
    if fields.flag("qk_layernorm")? == Some(true) {
        return Err(unsupported(fields.path(), "needs StableLM's norms of single heads"));
    }
    config.attention_bias = AttentionBias { qkv: fields.flag("use_qkv_bias")?.unwrap_or(false), o: false };
    if fields.flag("use_parallel_residual")? == Some(true) {
        config.style.placement = Placement::Parallel;
    }
    Ok(())
}

fn read_gguf(fields: &GgufFields, config: &mut ModelConfig) -> Result<()> {
    if fields.has("self_attn.q_norm", "weight") {
        return Err(unsupported(fields.path(), "needs StableLM's norms of single heads"));
    }
    if !fields.has("post_attention_layernorm", "weight") {
        config.style.placement = Placement::Parallel;
    }
    Ok(())
}
