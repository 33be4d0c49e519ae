//! Qwen 3 with a mixture of experts (arXiv:2505.09388).

use super::architecture::{Architecture, Defaults, Gguf, OnLoad, PLAIN, no_more_keys};
use super::qwen2::window_of_upper_layers;
use super::qwen2_moe::mix;
use crate::engine::config::ModelConfig;
use crate::engine::config::fields::Fields;
use crate::engine::config::style::{self, Experts, QkNorm, Routing, Style};
use crate::error::Result;

pub const ARCHITECTURE: Architecture = Architecture {
    name: "qwen3_moe",
    model_types: &["qwen3_moe"],
    sparse: true,
    style: Style { qk_norm: Some(QkNorm::Heads), ..style::PLAIN },
    defaults: Defaults { context: 32_768, kv_heads: Some(4), ..Defaults::PLAIN },
    read,
    gguf: Some(Gguf { names: &["qwen3moe"], interleaved: false, read: no_more_keys }),
    on_load: OnLoad { precise: &["mlp.gate"], whole: &[] },
    ..PLAIN
};

fn read(fields: &Fields, config: &mut ModelConfig) -> Result<()> {
    let routing = Routing { normalized: false, ..Routing::softmax(128, 8) };
    mix(fields, config, Experts::plain(routing, 768))?;
    window_of_upper_layers(fields, config)
}
