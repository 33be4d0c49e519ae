//! What is an architecture's own: how its blocks look, how its checkpoints name things, and what its
//! configurations leave out.

use crate::engine::config::fields::Fields;
use crate::engine::config::style::{self, Style};
use crate::engine::config::{GgufFields, Latent, ModelConfig};
use crate::engine::models::names::{self, Names};
use crate::error::Result;

/// One architecture. Everything else about it is in the shared decoder.
pub struct Architecture {
    /// The first of its `model_type`s.
    pub name: &'static str,
    /// `model_type` values of config.json.
    pub model_types: &'static [&'static str],
    /// Whether it is a mixture of experts.
    pub sparse: bool,
    /// Whether there are models of it without experts as well, of the same name in GGUF files.
    pub also_dense: bool,
    pub style: Style,
    pub names: Names,
    pub defaults: Defaults,
    /// Reads what config.json says beyond the common fields.
    pub read: fn(&Fields, &mut ModelConfig) -> Result<()>,
    pub gguf: Option<Gguf>,
    pub on_load: OnLoad,
}

/// What is not as in the other matrices where a model is quantized while it is loaded: as mlx-lm's
/// converter has it (`quant_predicate` of its models, 0.32.2). Ends of module names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnLoad {
    /// Packed in 8 bits and groups of 64.
    pub precise: &'static [&'static str],
    /// Not packed at all.
    pub whole: &'static [&'static str],
}

/// An architecture in GGUF files.
pub struct Gguf {
    /// `general.architecture` values. Of architectures with the same ones, the first reads the files of all.
    pub names: &'static [&'static str],
    /// Rotated pairs are neighbours there.
    pub interleaved: bool,
    /// Reads what the metadata says beyond the common keys.
    pub read: fn(&GgufFields, &mut ModelConfig) -> Result<()>,
}

/// What transformers takes for what a config.json leaves out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Defaults {
    pub norm_eps: f64,
    pub theta: f64,
    /// Base of the layers with a sliding window, where it is another.
    pub local_theta: Option<f64>,
    /// The part of a head that is rotated.
    pub partial: f64,
    pub context: usize,
    pub heads: Option<usize>,
    /// `None`: as many as heads.
    pub kv_heads: Option<usize>,
    /// `None`: the hidden size divided among the heads.
    pub head_dim: Option<usize>,
    pub vocabulary: Option<usize>,
    /// Inner size of the feed-forward block.
    pub intermediate: Option<usize>,
    pub tied: bool,
    /// Whether there is a sliding window if none is said.
    pub window: Option<usize>,
    /// Sizes of attention over latents, where the architecture has that.
    pub latent: Option<Latent>,
}

impl Defaults {
    /// Llama's.
    pub const PLAIN: Self = Self {
        norm_eps: 1e-6,
        theta: 10_000.0,
        local_theta: None,
        partial: 1.0,
        context: 2048,
        heads: None,
        kv_heads: None,
        head_dim: None,
        vocabulary: None,
        intermediate: None,
        tied: false,
        window: None,
        latent: None,
    };
}

/// Llama's; what others differ in, they say.
pub const PLAIN: Architecture = Architecture {
    name: "llama",
    model_types: &[],
    sparse: false,
    also_dense: false,
    style: style::PLAIN,
    names: names::PLAIN,
    defaults: Defaults::PLAIN,
    read: nothing_more,
    gguf: None,
    on_load: OnLoad { precise: &[], whole: &[] },
};

pub fn nothing_more(_: &Fields, _: &mut ModelConfig) -> Result<()> {
    Ok(())
}

/// Nothing beyond the common keys of a GGUF.
pub fn no_more_keys(_: &GgufFields, _: &mut ModelConfig) -> Result<()> {
    Ok(())
}

impl std::fmt::Debug for Architecture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Architecture({})", self.name)
    }
}

impl PartialEq for Architecture {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}
