//! The report of `path`.

use schemars::JsonSchema;
use serde::Serialize;

use super::Data;

/// Where a model lies.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct PathReport {
    /// The folder or the one file that a program loads; absolute.
    pub path: String,
}

impl Data for PathReport {}
