//! What the engine answers.

use serde::Serialize;

/// Progress of one generation, in order: `Prompt`, `Prefill`…, `Text`….
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The prompt as the model sees it, once, before any computing.
    Prompt { text: String, tokens: usize, cached_tokens: usize },
    /// Tokens of the prompt computed so far, of those to be computed.
    Prefill { done: usize, total: usize },
    /// The next piece of the answer: whole characters only, never part of a stop text.
    Text(String),
}

/// Why generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FinishReason {
    /// The model ended its turn, or a stop text came.
    Stop,
    /// The token limit or the end of the context came first.
    Length,
    /// The caller asked to stop.
    Interrupted,
}

/// Counts of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, schemars::JsonSchema)]
pub struct Usage {
    /// Tokens of the prompt, cached ones included.
    pub prompt_tokens: usize,
    /// Tokens of the prompt that were still in the cache from the turn before.
    pub cached_tokens: usize,
    /// Tokens of the answer, without the one that ended the turn.
    pub generated_tokens: usize,
}

/// Durations in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, schemars::JsonSchema)]
pub struct Timings {
    /// From the request to the first token.
    pub ttft_s: f64,
    /// Computed prompt tokens (without cached ones) per second; 0 if there were none.
    pub prompt_tokens_per_s: f64,
    /// Generated tokens after the first, per second; 0 if there was at most one.
    pub generation_tokens_per_s: f64,
    /// From the request to the end of the answer.
    pub total_s: f64,
}

/// A finished generation.
#[derive(Debug, Clone)]
pub struct Generation {
    /// The prompt as the model saw it.
    pub prompt: String,
    pub text: String,
    /// Generated token ids, without the one that ended the turn.
    pub tokens: Vec<u32>,
    pub finish_reason: FinishReason,
    pub usage: Usage,
    pub timings: Timings,
    /// Largest memory in bytes: MLX's allocations, the process's resident peak.
    pub peak_bytes: u64,
}
