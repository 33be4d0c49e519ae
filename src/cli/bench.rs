//! `mlx-cache bench`

use clap::{Args, ValueEnum, ValueHint};

use super::run::EngineArgs;

/// Measure how fast models are on this machine
///
/// Each test is a number of tokens: pp512 computes a prompt of 512 tokens, tg128 generates 128 tokens one
/// by one, and @ d4096 stands for a cache that holds 4096 tokens already. Prompts are synthetic, nothing is
/// sampled, and no answer ends early, so results depend on nothing but the model and the machine. All
/// results are kept; what changed since is one flag away:
///
///     mlx-cache bench smollm2
///     mlx-cache bench smollm2 llama-3.2-1b -p 512,2048 -g 128 --format markdown
///     mlx-cache bench smollm2 --compare last --fail-on-regression 5%
///     mlx-cache bench smollm2 -p 0 --against-command 'llama-bench -m model.gguf -p 0 -n 128 -o md'
///     mlx-cache bench --history smollm2
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct BenchArgs {
    /// The models: names, parts of names that are unambiguous, or paths
    #[arg(value_hint = ValueHint::AnyPath, required_unless_present = "history")]
    pub models: Vec<String>,

    /// Lengths of prompts in tokens; 0 is none
    #[arg(long, short = 'p', value_name = "N,…", value_delimiter = ',', default_value = "512")]
    pub prompt_tokens: Vec<usize>,

    /// How many tokens to generate; 0 is none
    #[arg(long, short = 'g', value_name = "N,…", value_delimiter = ',', default_value = "128")]
    pub generate_tokens: Vec<usize>,

    /// Tokens that the cache holds before each test
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "0")]
    pub depth: Vec<usize>,

    /// How often each test is measured
    #[arg(long, short = 'r', value_name = "N", default_value = "5", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub repeat: u32,

    /// How often each test runs before, without being measured
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(0..=100))]
    pub warmup: u32,

    /// How to print the results
    #[arg(long, value_enum, default_value_t)]
    pub format: BenchFormat,

    /// Pull models that are missing without asking
    #[arg(long, short)]
    pub yes: bool,

    /// Do not keep the results
    #[arg(long)]
    pub no_save: bool,

    /// Show the results kept of this model, and measure nothing
    #[arg(long, value_name = "MODEL", conflicts_with_all = ["models", "compare", "against_command"])]
    pub history: Option<String>,

    #[command(flatten)]
    pub compare: CompareArgs,

    #[command(flatten)]
    pub engine: EngineArgs,
}

/// What the results are held against.
#[derive(Debug, Args)]
#[command(next_help_heading = "Comparison")]
pub struct CompareArgs {
    /// Compare with kept results: `last`, a number from --history, or a file that --json has written
    #[arg(long, value_name = "BASELINE", value_hint = ValueHint::FilePath)]
    pub compare: Option<String>,

    /// End with status 1 if a mean is worse than the baseline's by more than this and by more than the noise
    #[arg(long, value_name = "PERCENT", requires = "compare", value_parser = parse_percent)]
    pub fail_on_regression: Option<f64>,

    /// Measure another program in turn: a shell command that prints tokens per second
    #[arg(long, value_name = "CMD")]
    pub against_command: Vec<String>,

    /// Where the command's output tells tokens per second: a regular expression with one group, of which
    /// the last match counts
    #[arg(long, value_name = "REGEX", requires = "against_command", default_value = DEFAULT_PATTERN)]
    pub against_pattern: String,
}

/// A number before a unit of tokens per second, as llama.cpp, mlx_lm and Ollama print it.
pub const DEFAULT_PATTERN: &str = r"([0-9]+(?:\.[0-9]+)?)\s*(?:tok(?:en)?s?(?:/s|-per-sec| per second)|t/s)";

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum BenchFormat {
    #[default]
    Table,
    Markdown,
    Csv,
}

fn parse_percent(text: &str) -> Result<f64, String> {
    match text.trim().trim_end_matches('%').trim_end().parse::<f64>() {
        Ok(percent) if percent.is_finite() && (0.0..=1000.0).contains(&percent) => Ok(percent),
        _ => Err("expected a percentage such as 5%".to_owned()),
    }
}
