//! The report of `show`.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::Data;
use super::model::ModelReport;

/// One model.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ShowReport {
    #[serde(flatten)]
    pub model: ModelReport,
    /// `chat`, `completion`, `embedding`.
    pub capabilities: Vec<String>,
    /// Bytes that a process takes which runs the model with `context` tokens; null if it does not run.
    pub memory_estimate_bytes: Option<u64>,
    /// Tokens of context that fit this machine; null if the model does not run.
    pub context: Option<u64>,
    /// Whether `run` can use it.
    pub runnable: bool,
    /// Why not.
    pub reason: Option<String>,
    /// Tools on this machine that have its content, such as `hf` and `ollama`.
    pub used_by: Vec<String>,
    /// Its files.
    pub files: Vec<FileReport>,
    /// With `--config`: config.json, or the metadata of a GGUF file without the tokenizer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<Value>,
    /// With `--template`: the chat template; null if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<Option<String>>,
    /// Whether the human form lists the files too.
    #[serde(skip)]
    pub show_files: bool,
}

/// One file of a model.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct FileReport {
    /// Relative to the model's folder.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// SHA-256 of the content when it was added; null for a model that is not registered.
    pub digest: Option<String>,
}

impl Data for ShowReport {}
