//! `mlx-cache embed`

use std::path::PathBuf;

use clap::{ArgGroup, Args, ValueEnum, ValueHint};

use crate::engine::embed::{Pooling, Truncate};
use crate::engine::request::DeviceChoice;
use crate::settings::value::{parse_bytes, parse_device, parse_threads};

/// Turn texts into vectors
///
/// Texts come as arguments, from standard input (a line each) or from a file. Vectors go to standard
/// output, or to a file that appears under its name once it is whole:
///
///     mlx-cache embed all-minilm "a text" "another one"
///     mlx-cache embed all-minilm -i articles.jsonl --field body -o articles.npy
///     mlx-cache embed all-minilm "what is it?" --nearest 5 --against articles.npy
///
/// How tokens become a vector, which prompts there are and how long texts may be is read from the
/// model's own files, as sentence-transformers reads them.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
#[command(group = ArgGroup::new("tool").args(["similarity", "nearest"]))]
pub struct EmbedArgs {
    /// The model: a name, a part of one that is unambiguous, or a path
    #[arg(value_hint = ValueHint::AnyPath)]
    pub model: String,

    /// The texts; `-` reads them from standard input, a line each
    #[arg(value_name = "TEXT")]
    pub texts: Vec<String>,

    #[command(flatten)]
    pub input: InputArgs,

    #[command(flatten)]
    pub vectors: VectorArgs,

    #[command(flatten)]
    pub output: OutputArgs,

    #[command(flatten)]
    pub tools: ToolArgs,

    #[command(flatten)]
    pub engine: EmbedEngineArgs,
}

/// Where texts come from.
#[derive(Debug, Args)]
#[command(next_help_heading = "Input")]
pub struct InputArgs {
    /// File to read texts from; its ending tells what it is
    #[arg(long, short = 'i', value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "texts")]
    pub input: Option<PathBuf>,

    /// What the input is [default: by the file's ending, else a text a line]
    #[arg(long, value_name = "KIND", value_enum)]
    pub input_format: Option<InputFormat>,

    /// Where the text is in a JSON line: names joined by dots, numbers for places in lists [default: text]
    #[arg(long, value_name = "PATH")]
    pub field: Option<String>,

    /// The column that holds the text, by its name in the first line [default: text]
    #[arg(long, value_name = "NAME")]
    pub column: Option<String>,

    /// Texts end with a NUL byte rather than with a line
    #[arg(short = '0', long)]
    pub null: bool,

    /// What to do with empty texts
    #[arg(long, value_name = "WHAT", value_enum, default_value_t)]
    pub empty: Empty,

    /// What to do with bytes that are no UTF-8
    #[arg(long, value_name = "WHAT", value_enum, default_value_t)]
    pub invalid: Invalid,
}

/// How vectors are made.
#[derive(Debug, Args)]
#[command(next_help_heading = "Vectors")]
pub struct VectorArgs {
    /// Put one of the model's prompts before every text: query, document, or another name
    #[arg(long, value_name = "NAME", conflicts_with = "prompt_text")]
    pub prompt: Option<String>,

    /// Put this text before every text
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub prompt_text: Option<String>,

    /// How tokens become one vector: cls, max, mean, mean-sqrt-len, weighted-mean or last
    /// [default: the model's own]
    #[arg(long, value_name = "WAY")]
    pub pooling: Option<Pooling>,

    /// Keep only the first N numbers of each vector, for models made for that
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub dimensions: Option<usize>,

    /// Give all vectors the length 1, even if the model does not
    #[arg(long, conflicts_with = "no_normalize")]
    pub normalize: bool,

    /// Leave vectors as long as they are, even if the model gives them the length 1
    #[arg(long)]
    pub no_normalize: bool,

    /// What to keep of texts that are too long: their head, their tail, or none of them (an error)
    #[arg(long, value_name = "PART", default_value = "head")]
    pub truncate: Truncate,

    /// Longest text in tokens [default: the model's own limit]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub max_length: Option<usize>,
}

/// Where vectors go.
#[derive(Debug, Args)]
#[command(next_help_heading = "Result")]
pub struct OutputArgs {
    /// File to write; it replaces what has that name when it is whole
    #[arg(long, short = 'o', value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: Option<PathBuf>,

