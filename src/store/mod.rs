//! The store: content named by its digest, and folders of links that show it as models.
//!
//! ```text
//! blobs/sha256/ab/<64 hex>                              content, mode 0444
//! links/<source>/<number>/<64 hex>                      a hard link to content: what one symlink of another
//!                                                       tool points at
//! links/staged/                                         files that are changing places with other tools' files
//! models/<host>/<org>/<name>/<revision>/<path>          relative symlinks into blobs/
//! incomplete/                                           content on its way in
//! locks/                                                lock files
//! registry.db                                           what is known (see [`crate::registry`])
//! ```
//!
//! Order of events, so that a crash at any instant leaves the old state or the new one: content is
//! published blob by blob, then the folder of links, then the registry's rows; removal goes the other
//! way. Publishing the folder and the rows, and removal as a whole, happen under the store's lock:
//! nobody removes a blob between the moment another process looks for it and the moment it counts on it.

mod blobs;
mod garbage;
mod layout;
mod links;
mod partial;
mod readme;
mod rebuild;
mod register;
mod removal;
mod restore;
mod snapshots;
mod used;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::fs::{FileLock, create_private_dir, is_abandoned, is_temporary};
use crate::ids::Bytes;
use crate::registry::{Registry, Snapshot};

pub use blobs::{BLOB_MODE, Incoming, Ingestion};
pub use garbage::{Garbage, GarbageKind, GarbagePlan, Kept};
pub use partial::KeptPart;
pub use rebuild::Rebuilt;
pub use removal::RemovalPlan;
pub use used::{Unregistered, Writing};

/// How long to wait for another process that registers or removes something; both take moments.
const PATIENCE: Duration = Duration::from_secs(30);

/// A store, whether it exists yet or not.
#[derive(Debug, Clone)]
pub struct Store {
    home: PathBuf,
}

/// The right to register and to remove, held by one process at a time.
#[derive(Debug)]
pub struct StoreLock(#[expect(dead_code, reason = "held until it is dropped")] FileLock);

/// A file that a process which is gone has left unfinished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    pub path: PathBuf,
    pub bytes: Bytes,
}

impl Store {
    /// The store in this folder, which need not exist. The path is absolute.
    pub fn at(home: &Path) -> Self {
        Self { home: home.to_owned() }
    }

    /// Opens the registry for a command that only looks; `None` if there is none, and nothing is made.
    pub fn registry(&self) -> Result<Option<Registry>> {
        Registry::open(&self.home)
    }

    /// All registered snapshots, none if there is no store.
    pub fn snapshots(&self) -> Result<Vec<Snapshot>> {
        self.registry()?.map_or(Ok(Vec::new()), |registry| registry.snapshots())
    }

    /// Opens the registry for a command that changes the store, making both if there is none.
    pub fn create(&self) -> Result<Registry> {
        for folder in [self.home.clone(), self.blobs(), self.models(), self.incomplete(), self.locks()] {
            create_private_dir(&folder)?;
        }
        self.place_readme()?;
        Registry::create(&self.home)
    }

    /// Waits until no other process registers or removes anything.
    pub fn lock(&self) -> Result<StoreLock> {
        create_private_dir(&self.locks())?;
        FileLock::acquire(&self.locks().join("store.lock"), PATIENCE).map(StoreLock)
    }

    /// Unfinished files under incomplete/ whose process is gone.
    pub fn leftovers(&self) -> Result<Vec<Leftover>> {
        let folder = self.incomplete();
        if !folder.exists() {
            return Ok(Vec::new());
        }
        let fail = |error| Error::io("read", &folder, error);
        let mut found = Vec::new();
        for entry in fs::read_dir(&folder).map_err(fail)? {
            let path = entry.map_err(fail)?.path();
            let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
            // Downloads are no leftovers: the next pull resumes them.
            if metadata.is_file() && is_temporary(&path) && is_abandoned(&path) {
                found.push(Leftover { path, bytes: Bytes(metadata.len()) });
            }
        }
        found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }
}

#[cfg(test)]
mod tests;
