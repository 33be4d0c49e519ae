//! The report of `gc`.

use schemars::JsonSchema;
use serde::Serialize;

use super::Data;
use super::rm::KeptReport;

/// What was removed, or would be.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct GcReport {
    /// Whether this is only a plan.
    pub dry_run: bool,
    /// What goes.
    pub removed: Vec<CollectedReport>,
    /// Disk space that this gives back.
    pub bytes_freed: u64,
    /// What stays although no model has it, by its path.
    pub kept: Vec<KeptReport>,
}

/// One thing that goes.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct CollectedReport {
    /// What it is.
    pub kind: CollectedKind,
    /// Where it lies or lay.
    pub path: String,
    /// Disk space that it gives back; 0 for content that has another name too.
    pub bytes: u64,
}

/// What nobody needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CollectedKind {
    /// Content that no model and no link uses.
    Blob,
    /// A file that a process which is gone has left unfinished.
    Unfinished,
    /// A download that could be resumed, but that nobody did for long.
    Download,
    /// A folder that is empty or shows no whole model.
    Folder,
    /// A lock that nobody holds.
    Lock,
}

impl Data for GcReport {}
