//! Phi 3, 3.5 and 4 (arXiv:2404.14219): fused matrices, LongRoPE.

use super::architecture::{Architecture, Defaults, Gguf, PLAIN};
use super::mistral::slides_if_it_can;
use super::names::{self, Names};
use crate::engine::config::{GgufFields, ModelConfig};
use crate::error::Result;

pub const ARCHITECTURE: Architecture = Architecture {
    name: "phi3",
    model_types: &["phi3"],
    names: Names { qkv: &["self_attn.qkv_proj"], gate_up: &["mlp.gate_up_proj"], ..names::PLAIN },
    defaults: Defaults { norm_eps: 1e-5, context: 4096, ..Defaults::PLAIN },
    read: slides_if_it_can,
    gguf: Some(Gguf { names: &["phi3"], interleaved: false, read: read_gguf }),
    ..PLAIN
};

/// Newer files say 0 or the whole context where there is no window.
fn read_gguf(_: &GgufFields, config: &mut ModelConfig) -> Result<()> {
    config.sliding_window = config.sliding_window.filter(|&window| window < config.max_position_embeddings);
    config.slide_all(config.sliding_window.is_some());
    Ok(())
}
