//! The report of `link`.

use schemars::JsonSchema;
use serde::Serialize;

use super::Data;

/// What was made, or taken away, for another tool to see a model.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct LinkReport {
    /// Whether this only shows what would be done.
    pub dry_run: bool,
    /// Whether links were to be taken away.
    pub undo: bool,
    /// The model.
    pub reference: String,
    /// The commit, or the name that content gives itself.
    pub revision: String,
    /// `hf`, `lmstudio`, `ollama` or `folder`.
    pub to: String,
    /// The tool's folder, in which everything lies.
    pub root: String,
    /// The name by which the tool knows the model: a repository, a name to run, or a folder.
    pub name: String,
    /// In the order in which they are made.
    pub entries: Vec<LinkEntryReport>,
    /// What is to be known about it.
    pub notes: Vec<String>,
}

/// A name in the other tool's folder.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct LinkEntryReport {
    /// Its path.
    pub path: String,
    /// What it is.
    pub kind: LinkEntryKind,
    /// Size of the content that it shows.
    pub bytes: u64,
    /// What became of it, or would.
    pub status: LinkEntryStatus,
}

/// Kinds of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LinkEntryKind {
    /// A symlink to content of the store, by a name of its own there.
    Content,
    /// A symlink to another entry, as the tool itself makes it.
    Inner,
    /// A small file of the tool's own format.
    Record,
}

/// What became of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LinkEntryStatus {
    /// It was made, or would be.
    Made,
    /// The tool has it already; it stays as it is.
    Present,
    /// It was removed, or would be.
    Removed,
    /// It is not ours, or something else is there now: it stays as it is.
    Kept,
    /// Nothing was there.
    Absent,
}

impl Data for LinkReport {}
