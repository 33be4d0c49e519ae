//! What of an export is on this machine.

use std::fs;

use crate::error::{Code, Result};
use crate::fs::{FileStamp, Progress, hash_file, try_map};
use crate::registry::NewSnapshot;
use crate::store::Store;

/// Why a model is not registered.
#[derive(Debug)]
pub(super) struct Absence {
    pub reason: String,
    /// Size of what is missing.
    pub bytes: u64,
    /// Whether a command could bring it.
    pub can_be_brought: bool,
}

/// How one file is.
enum File {
    /// As it should be; its identity, if it was hashed.
    Here(Option<FileStamp>),
    Missing,
    /// Something else is in its place.
    Other,
}

/// Compares a snapshot's files with what is here: by size, or by their bytes. Nothing if all are here.
pub(super) fn look(
    new: &mut NewSnapshot,
    store: &Store,
    hash: bool,
    progress: Progress<'_>,
) -> Result<Option<Absence>> {
    let is_stored = new.origin.is_stored();
    let found = try_map(&new.files, |file| {
        let path = if is_stored { store.blob(&file.digest) } else { new.root.join(&file.path) };
        let metadata = if is_stored { fs::symlink_metadata(&path) } else { fs::metadata(&path) };
        match metadata {
            Ok(metadata) if metadata.is_file() && metadata.len() == file.bytes => {}
            Ok(_) => return Ok(File::Other),
            Err(_) => return Ok(File::Missing),
        }
        if !hash {
            return Ok(File::Here(None));
        }
        match hash_file(&path, progress) {
            Ok(hashed) if hashed.digest == file.digest => Ok(File::Here(Some(hashed.stamp))),
            Err(error) if error.code() == Code::Interrupted => Err(error),
            Ok(_) | Err(_) => Ok(File::Other),
        }
    })?;
    let (mut missing, mut other, mut bytes) = (0, 0, 0);
    for (file, found) in new.files.iter_mut().zip(found) {
        match found {
            File::Here(stamp) => file.stamp = stamp,
            File::Missing => (missing, bytes) = (missing + 1, bytes + file.bytes),
            File::Other => (other, bytes) = (other + 1, bytes + file.bytes),
        }
    }
    let all = new.files.len();
    Ok(match (missing, other) {
        (0, 0) => None,
        (missing, 0) => Some(format!("{missing} of {all} files are not here")),
        (0, other) => Some(format!("{other} of {all} files are not what they were")),
        (missing, other) => {
            Some(format!("{missing} of {all} files are not here, {other} are not what they were"))
        }
    }
    .map(|reason| Absence { reason, bytes, can_be_brought: true }))
}
