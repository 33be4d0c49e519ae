//! EXAONE 4 (arXiv:2507.11407): norms after both parts and of queries and keys; where layers slide,
//! only those rotate.

use super::architecture::{Architecture, Defaults, Gguf, PLAIN};
use crate::engine::config::fields::Fields;
use crate::engine::config::style::{self, Placement, QkNorm, Style};
use crate::engine::config::{GgufFields, ModelConfig};
use crate::error::Result;

pub const ARCHITECTURE: Architecture = Architecture {
    name: "exaone4",
    model_types: &["exaone4"],
    style: Style { placement: Placement::After, qk_norm: Some(QkNorm::Heads), ..style::PLAIN },
    defaults: Defaults { norm_eps: 1e-5, kv_heads: Some(32), window: Some(4096), ..Defaults::PLAIN },
    read,
    gguf: Some(Gguf { names: &["exaone4"], interleaved: false, read: read_gguf }),
    ..PLAIN
};

const PERIOD: usize = 4;

fn read(fields: &Fields, config: &mut ModelConfig) -> Result<()> {
    // A number, or a text such as "LLLG" that is as long.
    let period = match fields.get("sliding_window_pattern") {
        Some(serde_json::Value::String(pattern)) => Some(pattern.len()),
        _ => fields.number("sliding_window_pattern")?,
    };
    slide(config, period.unwrap_or(PERIOD));
    Ok(())
}

fn read_gguf(_: &GgufFields, config: &mut ModelConfig) -> Result<()> {
    slide(config, PERIOD);
    Ok(())
}

fn slide(config: &mut ModelConfig, period: usize) {
    if config.sliding_window.is_some() {
        config.slide_but_every(period);
        config.style.rotates_only_sliding = true;
    }
}
