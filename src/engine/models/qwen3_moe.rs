//! Qwen 3 with a mixture of experts (arXiv:2505.09388), and the text part of such a Qwen 3 VL.

use super::architecture::{Architecture, Defaults, Gguf, OnLoad, PLAIN, no_more_keys};
use super::names::{self, ExpertNames, Names};
use super::qwen2::window_of_upper_layers;
use super::qwen2_moe::mix;
use crate::engine::config::ModelConfig;
use crate::engine::config::fields::Fields;
use crate::engine::config::style::{self, Experts, QkNorm, Routing, Style};
use crate::error::Result;

pub const ARCHITECTURE: Architecture = Architecture {
    name: "qwen3_moe",
    model_types: &["qwen3_moe", "qwen3_vl_moe_text", "qwen3_vl_moe"],
    sparse: true,
    names: Names { experts: EXPERTS, ..names::PLAIN },
    style: Style { qk_norm: Some(QkNorm::Heads), ..style::PLAIN },
    defaults: Defaults { context: 32_768, kv_heads: Some(4), ..Defaults::PLAIN },
    read,
    gguf: Some(Gguf { names: &["qwen3moe", "qwen3vlmoe"], interleaved: false, read: no_more_keys }),
    on_load: OnLoad { precise: &["mlp.gate"], whole: &[] },
    ..PLAIN
};

/// Qwen 3 VL's were published transposed.
const EXPERTS: ExpertNames = ExpertNames { transposed: Some(names::EXPERTS.fused), ..names::EXPERTS };

fn read(fields: &Fields, config: &mut ModelConfig) -> Result<()> {
    // That of Qwen 3 VL has no field for it.
    let normalized = fields.text("model_type")?.is_some_and(|kind| kind.starts_with("qwen3_vl"));
    let routing = Routing { normalized, ..Routing::softmax(128, 8) };
    mix(fields, config, Experts::plain(routing, 768))?;
    window_of_upper_layers(fields, config)
}
