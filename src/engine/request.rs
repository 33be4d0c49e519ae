//! What a caller asks of the engine.

use serde::{Deserialize, Serialize};

use crate::engine::cache::CacheOptions;

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
}

/// How the next token is chosen. The default is greedy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SamplingOptions {
    /// 0 is greedy: the most likely token, always.
    pub temperature: f32,
    /// Keep the k most likely tokens; 0 keeps all.
    pub top_k: usize,
    /// Keep the smallest set of tokens with at least this probability; 1 keeps all.
    pub top_p: f32,
    /// Drop tokens less likely than this share of the most likely one; 0 drops none.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of recent tokens (CTRL, arXiv:1909.05858); 1 is off.
    pub repetition_penalty: f32,
    /// How many of the last tokens the penalty looks at.
    pub repetition_window: usize,
    /// The same seed gives the same text on the same device.
    pub seed: u64,
}

impl SamplingOptions {
    /// Whether the next token is simply the most likely one, so that the device can choose it.
    #[allow(clippy::float_cmp)] // Exactly 1 is off; anything else, however near, is not.
    pub fn is_plain_greedy(&self) -> bool {
        self.temperature <= 0.0 && self.repetition_penalty == 1.0
    }
}

impl Default for SamplingOptions {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            repetition_window: 64,
            seed: 0,
        }
    }
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
    /// `None`: until the model ends its turn or the context is full.
    pub max_tokens: Option<usize>,
    pub sampling: SamplingOptions,
    /// Generation ends before the first of these texts; it is not part of the answer.
    pub stop: Vec<String>,
}
