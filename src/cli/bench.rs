//! `mlx-cache bench`

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, ValueEnum, ValueHint};

use super::run::EngineArgs;

/// Measure how fast models are on this machine
///
/// Each test is a number of tokens: pp512 computes a prompt of 512 tokens, tg128 generates 128 tokens one
/// by one, and @ d4096 stands for a cache that holds 4096 tokens already. Of an embedding model emb32 makes
/// vectors of texts of 32 tokens, in tokens per second, and texts32 tells the same in texts. Prompts are
/// synthetic, nothing is sampled, and no answer ends early, so results depend on nothing but the model and
/// the machine. All results are kept; what changed since is one flag away:
///
///     mlx-cache bench smollm2
///     mlx-cache bench smollm2 llama-3.2-1b -p 512,2048 -g 128 --format markdown
///     mlx-cache bench smollm2 --compare last --fail-on-regression 5%
///     mlx-cache bench smollm2 -p 0 --against-command 'llama-bench -m model.gguf -p 0 -n 128 -o md'
///     mlx-cache bench smollm2 --against ollama:smollm2:135m --plot chart.svg --export results.csv
///     mlx-cache bench all-minilm -p 16,256
///     mlx-cache bench --history smollm2
///     mlx-cache bench --store
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct BenchArgs {
    /// The models: names, parts of names that are unambiguous, or paths
    #[arg(value_hint = ValueHint::AnyPath, required_unless_present_any = ["history", "store"])]
    pub models: Vec<String>,

    /// Lengths of prompts in tokens, or of texts to embed; 0 is none
    ///
    /// [default: 512; for an embedding model 8,32,128,256,512 as far as it takes them]
    #[arg(long, short = 'p', value_name = "N,…", value_delimiter = ',')]
    pub prompt_tokens: Vec<usize>,

    /// How many tokens to generate; 0 is none [default: 128]
    #[arg(long, short = 'g', value_name = "N,…", value_delimiter = ',')]
    pub generate_tokens: Vec<usize>,

    /// Tokens that the cache holds before each test [default: 0]
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    pub depth: Vec<usize>,

    /// How many sequences to compute at once [default: 1, or as many texts as make 4096 tokens]
    #[arg(long, value_name = "N,…", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub batch: Vec<u32>,

    /// How often each test is measured [default: 5]
    ///
    /// Unless it is given, all tests together end as soon as they would take more than 45 seconds, but not before each was
    /// measured twice.
    #[arg(long, short = 'r', value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub repeat: Option<u32>,

    /// How often each test runs before, without being measured
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(0..=100))]
    pub warmup: u32,

    /// How to print the results
    #[arg(long, value_enum, default_value_t)]
    pub format: BenchFormat,

    /// Write the results to a file as well: .json (what --json prints), .csv or .md
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath,
        value_parser = OsStringValueParser::new().try_map(parse_export))]
    pub export: Option<ExportFile>,

    /// Draw the results as a chart
    #[arg(long, value_name = "FILE.svg", value_hint = ValueHint::FilePath,
        value_parser = OsStringValueParser::new().try_map(parse_plot))]
    pub plot: Option<PathBuf>,

    /// Pull models that are missing without asking
    #[arg(long, short)]
    pub yes: bool,

    /// Do not keep the results
    #[arg(long)]
    pub no_save: bool,

    /// Show the results kept of this model, or of all, and measure nothing
    #[arg(long, value_name = "MODEL", num_args = 0..=1,
        conflicts_with_all = ["models", "compare", "against", "against_command"])]
    pub history: Option<Option<String>>,

    /// Measure the store's disk instead of models: hashing, copies, links, rows of the registry. The results
    /// are kept under the name `store`
    #[arg(long, conflicts_with_all = ["models", "history", "prompt_tokens", "generate_tokens", "depth", "batch", "yes",
        "against", "against_command", "EngineArgs"])]
    pub store: bool,

    #[command(flatten)]
    pub compare: CompareArgs,

    #[command(flatten)]
    pub engine: EngineArgs,
}

/// What the results are held against.
#[derive(Debug, Args)]
#[command(next_help_heading = "Comparison")]
pub struct CompareArgs {
    /// Compare with kept results: `last`, a number from --history, or a file that --json or --export has
    /// written
    #[arg(long, value_name = "BASELINE", value_hint = ValueHint::FilePath)]
    pub compare: Option<String>,

    /// End with status 1 if a mean is worse than the baseline's by more than this and by more than the noise
    #[arg(long, value_name = "PERCENT", requires = "compare", value_parser = parse_percent)]
    pub fail_on_regression: Option<f64>,

    /// Measure a model of Ollama in turn, by the counters of its server (at OLLAMA_HOST)
    #[arg(long, value_name = "ollama:NAME", value_parser = parse_peer)]
    pub against: Vec<String>,

    /// Measure another program in turn: a shell command that prints tokens per second
    #[arg(long, value_name = "CMD")]
    pub against_command: Vec<String>,

    /// Where the command's output tells tokens per second: a regular expression with one group, of which
    /// the last match counts
    #[arg(long, value_name = "REGEX", requires = "against_command", default_value = DEFAULT_PATTERN)]
    pub against_pattern: String,
}

/// A number before a unit of tokens per second, as llama.cpp, mlx_lm and Ollama print it, or the last column of
/// llama-bench's table, whose head has the unit.
pub const DEFAULT_PATTERN: &str =
    r"([0-9]+(?:\.[0-9]+)?)\s*(?:tok(?:en)?s?(?:/s|-per-sec| per second)|t/s|± [0-9.]+ \|)";

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum BenchFormat {
    #[default]
    Table,
    Markdown,
    Csv,
    /// The same as --json
    Json,
}

/// A file to write results to; its ending says in which form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportFile {
    pub path: PathBuf,
    pub format: BenchFormat,
}

fn ending(path: &std::path::Path) -> String {
    path.extension().map(|end| end.to_string_lossy().to_lowercase()).unwrap_or_default()
}

fn parse_export(text: OsString) -> Result<ExportFile, &'static str> {
    let path = PathBuf::from(text);
    let format = match ending(&path).as_str() {
        "json" => BenchFormat::Json,
        "csv" => BenchFormat::Csv,
        "md" => BenchFormat::Markdown,
        _ => return Err("expected a file that ends in .json, .csv or .md"),
    };
    Ok(ExportFile { path, format })
}

fn parse_plot(text: OsString) -> Result<PathBuf, &'static str> {
    let path = PathBuf::from(text);
    if ending(&path) == "svg" { Ok(path) } else { Err("expected a file that ends in .svg") }
}

fn parse_peer(text: &str) -> Result<String, String> {
    match text.strip_prefix("ollama:") {
        Some(name) if !name.is_empty() && !name.contains(|c: char| c.is_control() || c.is_whitespace()) => {
            Ok(name.to_owned())
        }
        _ => Err("expected ollama:NAME; --against-command measures any other program".to_owned()),
    }
}

fn parse_percent(text: &str) -> Result<f64, String> {
    match text.trim().trim_end_matches('%').trim_end().parse::<f64>() {
        Ok(percent) if percent.is_finite() && (0.0..=1000.0).contains(&percent) => Ok(percent),
        _ => Err("expected a percentage such as 5%".to_owned()),
    }
}
