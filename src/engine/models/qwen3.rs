//! Qwen 3 (arXiv:2505.09388): Llama with norms of queries and keys. The text part of Qwen 3 VL is the same.

use super::architecture::{Architecture, Defaults, Gguf, PLAIN, no_more_keys};
use super::qwen2::window_of_upper_layers;
use crate::engine::config::style::{self, QkNorm, Style};

pub const ARCHITECTURE: Architecture = Architecture {
    name: "qwen3",
    model_types: &["qwen3", "qwen3_vl_text", "qwen3_vl"],
    style: Style { qk_norm: Some(QkNorm::Heads), ..style::PLAIN },
    defaults: Defaults { context: 32_768, head_dim: Some(128), kv_heads: Some(32), ..Defaults::PLAIN },
    read: window_of_upper_layers,
    gguf: Some(Gguf { names: &["qwen3", "qwen3vl"], interleaved: false, read: no_more_keys }),
    ..PLAIN
};
