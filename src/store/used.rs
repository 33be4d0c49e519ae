//! What content is in use, and who may be about to use more.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, TryLockError};
use std::path::PathBuf;

use super::Store;
use crate::error::{Error, Result};
use crate::fs::create_private_dir;
use crate::ids::{Digest, SnapshotPath};
use crate::registry::Registry;

/// Held by whoever brings content into the store until it is registered: meanwhile nobody takes content
/// away that is not registered. The system releases it when its process ends, however that ends.
#[derive(Debug)]
pub struct Writing(#[expect(dead_code, reason = "held until it is dropped")] File);

/// Whether content may be on its way in.
#[derive(Debug)]
pub(super) enum Writers {
    /// Nobody brings content in as long as this is held.
    None(File),
    /// Somebody does.
    Some,
    /// The filesystem knows no locks.
    Unknown,
}

/// A folder under models/ that the registry does not know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unregistered {
    pub folder: PathBuf,
    /// Its files, if all of them are links to content that is there; else why it is no model.
    pub files: std::result::Result<BTreeMap<SnapshotPath, Digest>, String>,
}

impl Store {
    /// The content that somebody counts on: registered snapshots, links in other tools' folders, and
    /// folders of links that are whole although the registry does not know them.
    pub fn digests_in_use(&self, registry: &Registry) -> Result<BTreeSet<Digest>> {
        let mut used = registry.snapshot_digests()?;
        used.extend(registry.linked_digests()?);
        for unregistered in self.unregistered(registry)? {
            used.extend(unregistered.files.into_iter().flatten().map(|(_, digest)| digest));
        }
        Ok(used)
    }

    /// Folders of links that the registry does not know: what a process leaves that ended between making
    /// the folder and registering it, or what an older copy of the registry does not tell of.
    pub fn unregistered(&self, registry: &Registry) -> Result<Vec<Unregistered>> {
        let known: BTreeSet<PathBuf> =
            registry.snapshots()?.into_iter().map(|snapshot| snapshot.root).collect();
        let unknown = self.snapshot_folders().into_iter().filter(|folder| !known.contains(folder));
        Ok(unknown
            .map(|folder| {
                let files = self
                    .name_of(&folder)
                    .and_then(|_| self.read_links(&folder))
                    .map(|files| files.into_iter().map(|file| (file.path, file.digest)).collect())
                    .map_err(|error| error.message().to_owned());
                Unregistered { folder, files }
            })
            .collect())
    }

    /// Says that content is coming in, for as long as the guard lives.
    pub fn writing(&self) -> Result<Writing> {
        let folder = self.blobs();
        create_private_dir(&folder)?;
        let fail = |error| Error::io("lock", &folder, error);
        let file = File::open(&folder).map_err(fail)?;
        match file.lock_shared() {
            Ok(()) => {}
            // On a filesystem without locks the age of content has to tell.
            Err(error) if error.kind() == std::io::ErrorKind::Unsupported => {}
            Err(error) => return Err(fail(error)),
        }
        Ok(Writing(file))
    }

    /// Keeps content from coming in, if none is.
    pub(super) fn hold_writers(&self) -> Result<Writers> {
        let folder = self.blobs();
        if !folder.exists() {
            return Ok(Writers::Unknown);
        }
        let file = File::open(&folder).map_err(|error| Error::io("lock", &folder, error))?;
        Ok(match file.try_lock() {
            Ok(()) => Writers::None(file),
            Err(TryLockError::WouldBlock) => Writers::Some,
            Err(TryLockError::Error(_)) => Writers::Unknown,
        })
    }
}
