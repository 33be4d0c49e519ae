//! The report of `run`, and the events of `run --stream-json`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Data, ErrorReport};
use crate::engine::outcome::{FinishReason, Generation, TokenLogprob, Usage};
use crate::engine::request::{Bias, SamplingOptions};

/// An answer, or those of a batch.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(untagged)]
#[allow(clippy::large_enum_variant)] // There is one of them in a process.
pub enum RunData {
    Answer(RunReport),
    Batch(BatchReport),
}

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
    /// The most that was expected before loading, with the context full and, of a batch, all caches in use.
    pub estimate_bytes: u64,
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

/// What `run --batch` answered.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct BatchReport {
    /// The model that answered.
    pub model: String,
    /// The results, in the order in which they are printed without `--json`; empty there.
    pub results: Vec<BatchResult>,
    /// How many prompts there were.
    pub count: u64,
    /// Those of them that have an error in the place of an answer.
    pub failed: u64,
    /// Tokens of all prompts that were answered.
    pub prompt_tokens: u64,
    /// Tokens of all answers.
    pub generated_tokens: u64,
    /// Seconds of loading the model.
    pub load_s: f64,
    /// Seconds from then on to the last answer.
    pub total_s: f64,
    /// Tokens of all answers a second of that time, in which prompts are computed too.
    pub generated_tokens_per_s: f64,
    /// Memory that the run took.
    pub memory: MemoryReport,
}

/// The result of a line of `run --batch`: an answer, or an error.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct BatchResult {
    /// The line of its prompt, counted from 1.
    pub line: u64,
    /// The line's own name, if it has one.
    pub id: Option<BatchId>,
    /// The answer, without the stop text that ended it; null after an error.
    pub text: Option<String>,
    /// What the model thought before it answered, if it did and that is not hidden.
    pub reasoning: Option<String>,
    /// Why the answer ended; null after an error.
    pub finish_reason: Option<FinishReason>,
    /// How likely each token was, with `--logprobs`.
    pub logprobs: Vec<TokenLogprob>,
    /// Counts of tokens.
    pub usage: Usage,
    /// The seed of its random numbers: with the same one `run` gives the same text by itself.
    pub seed: u64,
    /// What was wrong with this prompt.
    pub error: Option<ErrorReport>,
}

/// What a line of a batch calls itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum BatchId {
    Number(i64),
    Text(String),
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

impl Data for RunData {
    fn exit_status(&self) -> u8 {
        match self {
            Self::Answer(_) => 0,
            Self::Batch(batch) => u8::from(batch.failed > 0),
        }
    }
}
