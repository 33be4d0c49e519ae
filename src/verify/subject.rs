//! What is checked: models and caches as lists of files, each with what is claimed of it.

use std::path::PathBuf;

use super::problem::{Problem, Remedy};
use crate::ids::{Digest, SnapshotPath};
use crate::sources::Checksum;

/// A model, or what a cache holds beside its models.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The model's name; for the rest of a cache its folder.
    pub reference: String,
    pub revision: Option<String>,
    /// `store`, or the kind of the foreign cache.
    pub source: &'static str,
    /// The folder, or the one file.
    pub path: PathBuf,
    /// The folder that programs load, whose index must agree with its files.
    pub folder: Option<PathBuf>,
    pub items: Vec<Item>,
    /// What links, names and sizes told already.
    pub problems: Vec<Problem>,
    /// What to do about a file that is absent and that no other remedy fits.
    pub advice: String,
    /// Files that the cache's records list and that were never fetched, which is nobody's fault.
    pub absent: u64,
}

/// A file whose content is there.
#[derive(Debug, Clone)]
pub struct Item {
    /// Its path in the model.
    pub path: String,
    /// Where its content lies.
    pub place: PathBuf,
    /// Its content, by its number in [`super::Contents`].
    pub content: usize,
    /// The size on record.
    pub bytes: Option<u64>,
    /// Checksums on record, by name or by registry. All of them hold for good content.
    pub claims: Vec<Checksum>,
    /// Where the registry keeps what is known of the content.
    pub record: Record,
    /// What to do if the content is wrong.
    pub remedy: Remedy,
}

/// A place in the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A blob of the store.
    Blob(Digest),
    /// A file of an adopted snapshot.
    Adopted { snapshot: i64, path: SnapshotPath },
    /// The registry knows nothing of it.
    None,
}

impl Subject {
    pub fn new(reference: String, source: &'static str, path: PathBuf) -> Self {
        Self {
            reference,
            revision: None,
            source,
            path,
            folder: None,
            items: Vec::new(),
            problems: Vec::new(),
            advice: String::new(),
            absent: 0,
        }
    }
}

/// A checksum as problems show it.
pub(super) fn shown(checksum: &Checksum) -> String {
    match checksum {
        Checksum::Sha256(digest) => format!("sha256:{digest}"),
        Checksum::GitSha1(_) => format!("git-sha1:{checksum}"),
    }
}
