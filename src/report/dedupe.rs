//! The report of `dedupe`.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Serialize, Serializer};

use super::Data;
use crate::ids::Digest;

/// A path that is text once it is shown: there may be very many.
#[derive(Debug, Clone)]
pub struct ShownPath(pub Arc<Path>);

impl ShownPath {
    /// With a mark in the place of what is not UTF-8.
    pub fn text(&self) -> Cow<'_, str> {
        self.0.to_str().map_or_else(|| self.0.to_string_lossy(), Cow::Borrowed)
    }
}

impl Serialize for ShownPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text())
    }
}

/// What is kept more than once and what was or would be done about it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct DedupeReport {
    /// Whether something was done; otherwise this is only a plan.
    pub applied: bool,
    /// `symlink`, `hardlink`, `reflink` or `auto`; with `--undo`, `undo`.
    pub strategy: String,
    /// Equal files, those with the most to gain first.
    pub groups: Vec<GroupReport>,
    /// Disk space that the plan gives back; files with several names count once.
    pub bytes_reclaimable: u64,
    /// Disk space that came back; 0 for a plan.
    pub bytes_reclaimed: u64,
    /// Whether the two figures are estimates: of files that share blocks no system tells how much.
    pub estimated: bool,
    /// Files that were passed over.
    pub skipped: Vec<SkippedReport>,
    /// Files that were looked at.
    pub files: u64,
    /// Files that are links or clones already.
    pub linked: u64,
    /// Content that was read to compare.
    pub bytes_read: u64,
    /// Links that `--undo` was about.
    pub undone: Vec<UndoneReport>,
    /// Disk space that undoing needs at most; 0 without `--undo`.
    pub bytes_needed: u64,
    /// How long it took.
    pub seconds: f64,
}

/// Equal files.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct GroupReport {
    /// SHA-256 of the content.
    #[schemars(with = "String")]
    pub digest: Digest,
    /// Size of one copy.
    pub bytes: u64,
    /// The copy that stays.
    pub keep: KeepReport,
    /// Files that are replaced.
    pub replace: Vec<ReplaceReport>,
    /// Disk space that the group gives back.
    pub bytes_reclaimable: u64,
    /// Disk space that came back; 0 for a plan.
    pub bytes_reclaimed: u64,
}

/// The copy that stays.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct KeepReport {
    /// Where it lies now, or lay before.
    #[schemars(with = "String")]
    pub path: ShownPath,
    /// `hf`, `ollama`, `lmstudio`, `folder` or `store`.
    pub source: Cow<'static, str>,
    /// `stored`: it is in the store already; `moves`: it moves into the store without being copied;
    /// `copies`: it is copied into the store; `stays`: it stays where it is.
    pub how: Cow<'static, str>,
}

/// A file that is replaced.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ReplaceReport {
    /// Where it lies.
    #[schemars(with = "String")]
    pub path: ShownPath,
    /// `hf`, `ollama`, `lmstudio` or `folder`.
    pub source: Cow<'static, str>,
    /// `symlink`, `hardlink` or `reflink`.
    pub strategy: Cow<'static, str>,
    /// Whether it was replaced; false for a plan.
    pub done: bool,
}

/// A file that was passed over.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct SkippedReport {
    /// Where it lies.
    #[schemars(with = "String")]
    pub path: ShownPath,
    /// Why it was passed over.
    pub reason: Cow<'static, str>,
}

/// A link that `--undo` was about.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct UndoneReport {
    /// Where it lies.
    pub path: String,
    /// SHA-256 of the content.
    pub digest: String,
    /// Size of the file.
    pub bytes: u64,
    /// `symlink`, `hardlink` or `reflink`.
    pub strategy: String,
    /// `planned`: nothing was done yet; `restored`: its tool has a file of its own again; `removed`: a
    /// link to what was not there before is gone; `forgotten`: its tool had deleted or replaced it;
    /// `kept`: it stays a link.
    pub outcome: String,
    /// Why it stays a link.
    pub reason: Option<String>,
}

impl Data for DedupeReport {}
