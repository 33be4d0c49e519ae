//! What a look at a foreign cache finds: its models, and the files that hold their content.

use std::borrow::Cow;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Survey;
use crate::fs::Entry;
use crate::ids::{ModelName, Revision, SnapshotPath};

pub use crate::ids::Checksum;

/// Everything found below one root. Records that no one would take for content (refs, locks, listings)
/// are not told of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scan {
    /// By name, then revision.
    pub models: Vec<ForeignModel>,
    /// Every file that holds content of the cache's models, each path once, by the bytes of the path.
    pub payloads: Vec<Payload>,
    /// What was seen and left alone, by path: partial downloads, unknown names, links that lead elsewhere,
    /// folders that cannot be read.
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
    /// By path, each path once.
    pub files: Vec<ForeignFile>,
    /// Files that the cache's listing has and that are not there: perhaps nobody wanted them.
    pub absent: Vec<(SnapshotPath, Expected)>,
}

/// One file of a foreign model, as the cache's own records tell of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignFile {
    /// Its path in the model. Ollama's layers are named by their kind, such as `model.gguf`.
    pub path: SnapshotPath,
    /// Where its tool looks for it. Absolute; perhaps a link.
    pub place: Arc<Path>,
    /// The payload that the place leads to, by its path, or why it leads to none.
    pub content: Result<Arc<Path>, Fault>,
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
    /// Its own name below the root, not a link to it; absolute. No folder on the way from the root is a
    /// link.
    pub path: Arc<Path>,
    /// Where the content lies, if `path` is a link into the store that dedupe made; the entry is
    /// the content's.
    pub linked_to: Option<Arc<Path>>,
    pub entry: Entry,
    /// What its name or the cache's records claim.
    pub claimed: Option<Checksum>,
    /// Whether dedupe may replace it, or why not.
    pub replaceable: Result<(), &'static str>,
}

/// A path and why it was left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassedOver {
    pub path: PathBuf,
    pub reason: Cow<'static, str>,
    /// Whether it is a folder or file that could not be looked into: what it holds is not in the scan.
    pub unreadable: bool,
}

impl Scan {
    /// The payload with this path.
    pub fn payload(&self, path: &Path) -> Option<&Payload> {
        self.position(path).and_then(|at| self.payloads.get(at))
    }

    pub(super) fn position(&self, path: &Path) -> Option<usize> {
        let wanted = path.as_os_str().as_encoded_bytes();
        self.payloads.binary_search_by(|payload| bytes_of(&payload.path).cmp(wanted)).ok()
    }

    /// Puts everything into its order.
    pub(super) fn sorted(mut self) -> Self {
        self.payloads.sort_unstable_by(|a, b| bytes_of(&a.path).cmp(bytes_of(&b.path)));
        self.passed_over.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        for model in &mut self.models {
            model.files.sort_by(|a, b| a.path.cmp(&b.path));
        }
        self.models.sort_by_cached_key(|model| (model.name.to_string(), model.revision.clone()));
        self
    }

    /// How much it is.
    pub fn survey(&self) -> Survey {
        // Revisions stand next to each other.
        let mut names: Vec<&ModelName> = self.models.iter().map(|model| &model.name).collect();
        names.dedup();
        let mut seen = HashSet::with_capacity(self.payloads.len());
        let once = |payload: &&Payload| seen.insert((payload.entry.stamp.device, payload.entry.stamp.inode));
        Survey {
            models: names.len() as u64,
            bytes: self.payloads.iter().filter(once).map(|payload| payload.entry.stamp.bytes).sum(),
            unreadable: self.passed_over.iter().filter(|passed| passed.unreadable).count() as u64,
        }
    }
}

pub(super) fn bytes_of(path: &Path) -> &[u8] {
    path.as_os_str().as_encoded_bytes()
}
