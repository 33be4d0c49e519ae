//! The report of `add`.

use schemars::JsonSchema;
use serde::Serialize;

use super::Data;

/// The models that were added.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct AddReport {
    /// In the order of the paths.
    pub models: Vec<AddedReport>,
    /// Models of a whole cache that were left out; one that was named alone is an error instead.
    pub skipped: Vec<SkippedReport>,
}

/// A model that was not added.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct SkippedReport {
    /// Its name in the other tool's cache.
    pub reference: String,
    /// What a program would load.
    pub path: String,
    /// Why.
    pub reason: String,
}

/// One model that was added.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct AddedReport {
    /// The name to use in other commands.
    pub reference: String,
    /// The commit, or the name that content gives itself.
    pub revision: String,
    /// `copied` into the store, or adopted in `hf`, `ollama`, `lmstudio` or a `folder`.
    pub origin: String,
    /// What a program loads: the folder, or the one file.
    pub path: String,
    /// Size of its files.
    pub bytes: u64,
    /// Number of its files.
    pub files: u64,
    /// Whether it was known already, with the same content.
    pub already_known: bool,
}

impl Data for AddReport {}
