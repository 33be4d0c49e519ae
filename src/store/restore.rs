//! Content and links that are put back in place.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::blobs::BLOB_MODE;
use super::{PATIENCE, Store};
use crate::error::{Code, Error, Result};
use crate::fs::{
    Copied, Copy, FileLock, FileStamp, Progress, copy_hashed, create_private_dir, place_symlink, sync_dir,
    unique_path,
};
use crate::ids::Digest;
use crate::registry::{Registry, Verified};

impl Store {
    /// Puts a copy of `source` in the place of a blob, if it holds the blob's content, and gives the names
    /// that other tools' links point at the same. Whoever has the old file open keeps it.
    ///
    /// INTEGRITY_FAILED if the source holds something else.
    pub fn restore(
        &self,
        registry: &mut Registry,
        digest: &Digest,
        source: &Path,
        progress: Progress<'_>,
    ) -> Result<FileStamp> {
        create_private_dir(&self.incomplete())?;
        let bytes = fs::metadata(source).map_err(|error| Error::io("read", source, error))?.len();
        let copy = Copy { source, temp_dir: &self.incomplete(), still_needed: bytes };
        let Copied { temp, digest: found, .. } = copy_hashed(copy, progress)?;
        if found != *digest {
            return Err(Error::new(
                Code::IntegrityFailed,
                format!("{} holds other content", source.display()),
            )
            .detail("path", source.display().to_string()));
        }
        let path = self.blob(digest);
        create_private_dir(&self.locks())?;
        let _own = FileLock::acquire(&self.locks().join(format!("{digest}.lock")), PATIENCE)?;
        let _all = self.lock()?;
        if let Some(folder) = path.parent() {
            create_private_dir(folder)?;
        }
        make_way(&path)?;
        temp.publish(&path, BLOB_MODE)?;
        for link in registry.links_of(&[*digest])? {
            if let Some(name) = link.name.filter(|name| name.exists()) {
                replace_name(&path, &name)?;
            }
        }
        // Names are added to the new file: its identity is what it is after that.
        let metadata = fs::metadata(&path).map_err(|error| Error::io("read", &path, error))?;
        let stamp = FileStamp::of(&metadata);
        registry.record_verified(&[Verified::Blob(*digest, stamp)])?;
        Ok(stamp)
    }

    /// Makes a link of a snapshot's folder anew. A file in its place that holds other content than the link
    /// would lead to is left alone: INVALID_REQUEST.
    pub fn restore_link(&self, link: &Path, target: &Path) -> Result<()> {
        let _lock = self.lock()?;
        let Some(parent) = link.parent().filter(|parent| parent.starts_with(self.models())) else {
            return Err(Error::internal(format!("{} is no link of a snapshot", link.display())));
        };
        create_private_dir(parent)?;
        let present = match fs::symlink_metadata(link) {
            Ok(present) => present,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return place_and_sync(target, link),
            Err(error) => return Err(Error::io("read", link, error)),
        };
        let is_same = present.is_file() && same_content(link, &parent.join(target))?;
        if present.is_symlink() || is_same {
            return place_and_sync(target, link);
        }
        Err(Error::new(Code::InvalidRequest, format!("{} is not the model's file", link.display()))
            .detail("path", link.display().to_string())
            .hint("move it away and try again"))
    }
}

fn place_and_sync(target: &Path, link: &Path) -> Result<()> {
    place_symlink(target, link)?;
    link.parent().map_or(Ok(()), sync_dir)
}

fn same_content(one: &Path, other: &Path) -> Result<bool> {
    let none: Progress<'_> = &|_| Ok(());
    Ok(crate::fs::hash_file(one, none)?.digest == crate::fs::hash_file(other, none)?.digest)
}

/// Takes an empty folder or a link out of the place of a blob; a file is replaced by renaming.
fn make_way(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir(path).map_err(|error| Error::io("remove", path, error)),
        _ => Ok(()),
    }
}

/// Makes `name` a name of the file at `path`, in place of what has it.
fn replace_name(path: &Path, name: &Path) -> Result<()> {
    let fail = |error| Error::io("link", name, error);
    let folder: PathBuf = name.parent().unwrap_or(name).to_owned();
    let temp = unique_path(&folder);
    fs::hard_link(path, &temp).map_err(fail)?;
    fs::rename(&temp, name).map_err(|error| {
        let _ = fs::remove_file(&temp);
        fail(error)
    })?;
    sync_dir(&folder)
}
