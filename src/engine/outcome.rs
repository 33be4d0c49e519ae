//! What the engine answers.

use serde::Serialize;

/// Progress of one generation, in order: `Prompt`, `Prefill`…, `Reasoning`…, `Text`….
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The prompt as the model sees it, once, before any computing.
    Prompt { text: String, tokens: usize, cached_tokens: usize },
    /// Tokens of the prompt computed so far, of those to be computed.
    Prefill { done: usize, total: usize },
    /// The next piece of what the model thinks before it answers.
    Reasoning(String),
    /// The next piece of the answer: whole characters only, never part of a stop text.
    Text(String),
}

/// Why generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FinishReason {
    /// The model ended its turn, a stop text came, or the format is complete.
    Stop,
    /// The token limit or the end of the context came first.
    Length,
    /// The caller asked to stop.
    Interrupted,
}

/// How likely a generated token was, by the model's own logits: before bias, penalties and cuts.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct TokenLogprob {
    /// The token's id.
    pub id: u32,
    /// Its text; a token that is part of a character has U+FFFD.
    pub text: String,
    /// The natural logarithm of its probability; 0 if the format left no choice.
    pub logprob: f64,
    /// The most likely tokens in its place, the likeliest first.
    pub alternatives: Vec<Alternative>,
}

/// A token that could have come.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Alternative {
    /// The token's id.
    pub id: u32,
    /// Its text.
    pub text: String,
    /// The natural logarithm of its probability.
    pub logprob: f64,
}

/// Counts of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, schemars::JsonSchema)]
pub struct Usage {
    /// Tokens of the prompt, cached ones included.
    pub prompt_tokens: usize,
    /// Tokens of the prompt that were still in the cache and needed no computing.
    pub cached_tokens: usize,
    /// Tokens of the answer, without the one that ended the turn.
    pub generated_tokens: usize,
    /// Tokens that were guessed in advance, with `--draft` or `--draft-model`.
    pub drafted_tokens: usize,
    /// Those of them that the model chose itself.
    pub accepted_tokens: usize,
}

/// How drafts did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Drafts {
    /// Tokens that were guessed.
    pub drafted: usize,
    /// Those of them that the model chose itself.
    pub accepted: usize,
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
    /// What the model thought before it answered, without its tags; empty if it did not.
    pub reasoning: String,
    /// Generated token ids, without the one that ended the turn.
    pub tokens: Vec<u32>,
    /// For each of the tokens, if they were asked for.
    pub logprobs: Vec<TokenLogprob>,
    pub finish_reason: FinishReason,
    pub usage: Usage,
    pub timings: Timings,
    /// Largest memory in bytes: MLX's allocations, the process's resident peak.
    pub peak_bytes: u64,
}
