//! Qwen 3.5: Qwen 3 Next without experts. The rotations of a picture's rows and columns, which the
//! configuration speaks of, are those of plain positions in a text.

use super::architecture::{Architecture, Defaults, PLAIN};
use super::qwen3_next::{DEFAULTS, STYLE, linear_layers};

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
    ..PLAIN
};
