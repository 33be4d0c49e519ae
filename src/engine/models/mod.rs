//! One architecture a file, named as `model_type` in config.json names it. A file only says what is
//! its own: which parts of [`layers`](super::layers) it is made of, and where their weights lie.

mod llama;

use mlx_rs::{Array, Dtype, transforms};

use crate::engine::cache::{CacheShape, KvCache};
use crate::engine::config::Architecture;
use crate::engine::format::checkpoint::Checkpoint;
use crate::engine::layers::{Backend, Loader};
use crate::error::Result;

/// Which positions' logits are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logits {
    /// Of every position: `[L, vocabulary]`.
    All,
    /// Of the last position: `[1, vocabulary]`.
    Last,
    /// None: the step only fills the cache.
    None,
}

/// A language model with its weights in memory. Bound to the thread that loaded it.
pub trait LanguageModel {
    /// Appends `tokens [L] int32` to the cache and gives logits in the compute type (lazily).
    /// The result is `None` for [`Logits::None`].
    fn forward(&self, tokens: &Array, cache: &mut KvCache, logits: Logits) -> Result<Option<Array>>;

    /// Sizes of the cache that `forward` works on.
    fn cache_shape(&self) -> CacheShape;

    /// Every weight, to be evaluated at load.
    fn arrays(&self) -> Vec<&Array>;
}

/// Loads and evaluates the weights. After a failed evaluation MLX reports a second one of the same
/// array as a success, so that everything is computed here once and thrown away on any error.
/// `progress` gets (done, total) bytes of weights.
pub fn load(
    checkpoint: &Checkpoint,
    backend: Backend,
    dtype: Dtype,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Box<dyn LanguageModel>> {
    let loader = Loader::new(checkpoint, backend, dtype, progress);
    let config = &checkpoint.config;
    let model: Box<dyn LanguageModel> = match config.architecture {
        Architecture::Llama => Box::new(llama::Llama::load(&loader, config)?),
    };
    transforms::eval(model.arrays())?;
    Ok(model)
}