    /// How vectors are written [default: by the file's ending, else json]
    #[arg(long, short = 'f', value_name = "FORMAT", value_enum)]
    pub format: Option<Format>,

    /// What numbers are written as
    #[arg(long, value_name = "TYPE", value_enum, default_value_t)]
    pub dtype: VectorType,

    /// Name of the vector in a JSON line
    #[arg(long, value_name = "NAME", default_value = "embedding")]
    pub output_field: String,

    /// Go on where an interrupted run for the same output file ended
    #[arg(long, requires = "output")]
    pub resume: bool,
}

/// What people do with vectors at once.
#[derive(Debug, Args)]
#[command(next_help_heading = "Comparing")]
pub struct ToolArgs {
    /// Print how similar the texts are (the cosine) instead of their vectors: each to each, or the
    /// first to the second, the third to the fourth and so on
    #[arg(
        long,
        value_name = "HOW",
        value_enum,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "matrix"
    )]
    pub similarity: Option<Similarity>,

    /// Print which K vectors of a file are the most similar to each text
    #[arg(long, value_name = "K", requires = "against", allow_negative_numbers = true)]
    pub nearest: Option<usize>,

    /// The .npy file of vectors for --nearest
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "nearest")]
    pub against: Option<PathBuf>,
}

/// How the model is loaded and computed.
#[derive(Debug, Args)]
#[command(next_help_heading = "Engine")]
pub struct EmbedEngineArgs {
    /// Most texts to compute together [default: as many as their lengths allow]
    #[arg(long, short = 'b', value_name = "N", allow_negative_numbers = true)]
    pub batch_size: Option<usize>,

    /// Where to compute: auto, gpu or cpu
    #[arg(long, value_name = "DEVICE", value_parser = parse_device)]
    pub device: Option<DeviceChoice>,

    /// Threads that compute on the CPU [default: the physical cores]
    #[arg(long, value_name = "N", value_parser = parse_threads, allow_negative_numbers = true)]
    pub threads: Option<usize>,

    /// Most memory for the model, such as 8GB [default: what is free]
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    pub memory_limit: Option<u64>,

    /// Run although memory seems too small
    #[arg(long)]
    pub force: bool,

    /// Pull the model without asking if it is not on this machine
    #[arg(long, short)]
    pub yes: bool,
}

/// What an input is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum InputFormat {
    /// A text a line
    Txt,
    /// A JSON value a line
    Jsonl,
    /// Comma-separated values with a line of names
    Csv,
    /// Tab-separated values with a line of names
    Tsv,
}

/// What to do with empty texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Empty {
    /// They have a vector, too
    #[default]
    Keep,
    /// They are left out
    Skip,
}

/// What to do with bytes that are no UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Invalid {
    /// End with an error that names the line
    #[default]
    Error,
    /// Put U+FFFD in their place
    Replace,
}

/// How vectors are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One list of lists
    Json,
    /// An object a line: the text, or what a JSON line or a row had, and the vector
    Jsonl,
    /// Numbers between commas, a vector a line
    Csv,
    /// NumPy's format for one array
    Npy,
    /// NumPy's format for several arrays; the one in it is called embeddings
    Npz,
    /// With one tensor that is called embeddings
    Safetensors,
    /// Nothing but little-endian float32
    F32,
}

impl Format {
    /// The name by which it is chosen.
    pub fn name(self) -> String {
        name(&self)
    }
}

impl VectorType {
    /// The name by which it is chosen.
    pub fn name(self) -> String {
        name(&self)
    }
}

fn name(choice: &impl ValueEnum) -> String {
    choice.to_possible_value().map(|choice| choice.get_name().to_owned()).unwrap_or_default()
}

/// What numbers are written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum VectorType {
    #[default]
    F32,
    F16,
    /// Each vector scaled so that its largest number becomes 127 or -127: for comparing by cosine
    Int8,
    /// One bit a number, 1 for those above 0, eight to a byte, the first one highest
    Binary,
}

/// Which texts are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Similarity {
    /// Each to each
    Matrix,
    /// The first to the second, the third to the fourth and so on
    Pairs,
}
