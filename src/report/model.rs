//! A model as several reports show it.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

/// One snapshot of one model.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ModelReport {
    /// The name to use in other commands.
    pub reference: String,
    /// The commit, or the name that content gives itself; null for a model that is not registered.
    pub revision: Option<String>,
    /// `generation`, `embedding` or `other`.
    pub kind: String,
    /// `model_type` of config.json or `general.architecture` of a GGUF.
    pub architecture: Option<String>,
    /// Number of weights.
    pub parameters: Option<u64>,
    /// Such as `Q4_1`, `4-bit (group 64)` or `bf16`.
    pub quantization: Option<String>,
    /// Longest context in tokens that the model was made for.
    pub context_length: Option<u64>,
    /// Size of all its files.
    pub bytes: u64,
    /// `copied` into the store, pulled from the `hub`, or in the cache of another tool, `hf`, `ollama` or
    /// `lmstudio`, or in a `folder`; `path` if it was named by its path.
    pub origin: String,
    /// Whether its files are there.
    pub status: ModelStatus,
    /// When it last ran; null if never.
    #[schemars(with = "Option<String>")]
    pub last_used: Option<Timestamp>,
    /// What a program loads: the folder, or the one file.
    pub path: String,
}

/// Whether a model is where it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ModelStatus {
    Ok,
    /// Its folder or file is gone.
    Missing,
    /// Another tool's cache has it; it was not added here, and runs all the same.
    Foreign,
}
