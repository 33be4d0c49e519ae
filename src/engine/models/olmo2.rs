//! OLMo 2 (arXiv:2501.00656): norms after both parts, and of all queries and all keys together.

use super::architecture::{Architecture, Defaults, Gguf, PLAIN};
use super::olmo3;
use crate::engine::config::style::{self, Placement, QkNorm, Style};
use crate::engine::config::{GgufFields, ModelConfig, Rope, RopeScaling};
use crate::error::Result;

pub const ARCHITECTURE: Architecture = Architecture {
    name: "olmo2",
    model_types: &["olmo2"],
    style: STYLE,
    defaults: Defaults { norm_eps: 1e-5, ..Defaults::PLAIN },
    gguf: GGUF,
    ..PLAIN
};

pub const STYLE: Style = Style { placement: Placement::After, qk_norm: Some(QkNorm::Whole), ..style::PLAIN };
/// OLMo 3's too.
pub const GGUF: Option<Gguf> = Some(Gguf { names: &["olmo2"], interleaved: false, read: read_gguf });

/// Only OLMo 3 slides, and then without the stretched rope.
fn read_gguf(_: &GgufFields, config: &mut ModelConfig) -> Result<()> {
    if config.sliding_window.is_some() {
        let plain = Rope { scaling: RopeScaling::Default, magnitude: 1.0, ..config.rope.clone() };
        config.local_rope = Some(plain);
        config.slide_but_every(olmo3::PERIOD);
    }
    Ok(())
}
