//! The report of `man`.

use schemars::JsonSchema;
use serde::Serialize;

use super::Data;

/// The manual's pages that were written.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ManReport {
    /// The folder; absolute.
    pub path: String,
    /// Names of the files in it.
    pub files: Vec<String>,
}

impl Data for ManReport {}
