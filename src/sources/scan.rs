//! What a look at a foreign cache finds: its models, and the files that hold their content.

use std::path::PathBuf;

use crate::fs::FileStamp;
use crate::ids::{ModelName, Revision, SnapshotPath};

pub use crate::ids::Checksum;

/// Everything found below one root.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scan {
    pub models: Vec<ForeignModel>,
    /// Every regular file that holds content of the cache's models, each path once, by path.
    pub payloads: Vec<Payload>,
    /// What was seen and left alone: partial downloads, locks, unknown names, folders that cannot be read.
    pub passed_over: Vec<PassedOver>,
}

/// One revision of one model in a foreign cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignModel {
    pub name: ModelName,
    /// The commit, where the cache knows it.
    pub revision: Option<Revision>,
    /// The folder that a program would load: a snapshot's folder, a plain folder, for Ollama the folder of
    /// blobs. Absolute.
    pub root: PathBuf,
    pub files: Vec<ForeignFile>,
}

/// One file of a foreign model, as the cache's own records tell of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignFile {
    /// Its path in the model. Ollama's layers are named by their kind, such as `model.gguf`.
    pub path: SnapshotPath,
    /// Where its tool looks for it. Absolute; perhaps a link.
    pub place: PathBuf,
    /// The payload that the place leads to, by its path, or why it leads to none.
    pub content: Result<PathBuf, Fault>,
    /// What the cache's own records say the content is.
    pub expected: Expected,
}

/// What a record says of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Expected {
    pub checksum: Option<Checksum>,
    pub bytes: Option<u64>,
}

/// Why a place leads to no content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Nothing has that name.
    Missing,
    /// A link to nothing; what it holds.
    Dangling(PathBuf),
    /// A link that leads out of the cache and not into the store; what it holds.
    Escaping(PathBuf),
    /// A folder, device, pipe or socket.
    NotAFile,
    /// It cannot be read; why.
    Unreadable(String),
}

/// A regular file with content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// Its own name below the root, not a link to it; absolute.
    pub path: PathBuf,
    /// Where the content lies, if `path` is a link into the store that dedupe made; the stamp is the
    /// content's.
    pub linked_to: Option<PathBuf>,
    pub stamp: FileStamp,
    /// What its name or the cache's records claim.
    pub claimed: Option<Checksum>,
    /// Whether dedupe may replace it, or why not.
    pub replaceable: Result<(), String>,
}

/// A path and why it was left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassedOver {
    pub path: PathBuf,
    pub reason: String,
}
