//! The report of `completions`.

use schemars::JsonSchema;
use serde::Serialize;

use super::Data;

/// A script that makes a shell complete.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct CompletionsReport {
    /// The shell's name.
    pub shell: String,
    /// What the shell is to load.
    pub script: String,
}

impl Data for CompletionsReport {}
