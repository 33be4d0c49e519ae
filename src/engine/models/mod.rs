//! One architecture a file, named as `model_type` in config.json names it. A file only says what is
//! its own: how its blocks look, how its checkpoints name things, what its configurations leave out.
//! [`decoder`] is what all of them are built by.

// Readers of configurations share one signature, whether they can fail or not.
#![allow(clippy::unnecessary_wraps)]

pub mod architecture;
mod cohere;
mod cohere2;
mod decoder;
mod deepseek_v2;
mod deepseek_v3;
mod ernie4_5;
mod exaone4;
mod gemma;
mod gemma2;
mod gemma3;
mod gemma4;
mod glm4;
mod glm4_moe;
mod glm4_moe_lite;
mod gpt_oss;
mod granite;
mod granitemoe;
mod granitemoehybrid;
mod hunyuan_v1_dense;
mod lfm2;
mod llama;
mod mamba2;
mod ministral3;
mod mistral;
mod mixtral;
pub mod names;
mod nemotron_h;
mod olmo2;
mod olmo3;
mod phi;
mod phi3;
mod qwen2;
mod qwen2_moe;
mod qwen3;
mod qwen3_5;
mod qwen3_5_moe;
mod qwen3_moe;
mod qwen3_next;
mod seed_oss;
mod smollm3;
mod stablelm;
mod starcoder2;
mod states;

use mlx_rs::{Array, Dtype, transforms};
use serde_json::{Map, Value};

pub use architecture::{Architecture, Defaults, Gguf, OnLoad};
pub use states::{StateModel, longest as longest_text};

pub use crate::engine::layers::step::{Logits, Sequence};

use crate::engine::cache::{CacheShape, KvCache};
use crate::engine::format::adapter::Adapter;
use crate::engine::format::checkpoint::Checkpoint;
use crate::engine::layers::{Backend, Loader};
use crate::error::{Error, Result};

/// Every architecture that the engine has.
pub static ARCHITECTURES: &[Architecture] = &[
    llama::ARCHITECTURE,
    mistral::ARCHITECTURE,
    ministral3::ARCHITECTURE,
    mixtral::ARCHITECTURE,
    qwen2::ARCHITECTURE,
    qwen2_moe::ARCHITECTURE,
    qwen3::ARCHITECTURE,
    qwen3_moe::ARCHITECTURE,
    qwen3_next::ARCHITECTURE,
    qwen3_5::ARCHITECTURE,
    qwen3_5_moe::ARCHITECTURE,
    gemma::ARCHITECTURE,
    gemma2::ARCHITECTURE,
    gemma3::ARCHITECTURE,
    gemma4::ARCHITECTURE,
    phi::ARCHITECTURE,
    phi3::ARCHITECTURE,
    smollm3::ARCHITECTURE,
    olmo2::ARCHITECTURE,
    olmo3::ARCHITECTURE,
    granite::ARCHITECTURE,
    granitemoe::ARCHITECTURE,
    starcoder2::ARCHITECTURE,
    stablelm::ARCHITECTURE,
    cohere::ARCHITECTURE,
    cohere2::ARCHITECTURE,
    gpt_oss::ARCHITECTURE,
    glm4::ARCHITECTURE,
    glm4_moe::ARCHITECTURE,
    deepseek_v3::ARCHITECTURE,
    deepseek_v2::ARCHITECTURE,
    glm4_moe_lite::ARCHITECTURE,
    exaone4::ARCHITECTURE,
    ernie4_5::ARCHITECTURE,
    seed_oss::ARCHITECTURE,
    hunyuan_v1_dense::ARCHITECTURE,
    lfm2::ARCHITECTURE,
    mamba2::ARCHITECTURE,
    granitemoehybrid::ARCHITECTURE,
    nemotron_h::ARCHITECTURE,
];

/// The architecture of a `model_type` of config.json.
pub fn of_type(model_type: &str) -> Option<&'static Architecture> {
    ARCHITECTURES.iter().find(|architecture| architecture.model_types.contains(&model_type))
}

/// Types of multimodal models that say in `text_config` what their text part is.
pub static WRAPPERS: &[&str] = &["mistral3", "llava", "pixtral", "kimi_vl", "lfm2_vl", "lfm2-vl"];

