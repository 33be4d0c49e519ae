//! The report of `list`.

use schemars::JsonSchema;
use serde::Serialize;

use super::Data;
use super::model::ModelReport;

/// The models that are known.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ListReport {
    /// In the order asked for.
    pub models: Vec<ModelReport>,
    /// Sum of their sizes; content that several share counts each time.
    pub total_bytes: u64,
}

impl Data for ListReport {}
