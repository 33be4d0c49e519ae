//! The report of `embed`.

use schemars::JsonSchema;
use serde::Serialize;

use super::Data;

/// Vectors of texts, or what was found out with them.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct EmbedReport {
    /// The model that made the vectors.
    pub model: String,
    /// Numbers in a vector.
    pub dimensions: usize,
    /// How many vectors were made.
    pub count: u64,
    /// The vectors in the order of the texts; null where they went to a file, or were compared.
    pub embeddings: Option<Vec<Vec<f32>>>,
    /// With `--similarity`: the cosine of each text with each, or one row with that of each pair.
    pub similarity: Option<Vec<Vec<f32>>>,
    /// With `--nearest`: for each text the most similar rows of the file, most similar first.
    pub nearest: Option<Vec<Vec<NeighbourReport>>>,
    /// With `--output`: the file.
    pub output: Option<OutputReport>,
    /// How tokens became one vector: cls, max, mean, mean-sqrt-len, weighted-mean, last, or several with
    /// a plus between.
    pub pooling: String,
    /// Whether vectors have the length 1.
    pub normalized: bool,
    /// What was put before every text.
    pub prompt: String,
    /// Counts of tokens and texts.
    pub usage: EmbedUsage,
    /// Durations and speeds.
    pub timings: EmbedTimings,
    /// Memory that the run took.
    pub memory: super::run::MemoryReport,
}

/// A row of a file of vectors.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub struct NeighbourReport {
    /// The row, counted from 0.
    pub row: u64,
    /// The cosine of the angle between its vector and that of the text.
    pub score: f32,
}

/// The file that was written.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct OutputReport {
    /// Where it is.
    pub path: String,
    /// json, jsonl, csv, npy, npz, safetensors or f32.
    pub format: String,
    /// What numbers are written as: f32, f16, int8 or binary.
    pub dtype: String,
    /// Its size.
    pub bytes: u64,
    /// Vectors that an interrupted run had made before.
    pub resumed: u64,
}

/// Counts of one run; what an interrupted run did before is included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, JsonSchema)]
pub struct EmbedUsage {
    /// Tokens that the model saw, special ones and prompts included.
    pub tokens: u64,
    /// Texts of which a part was left out, since they were too long.
    pub truncated: u64,
    /// Empty texts that were left out.
    pub skipped: u64,
}

/// Durations in seconds and speeds.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
pub struct EmbedTimings {
    /// Loading the model.
    pub load_s: f64,
    /// From the first text that was read to the last vector that was written.
    pub embed_s: f64,
    /// Both.
    pub total_s: f64,
    /// Texts embedded in a second, loading left out.
    pub texts_per_s: f64,
    /// Tokens computed in a second, loading left out.
    pub tokens_per_s: f64,
}

impl Data for EmbedReport {}
