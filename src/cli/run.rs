//! `mlx-cache run`

use std::path::PathBuf;

use clap::{Args, ValueHint};

use crate::engine::cache::KV_BITS;
use crate::engine::request::{Bias, DeviceChoice};
use crate::settings::value::{parse_bytes, parse_device, parse_threads};

/// Answer a prompt, or chat
///
/// With a prompt, as an argument or on standard input, the answer is streamed to standard output.
/// With both, the argument comes first, then a blank line, then the text from standard input:
///
///     git diff | mlx-cache run smollm2 "Write a commit message for this change:"
///
/// Without a prompt on a terminal, a chat begins; /help in it lists its commands.
///
///     mlx-cache run smollm2 "Three colours, as a list" --format json | jq .
///     mlx-cache run qwen3 "Is 91 prime?" --no-think --temp 0
///     mlx-cache run smollm2 "Name a village" --samples 5 --seed 1
///     mlx-cache run smollm2 --batch questions.jsonl | jq -r .text
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct RunArgs {
    /// The model: a name, an unambiguous part of one, or a path
    ///
    /// The first argument is always the model; without it, the default model runs, or the only one that
    /// generates text
    #[arg(value_hint = ValueHint::AnyPath)]
    pub model: Option<String>,

    /// What to answer; `-` is the text on standard input
    pub prompt: Option<String>,

    /// System message, which tells the model how to answer
    #[arg(long, value_name = "TEXT", conflicts_with = "raw")]
    pub system: Option<String>,

    /// Give the prompt to the model as it is, without its chat template
    #[arg(long)]
    pub raw: bool,

    /// Most tokens of the answer [default: until the model ends it or the context is full]
    #[arg(long, short = 'n', value_name = "N", allow_negative_numbers = true)]
    pub max_tokens: Option<usize>,

    /// End the answer before this text; can be given several times
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub stop: Vec<String>,

    /// Print each event as a line of JSON while it happens; the last line is what --json prints
    #[arg(long)]
    pub stream_json: bool,

    /// Pull the model without asking if it is not on this machine
    #[arg(long, short)]
    pub yes: bool,

    /// Hold the answer to a format: `json`, or a file with a JSON schema. The answer is valid whatever
    /// the model and the temperature
    #[arg(long, value_name = "json|FILE", value_hint = ValueHint::FilePath, conflicts_with = "stop")]
    pub format: Option<String>,

    #[command(flatten)]
    pub batch: BatchArgs,

    #[command(flatten)]
    pub template: TemplateArgs,

    #[command(flatten)]
    pub sampling: SamplingArgs,

    #[command(flatten)]
    pub speed: SpeedArgs,

    #[command(flatten)]
    pub engine: EngineArgs,
}

/// Many prompts in one run.
#[derive(Debug, Args)]
#[command(next_help_heading = "Batch")]
pub struct BatchArgs {
    /// Answer the prompts of a file, several at a time: a JSON object a line with a `prompt` or `messages`, and
    /// maybe an `id`, a `system` message and parameters such as `max_tokens`, `temp`, `seed` or `stop`, which
    /// go before the flags. Results come as JSON lines in the same order; `-` reads standard input
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath,
        conflicts_with_all = ["prompt", "stream_json", "prompt_cache", "draft", "draft_model", "samples"])]
    pub batch: Option<PathBuf>,

    /// Most prompts that are answered at a time, as far as memory allows [default: 8]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256), allow_negative_numbers = true)]
    pub batch_size: Option<u32>,

    /// Print each result as soon as it is there, not in the order of the prompts
    #[arg(long)]
    pub unordered: bool,
}

/// What is computed in advance or not again.
#[derive(Debug, Args)]
#[command(next_help_heading = "Speed")]
pub struct SpeedArgs {
    /// Go on from what this file remembers of a prompt, if it is there, and keep it there for the next
    /// time: what begins with the same text is not computed again
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub prompt_cache: Option<PathBuf>,

    /// Guess tokens in advance, which the model checks several at a time: `lookup` takes what followed
    /// the same words before. The answer is the same
    #[arg(long, value_name = "lookup", value_parser = ["lookup"], conflicts_with = "draft_model")]
    pub draft: Option<String>,

    /// Guess with a smaller model that has the same tokens
    #[arg(long, value_name = "MODEL", value_hint = ValueHint::AnyPath)]
    pub draft_model: Option<String>,

    /// Most tokens that are guessed at once
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=32), allow_negative_numbers = true)]
    pub draft_tokens: u32,
}

/// What the chat template gets, and what is shown of the reasoning.
#[derive(Debug, Args)]
#[command(next_help_heading = "Chat template")]
pub struct TemplateArgs {
    /// Let the model reason before it answers, if its template has a switch for that
    #[arg(long, conflicts_with_all = ["no_think", "raw"])]
    pub think: bool,

    /// Have the model answer without reasoning
    #[arg(long, conflicts_with = "raw")]
    pub no_think: bool,

    /// Show the answer only, not the reasoning that comes before it on standard error
    #[arg(long)]
    pub hide_thinking: bool,

    /// Set a variable of the chat template; VALUE is read as JSON if it is JSON. Can be given several
    /// times
    #[arg(long, value_name = "NAME=VALUE", conflicts_with = "raw")]
    pub template_arg: Vec<String>,

    /// Tell the model of tools: a file with a JSON array of their definitions
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "raw")]
    pub tools: Option<PathBuf>,
}

