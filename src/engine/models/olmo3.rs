//! OLMo 3: OLMo 2 whose layers slide but every fourth, and only those have a stretched rope.

use super::architecture::{Architecture, Defaults, PLAIN};
use super::olmo2;
use crate::engine::config::ModelConfig;
use crate::engine::config::fields::Fields;
use crate::error::Result;

pub const ARCHITECTURE: Architecture = Architecture {
    name: "olmo3",
    model_types: &["olmo3"],
    style: olmo2::STYLE,
    defaults: Defaults {
        norm_eps: 1e-5,
        theta: 500_000.0,
        local_theta: Some(500_000.0),
        window: Some(4096),
        ..Defaults::PLAIN
    },
    read,
    gguf: olmo2::GGUF,
    ..PLAIN
};

pub const PERIOD: usize = 4;

fn read(_: &Fields, config: &mut ModelConfig) -> Result<()> {
    config.slide_but_every(PERIOD);
    Ok(())
}
