//! The report of `rm`.

use schemars::JsonSchema;
use serde::Serialize;

use super::Data;

/// What was removed, or would be.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct RmReport {
    /// Whether this is only a plan.
    pub dry_run: bool,
    /// What goes, in the order asked for.
    pub removed: Vec<RemovedReport>,
    /// Disk space that this gives back.
    pub bytes_freed: u64,
    /// What stays on disk although its model goes.
    pub kept: Vec<KeptReport>,
    /// Other tools' files that were links to the content and are files of their own now.
    pub restored: Vec<String>,
}

/// Files of a removed model that stay.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct KeptReport {
    /// The model whose files stay.
    pub reference: String,
    /// Why they do.
    pub reason: String,
}

/// One snapshot that goes.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct RemovedReport {
    /// The model's name.
    pub reference: String,
    /// Which of its revisions.
    pub revision: String,
    /// `copied` or `hub`: its content is deleted as far as nothing else uses it; else it is only forgotten.
    pub origin: String,
    /// Where it lies or lay.
    pub path: String,
}

impl Data for RmReport {}
