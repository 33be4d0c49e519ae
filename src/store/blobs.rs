//! Content: coming in, being there, going.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use super::used::Writing;
use super::{PATIENCE, Store};
use crate::error::{Error, Result};
use crate::fs::{Copied, Copy, FileLock, FileStamp, Progress, copy_hashed, create_private_dir, try_map};
use crate::ids::{Digest, SnapshotPath};
use crate::registry::{FileRecord, Registry};

/// Content is never written again.
pub const BLOB_MODE: u32 = 0o444;

/// A file that is to become a file of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incoming {
    /// Its path in the snapshot.
    pub path: SnapshotPath,
    /// Where it lies now.
    pub source: PathBuf,
    pub bytes: u64,
}

/// Content that is in the store but that no snapshot uses yet.
#[derive(Debug)]
pub struct Ingestion {
    pub files: Vec<FileRecord>,
    /// What was not in the store before.
    new: Vec<Digest>,
    /// Keeps others from taking away what is not registered yet; nothing if nothing came in.
    _writing: Option<Writing>,
}

impl Ingestion {
    /// Files that stay where they are: nothing came into the store.
    pub fn adopted(files: Vec<FileRecord>) -> Self {
        Self { files, new: Vec::new(), _writing: None }
    }
}

impl Store {
    /// Whether the content is there, by its name and size.
    pub fn has_blob(&self, digest: &Digest, bytes: u64) -> bool {
        fs::symlink_metadata(self.blob(digest)).is_ok_and(|found| found.is_file() && found.len() == bytes)
    }

    /// Copies files into the store, several at a time, by cloning where the filesystem can.
    ///
    /// When one fails, whatever of the others was not there before goes again. Too little space is
    /// INSUFFICIENT_DISK, a file that changes meanwhile INTEGRITY_FAILED.
    pub fn ingest(
        &self,
        registry: &Registry,
        files: &[Incoming],
        progress: Progress<'_>,
    ) -> Result<Ingestion> {
        let writing = self.writing()?;
        let new = Mutex::new(Vec::new());
        let still_needed = AtomicU64::new(files.iter().map(|file| file.bytes).sum());
        let ingested = try_map(files, |file| {
            let copy = Copy {
                source: &file.source,
                temp_dir: &self.incomplete(),
                still_needed: still_needed.load(Ordering::Relaxed),
            };
            let copied = copy_hashed(copy, progress)?;
            let (digest, bytes) = (copied.digest, copied.source.bytes);
            let stamp = self.publish(copied)?;
            if stamp.is_some() {
                new.lock().unwrap_or_else(PoisonError::into_inner).push(digest);
            }
            still_needed.fetch_sub(file.bytes, Ordering::Relaxed);
            Ok(FileRecord { path: file.path.clone(), digest, bytes, stamp })
        });
        let new = new.into_inner().unwrap_or_else(PoisonError::into_inner);
        match ingested {
            Ok(files) => Ok(Ingestion { files, new, _writing: Some(writing) }),
            Err(error) => {
                // The failure that is told is the one that came first.
                let taken_back = Ingestion { files: Vec::new(), new, _writing: Some(writing) };
                let _ = self.discard(registry, &taken_back);
                Err(error)
            }
        }
    }

    /// Gives content its name, unless it is there already; returns the new blob's identity.
    pub fn publish(&self, copied: Copied) -> Result<Option<FileStamp>> {
        let lock = self.locks().join(format!("{}.lock", copied.digest));
        let _lock = FileLock::acquire(&lock, PATIENCE)?;
        self.publish_locked(copied)
    }

    /// The same for who has the right to bring content of this digest already.
    pub(super) fn publish_locked(&self, copied: Copied) -> Result<Option<FileStamp>> {
        let Copied { temp, digest, source } = copied;
        if self.has_blob(&digest, source.bytes) {
            return Ok(None);
        }
        let path = self.blob(&digest);
        if let Some(folder) = path.parent() {
            create_private_dir(folder)?;
        }
        temp.publish(&path, BLOB_MODE)?;
        let metadata = fs::metadata(&path).map_err(|error| Error::io("read", &path, error))?;
        Ok(Some(FileStamp::of(&metadata)))
    }

    /// Takes back what an ingestion brought and no snapshot has come to use.
    pub fn discard(&self, registry: &Registry, ingestion: &Ingestion) -> Result<()> {
        if ingestion.new.is_empty() {
            return Ok(());
        }
        let _lock = self.lock()?;
        registry.unused(&ingestion.new)?.iter().try_for_each(|digest| self.remove_blob(digest).map(|_| ()))
    }

    /// Removes a blob; whether it was there. The caller holds the store's lock.
    pub(super) fn remove_blob(&self, digest: &Digest) -> Result<bool> {
        let path = self.blob(digest);
        match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::io("remove", &path, error)),
        }
    }
}