/// The `model_type` of a config.json, or that of its text part where that tells.
pub fn text_type(config: &Map<String, Value>) -> Option<&str> {
    let model_type = config.get("model_type")?.as_str()?;
    let inner = config.get("text_config").filter(|_| WRAPPERS.contains(&model_type));
    inner.and_then(|inner| inner.get("model_type")?.as_str()).or(Some(model_type))
}

/// The architecture of a config.json.
pub fn of_config(config: &Map<String, Value>) -> Option<&'static Architecture> {
    of_type(text_type(config)?)
}

/// The architecture of a GGUF file, which may have the same name for a mixture of experts.
pub fn of_gguf(name: &str, sparse: bool) -> Option<(&'static Architecture, &'static Gguf)> {
    let fits = |it: &&Architecture| it.sparse == sparse || it.also_dense;
    let known = ARCHITECTURES.iter().filter(fits);
    known
        .filter_map(|architecture| Some((architecture, architecture.gguf.as_ref()?)))
        .find(|(_, gguf)| gguf.names.contains(&name))
}

/// Every `model_type` that config.json may name.
pub fn types() -> Vec<&'static str> {
    ARCHITECTURES.iter().flat_map(|architecture| architecture.model_types).copied().collect()
}

/// Every architecture that a GGUF file may name.
pub fn gguf_types() -> Vec<&'static str> {
    let mut names: Vec<_> =
        ARCHITECTURES.iter().filter_map(|it| it.gguf.as_ref()).flat_map(|it| it.names).copied().collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Types whose names are near this one, nearest first.
pub fn nearest(model_type: &str) -> Vec<&'static str> {
    const NEAR: f64 = 0.75;
    const SHOWN: usize = 4;
    let likeness = |known: &str| strsim::jaro_winkler(model_type, known);
    let mut near: Vec<_> = types().into_iter().filter(|known| likeness(known) >= NEAR).collect();
    near.sort_by(|a, b| likeness(b).total_cmp(&likeness(a)));
    near.truncate(SHOWN);
    near
}

/// A language model with its weights in memory. Bound to the thread that loaded it.
pub trait LanguageModel {
    /// Appends `tokens [L] int32`, those of one sequence after those of another, to the sequences' caches and
    /// gives the wanted logits in the compute type (lazily), `[R, vocabulary]`; `None` if none are wanted.
    fn forward_together(&self, tokens: &Array, sequences: &mut [Sequence]) -> Result<Option<Array>>;

    /// The same for one sequence. The result is `None` for [`Logits::None`].
    fn forward(&self, tokens: &Array, cache: &mut KvCache, logits: Logits) -> Result<Option<Array>> {
        self.forward_together(tokens, &mut [Sequence { tokens: tokens.size(), cache, logits }])
    }

    /// The same where there are to be logits.
    fn logits(&self, tokens: &Array, cache: &mut KvCache, wanted: Logits) -> Result<Array> {
        self.forward(tokens, cache, wanted)?.ok_or_else(|| Error::internal("a step without logits"))
    }

    /// Sizes of the caches that it works on.
    fn cache_shape(&self) -> &CacheShape;

    /// Every weight, to be evaluated at load.
    fn arrays(&self) -> Vec<&Array>;
}

/// Loads and evaluates the weights. After a failed evaluation MLX reports a second one of the same
/// array as a success, so that everything is computed here once and thrown away on any error.
/// `context` is how many tokens generation may not pass; `progress` gets (done, total) bytes of weights.
pub fn load(
    checkpoint: &Checkpoint,
    backend: Backend,
    dtype: Dtype,
    context: usize,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Box<dyn LanguageModel>> {
    load_adapted(checkpoint, None, backend, dtype, context, progress)
}

/// The same, with what an adapter adds to the weights.
///
/// # Errors
/// Also INVALID_REQUEST when the adapter does not fit the model.
pub fn load_adapted(
    checkpoint: &Checkpoint,
    adapter: Option<&Adapter>,
    backend: Backend,
    dtype: Dtype,
    context: usize,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Box<dyn LanguageModel>> {
    let loader = Loader::new(checkpoint, backend, dtype, context, progress).with_adapter(adapter);
    let model = decoder::Decoder::load(&loader, &checkpoint.config)?;
    loader.check_adapted()?;
    transforms::eval(model.arrays())?;
    Ok(Box::new(model))
}