/// How the next token is chosen.
#[derive(Debug, Args)]
#[command(next_help_heading = "Sampling")]
pub struct SamplingArgs {
    /// Randomness; 0 always takes the most likely token [default: 0.8]
    #[arg(long, visible_alias = "temperature", value_name = "T", allow_negative_numbers = true)]
    pub temp: Option<f64>,

    /// Choose among the K most likely tokens; 0 is all [default: 40]
    #[arg(long, value_name = "K", allow_negative_numbers = true)]
    pub top_k: Option<usize>,

    /// Choose among the likeliest tokens that have this probability together; 1 is all [default: 0.95]
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub top_p: Option<f64>,

    /// Leave out tokens below this share of the likeliest one's probability; 0 is off [default: 0.05]
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub min_p: Option<f64>,

    /// Choose among tokens of about the expected surprise that have this probability together; 1 is all
    /// [default: 1]
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub typical_p: Option<f64>,

    /// How often to leave out the likeliest tokens (XTC); 0 is never [default: 0]
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub xtc_probability: Option<f64>,

    /// From which probability on XTC leaves a token out, if a less likely one has it too [default: 0.1]
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub xtc_threshold: Option<f64>,

    /// Hold the surprise near this many bits (Mirostat 2), in place of all cuts; 0 is off [default: 0]
    #[arg(long, value_name = "BITS", allow_negative_numbers = true)]
    pub mirostat_tau: Option<f64>,

    /// How fast Mirostat follows [default: 0.1]
    #[arg(long, value_name = "RATE", allow_negative_numbers = true)]
    pub mirostat_eta: Option<f64>,

    /// Make recent tokens less likely; 1 is off [default: 1]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub repetition_penalty: Option<f64>,

    /// Take this from the logits of recent tokens; 0 is off [default: 0]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub presence_penalty: Option<f64>,

    /// Take this from the logits of recent tokens for each time they came; 0 is off [default: 0]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub frequency_penalty: Option<f64>,

    /// How many tokens are recent, the prompt's included [default: 64]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub repetition_window: Option<usize>,

    /// Add this to a token's logit, or `never` forbid it; can be given several times. TOKEN is an id or
    /// the text of one token; digits that are a text go in double quotes
    #[arg(long, value_name = "TOKEN=VALUE", allow_hyphen_values = true)]
    pub logit_bias: Vec<Bias>,

    /// Seed of the random numbers: the same seed gives the same text [default: a new one each time]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub seed: Option<u64>,

    /// Make this many answers, each with a seed of its own: the first one's plus 1, 2, …
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000), allow_negative_numbers = true)]
    pub samples: u32,

    /// Tell the log probability of each token, and of the K likeliest in its place
    #[arg(long, value_name = "K", num_args = 0..=1, require_equals = true, default_missing_value = "0", value_parser = clap::value_parser!(u32).range(0..=100))]
    pub logprobs: Option<u32>,
}

/// How the model is loaded.
#[derive(Debug, Args)]
#[command(next_help_heading = "Engine")]
pub struct EngineArgs {
    /// Tokens of prompt and answer to have room for [default: the model's own, as far as memory allows]
    #[arg(long, short = 'c', value_name = "N", allow_negative_numbers = true)]
    pub context: Option<usize>,

    /// Most tokens that attention looks back at, beside the first 4: memory stays the same however long
    /// the text becomes [default: all]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub max_kv_size: Option<usize>,

    /// Bits of the keys and values of past tokens: 32 keeps them as they are computed, 16 as half floats, which
    /// attention reads in less time, 8 and 4 pack them, which takes the least memory
    #[arg(long, value_name = "BITS", default_value_t = KV_BITS, allow_negative_numbers = true)]
    pub kv_bits: usize,

    /// Elements that are packed into 4 or 8 bits with one scale: 32, 64 or 128 [default: 64]
    #[arg(long, value_name = "N", requires = "kv_bits", allow_negative_numbers = true)]
    pub kv_group_size: Option<usize>,

    /// Pack once there are so many tokens, and keep them as they are before [default: 0]
    #[arg(long, value_name = "N", requires = "kv_bits", allow_negative_numbers = true)]
    pub kv_start: Option<usize>,

    /// Quantize the weights of an original model while it is loaded: 2, 3, 4, 5, 6 or 8 bits, or mxfp4, mxfp8
    /// or nvfp4. The result is what mlx_lm.convert writes, and is not kept
    #[arg(long, value_name = "BITS")]
    pub quantize: Option<String>,

    /// Weights that share a scale: 32, 64 or 128 [default: 64]
    #[arg(long, value_name = "N", requires = "quantize", allow_negative_numbers = true)]
    pub quantize_group_size: Option<usize>,

    /// Where to compute: auto, gpu or cpu
    #[arg(long, value_name = "DEVICE", value_parser = parse_device)]
    pub device: Option<DeviceChoice>,

    /// Threads that compute on the CPU [default: the physical cores]
    #[arg(long, value_name = "N", value_parser = parse_threads, allow_negative_numbers = true)]
    pub threads: Option<usize>,

    /// First tokens of the prompt that stay in sight beside the last ones with --max-kv-size
    #[arg(long, value_name = "N", requires = "max_kv_size", default_value_t = 4)]
    pub keep: usize,

    /// Add a LoRA adapter to the weights: the folder that mlx-lm or PEFT has saved it in
    #[arg(long, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub adapter: Option<PathBuf>,

    /// Most memory for the model and its cache, such as 8GB [default: what is free]
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    pub memory_limit: Option<u64>,

    /// Run although memory seems too small
    #[arg(long)]
    pub force: bool,
}
