//! The report of `run`, and the events of `run --stream-json`.

use schemars::JsonSchema;
use serde::Serialize;

use super::Data;
use crate::engine::outcome::{FinishReason, Generation, TokenLogprob, Usage};
use crate::engine::request::{Bias, SamplingOptions};

/// One answer.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct RunReport {
    /// The model that answered.
    pub model: String,
    /// What was asked: the argument, the text from standard input, or both.
    pub prompt: String,
    /// The prompt as the model saw it, after its chat template.
    pub rendered_prompt: String,
    /// The answer, without the stop text that ended it.
    pub text: String,
    /// What the model thought before it answered, if it did and that is not hidden.
    pub reasoning: Option<String>,
    /// Why the answer ended.
    pub finish_reason: FinishReason,
    /// How likely each token was, with `--logprobs`.
    pub logprobs: Vec<TokenLogprob>,
    /// Counts of tokens.
    pub usage: Usage,
    /// The other answers of `--samples`.
    pub others: Vec<SampleReport>,
    /// Durations and speeds.
    pub timings: TimingsReport,
    /// Memory that the run took.
    pub memory: MemoryReport,
    /// How tokens were chosen; the same values give the same text on the same device.
    pub sampling: SamplingReport,
}

/// Another answer to the same prompt.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct SampleReport {
    /// The seed of its random numbers.
    pub seed: u64,
    /// The answer, without the stop text that ended it.
    pub text: String,
    /// What the model thought before it answered, if it did and that is not hidden.
    pub reasoning: Option<String>,
    /// Why the answer ended.
    pub finish_reason: FinishReason,
    /// How likely each token was, with `--logprobs`.
    pub logprobs: Vec<TokenLogprob>,
    /// Counts of tokens.
    pub usage: Usage,
}

/// Durations in seconds and speeds in tokens per second.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
pub struct TimingsReport {
    /// Loading the model.
    pub load_s: f64,
    /// From the request to the first token, with the model loaded.
    pub ttft_s: f64,
    /// Speed of computing the prompt, cached tokens left out.
    pub prompt_tokens_per_s: f64,
    /// Speed of generating, from the first token on.
    pub generation_tokens_per_s: f64,
    /// From the request to the end of the answer, with the model loaded.
    pub total_s: f64,
}

/// Memory in bytes.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
pub struct MemoryReport {
    /// The most that was in use at any time.
    pub peak_bytes: u64,
}

/// How the next token is chosen, with the seed, whether it was given or drawn.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct SamplingReport {
    #[serde(flatten)]
    pub options: SamplingOptions,
    /// Tokens made more or less likely.
    pub logit_bias: Vec<Bias>,
}

impl TimingsReport {
    pub fn new(load_s: f64, generation: &Generation) -> Self {
        let timings = generation.timings;
        Self {
            load_s,
            ttft_s: timings.ttft_s,
            prompt_tokens_per_s: timings.prompt_tokens_per_s,
            generation_tokens_per_s: timings.generation_tokens_per_s,
            total_s: timings.total_s,
        }
    }
}

/// One line of `--stream-json`; the envelope is the last line.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum RunEvent {
    /// Bytes of the model loaded so far.
    Load {
        /// Bytes that are in memory.
        done: u64,
        /// Bytes of the model.
        total: u64,
    },
    /// The prompt as the model sees it, before anything is computed.
    Prompt {
        /// After the chat template.
        text: String,
        /// Its tokens.
        tokens: usize,
        /// Those of them that need no computing.
        cached_tokens: usize,
    },
    /// Another of the answers of `--samples` begins.
    Sample {
        /// Its number, from 1 on.
        number: usize,
        /// The seed of its random numbers.
        seed: u64,
    },
    /// Tokens of the prompt computed so far.
    Prefill {
        /// Tokens that are computed.
        done: usize,
        /// Tokens that are to be computed.
        total: usize,
    },
    /// The next piece of what the model thinks before it answers.
    Reasoning {
        /// Whole characters, without the tags around it.
        text: String,
    },
    /// The next piece of the answer.
    Text {
        /// Whole characters, never part of a stop text.
        text: String,
    },
}

impl Data for RunReport {}
