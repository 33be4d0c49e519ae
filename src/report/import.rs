//! The report of `import`.

use schemars::JsonSchema;
use serde::Serialize;

use super::Data;

/// What was registered and what is missing.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ImportReport {
    /// Whether nothing was registered, only looked at.
    pub dry_run: bool,
    /// Models that are here, in the order of the file.
    pub registered: Vec<ImportedReport>,
    /// Models that are not, in the order of the file.
    pub missing: Vec<MissingReport>,
}

/// A model that is here.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ImportedReport {
    /// The model's name.
    pub reference: String,
    /// Which of its revisions.
    pub revision: String,
    /// As `list` shows it: `hub`, `copied`, `hf`, `ollama`, `lmstudio` or `folder`.
    pub origin: String,
    /// What a program loads; null in a dry run for a model whose folder is not made yet.
    pub path: Option<String>,
    /// Size of its files.
    pub bytes: u64,
    /// Whether it was registered before.
    pub already_known: bool,
}

/// A model that is not here, or not as it was.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct MissingReport {
    /// The model's name.
    pub reference: String,
    /// Which of its revisions.
    pub revision: String,
    /// As `list` shows it: `hub`, `copied`, `hf`, `ollama`, `lmstudio` or `folder`.
    pub origin: String,
    /// Why it was not registered.
    pub reason: String,
    /// Size of the files that are missing.
    pub bytes_missing: u64,
    /// The command that brings it; null if none can.
    pub command: Option<String>,
}

impl Data for ImportReport {}
