//! Texts to vectors: tokens, an encoder, pooling and what follows it, as the model's own files say.
//!
//! One thread owns the encoder and every MLX value; tokens are made by whoever calls, on any thread.

mod dense;
mod modules;
mod pooling;
pub mod session;
mod states;
mod text;

use std::path::Path;

pub use modules::{Prompt, Warning};
pub use pooling::Pooling;
pub use session::{Embedded, Embedder};
pub use states::{StateFiles, States};
pub use text::{TextEncoder, Tokens, Truncate};

use crate::error::Result;

/// Whether the pipeline that a folder describes is one that is known; nothing is loaded.
pub fn check_pipeline(folder: &Path) -> Result<()> {
    modules::Pipeline::read(folder, &EmbedOptions::default()).map(drop)
}

/// What of a model's own ways is to be done otherwise.
#[derive(Debug, Clone, Default)]
pub struct EmbedOptions {
    /// What is put before every text.
    pub prompt: Prompt,
    /// How tokens become one vector; `None`: as the model's files say.
    pub pooling: Option<Pooling>,
    /// Keep only the first of a vector's numbers; `None`: all.
    pub dimensions: Option<usize>,
    /// Whether vectors have the length 1; `None`: as the model's files say.
    pub normalize: Option<bool>,
    /// What becomes of texts that are too long.
    pub truncate: Truncate,
    /// Longest text in tokens; `None`: as the model's files say.
    pub max_tokens: Option<usize>,
    /// Most texts that are computed together; `None`: as many as their tokens allow.
    pub batch_size: Option<usize>,
    /// Bytes of each text that is to come; `None`: who knows how many there are.
    pub lengths: Option<Vec<usize>>,
}
