//! Qwen 3.5: Qwen 3 Next without experts. The rotations of a picture's rows and columns, which the
//! configuration speaks of, are those of plain positions in a text.

use super::architecture::{Architecture, Defaults, Gguf, PLAIN};
use super::qwen3_next::{DEFAULTS, NAMES, STYLE, linear_layers, linear_layers_of_gguf};
use crate::engine::config::{GgufFields, ModelConfig};
use crate::error::Result;

pub const ARCHITECTURE: Architecture = Architecture {
    name: "qwen3_5",
    model_types: &["qwen3_5_text", "qwen3_5"],
    style: STYLE,
    defaults: Defaults {
        heads: Some(16),
        kv_heads: Some(4),
        vocabulary: Some(248_320),
        intermediate: Some(12_288),
        ..DEFAULTS
    },
    read: linear_layers,
    names: NAMES,
    gguf: Some(Gguf { names: &["qwen35"], interleaved: false, read: read_gguf }),
    ..PLAIN
};

/// The converter of llama.cpp brings the heads of values into another order.
pub fn read_gguf(fields: &GgufFields, config: &mut ModelConfig) -> Result<()> {
    linear_layers_of_gguf(fields, config, true)
}
