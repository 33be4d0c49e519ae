//! The report of `export`, and the file that it writes.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Data;

/// What was exported.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ExportReport {
    /// The file that was written; null for standard output.
    pub file: Option<String>,
    /// Revisions of models in it.
    pub snapshots: u64,
    /// Their files.
    pub files: u64,
    /// Size of the content that they tell of; that of several models counts each time.
    pub bytes: u64,
    /// The export itself, where it was not written to a file.
    pub registry: Option<RegistryFile>,
}

/// What a registry knows of its models, to be moved to another one.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct RegistryFile {
    /// `mlx-cache registry`.
    pub kind: String,
    /// Version of this form: 1. It grows when a field changes its meaning or goes.
    pub version: u32,
    /// Version of the program that wrote it.
    pub written_by: String,
    /// When it was written.
    #[schemars(with = "String")]
    pub exported_at: Timestamp,
    /// Every revision of every model.
    pub snapshots: Vec<ExportedSnapshot>,
}

/// One revision of one model.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ExportedSnapshot {
    /// Where the name comes from: `huggingface.co`, `local`, `ollama` or `lmstudio`.
    pub host: String,
    /// First part of the name.
    pub org: String,
    /// Last part of the name.
    pub name: String,
    /// The commit, or the name that content gives itself.
    pub revision: String,
    /// As `list` shows it: `hub`, `copied`, `hf`, `ollama`, `lmstudio` or `folder`.
    pub origin: String,
    /// Where an adopted model lies; null for content of the store.
    pub place: Option<ExportedPlace>,
    /// The one file that is the model, if it is one file.
    pub entry: Option<String>,
    /// `generation`, `embedding` or `other`.
    pub model_kind: String,
    /// `model_type` of config.json or `general.architecture` of a GGUF.
    pub architecture: Option<String>,
    /// Number of weights.
    pub parameters: Option<u64>,
    /// Such as `Q4_1`, `4-bit (group 64)` or `bf16`.
    pub quantization: Option<String>,
    /// Longest context in tokens that the model was made for.
    pub context_length: Option<u64>,
    /// When it was registered first.
    #[schemars(with = "String")]
    pub added_at: Timestamp,
    /// When it last ran; null if never.
    #[schemars(with = "Option<String>")]
    pub last_used: Option<Timestamp>,
    /// Its files.
    pub files: Vec<ExportedFile>,
}

/// A folder with an adopted model.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ExportedPlace {
    /// The cache that the path starts from, wherever a machine has it: `hf`, `ollama` or `lmstudio`; null for
    /// any other folder.
    pub cache: Option<String>,
    /// Relative to the cache, else absolute.
    pub path: String,
}

/// One file of a model.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ExportedFile {
    /// Its path in the model.
    pub path: String,
    /// SHA-256 of its content.
    pub digest: String,
    /// Its size.
    pub bytes: u64,
}

impl RegistryFile {
    pub const KIND: &str = "mlx-cache registry";
    pub const VERSION: u32 = 1;
}

impl Data for ExportReport {}
