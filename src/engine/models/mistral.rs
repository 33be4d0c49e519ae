//! Mistral (Jiang et al., 2023): Llama with a sliding window, which later releases left out.

use super::architecture::{Architecture, Defaults, PLAIN};
use super::llama;
use crate::engine::config::ModelConfig;
use crate::engine::config::fields::Fields;
use crate::error::Result;

pub const ARCHITECTURE: Architecture = Architecture {
    name: "mistral",
    model_types: &["mistral"],
    defaults: Defaults { context: 131_072, kv_heads: Some(8), window: Some(4096), ..Defaults::PLAIN },
    read: slides_if_it_can,
    gguf: llama::GGUF,
    ..PLAIN
};

/// Every layer slides if there is a window.
pub fn slides_if_it_can(_: &Fields, config: &mut ModelConfig) -> Result<()> {
    config.slide_all(config.sliding_window.is_some());
    Ok(())
}
