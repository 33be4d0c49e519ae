//! The report of `list`.

use schemars::JsonSchema;
use serde::Serialize;

use super::Data;
use super::model::ModelReport;

/// The models that are known.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ListReport {
    /// In the order asked for.
    pub models: Vec<ListedReport>,
    /// Sum of their sizes; content that several share counts each time.
    pub total_bytes: u64,
    /// Whether models of some kind or place only were asked for.
    #[serde(skip)]
    pub narrowed: bool,
    /// The human form that was asked for.
    #[serde(skip)]
    pub form: ListForm,
}

/// One model of the list.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ListedReport {
    #[serde(flatten)]
    pub model: ModelReport,
    /// Number of its files.
    pub files: u64,
}

/// Form of the list for people and other programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListForm {
    Table,
    /// Comma-separated values (RFC 4180) with a line of headings.
    Csv,
    /// One reference a line.
    Names,
}

impl Data for ListReport {}
