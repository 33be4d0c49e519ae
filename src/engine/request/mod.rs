//! What a caller asks of the engine.

mod format;
mod sampling;
mod template;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use self::format::Format;
pub use self::sampling::{Bias, BiasedToken, SamplingOptions};
pub use self::template::TemplateArguments;
use crate::engine::cache::CacheOptions;
use crate::engine::config::Packing;

/// Where to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceChoice {
    /// The GPU where there is one, else the CPU.
    #[default]
    Auto,
    /// The GPU; an error where there is none.
    Gpu,
    Cpu,
}

/// How to load a model.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    pub device: DeviceChoice,
    /// Context in tokens that the memory gate counts with and generation may not pass;
    /// `None`: the model's own, as far as memory allows.
    pub context: Option<usize>,
    /// Bytes that weights and cache may take; `None`: what the machine has free.
    pub memory_limit: Option<u64>,
    /// Load even if the memory gate refuses.
    pub force: bool,
    /// Threads for the CPU kernels; `None`: the physical cores.
    pub threads: Option<usize>,
    pub cache: CacheOptions,
    /// How the weights of an original model are packed while they are loaded; `None`: they stay as they are.
    pub quantize: Option<Packing>,
    /// Folder of a LoRA adapter to the weights.
    pub adapter: Option<PathBuf>,
    /// How tokens are guessed in advance, if they are.
    pub draft: Option<DraftOptions>,
    /// Most sequences that are answered at a time; `None`: one.
    pub sequences: Option<usize>,
}

/// How tokens are guessed in advance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DraftOptions {
    /// A smaller model with the same tokens; `None`: what followed the same words before.
    pub model: Option<PathBuf>,
    /// Most tokens that are guessed at once.
    pub most: usize,
}

/// One turn of a conversation, as chat templates know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user`, `assistant` or what else the template knows.
    pub role: String,
    pub content: String,
}

impl Message {
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into() }
    }
}

/// What to continue.
#[derive(Debug, Clone)]
pub enum Prompt {
    /// The text as it is, without a template.
    Raw(String),
    /// Turns to be rendered by the model's chat template; without a template, the contents of the
    /// turns joined by blank lines.
    Chat(Vec<Message>),
}

/// One generation.
#[derive(Debug, Clone)]
pub struct GenerateRequest {
    pub prompt: Prompt,
    /// What the chat template gets beside the turns.
    pub template: TemplateArguments,
    /// What the answer must be, after the reasoning if the prompt begins one.
    pub format: Option<Format>,
    /// `None`: until the model ends its turn or the context is full.
    pub max_tokens: Option<usize>,
    pub sampling: SamplingOptions,
    /// Single tokens that are to be more or less likely.
    pub logit_bias: Vec<Bias>,
    /// Tell the log probability of each generated token and of so many alternatives to it.
    pub logprobs: Option<usize>,
    /// Generation ends before the first of these texts; it is not part of the answer.
    pub stop: Vec<String>,
}

impl GenerateRequest {
    /// The most likely answer to this prompt, however long it gets.
    pub fn new(prompt: Prompt) -> Self {
        Self {
            prompt,
            template: TemplateArguments::default(),
            format: None,
            max_tokens: None,
            sampling: SamplingOptions::default(),
            logit_bias: Vec::new(),
            logprobs: None,
            stop: Vec::new(),
        }
    }
}
