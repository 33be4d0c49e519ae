//! Doing what the plan says.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::plan::{Action, Step};
use crate::error::{Code, Error, Result};
use crate::fs::{Copied, Copy, FileStamp, Progress, Wanted, checksums, copy_hashed, create_private_dir};
use crate::registry::Registry;
use crate::sources::Checksum;
use crate::store::Store;
use crate::verify::problem::{Needed, StampKey, Target};

/// What other tools give files that they make.
const USUAL_MODE: u32 = 0o644;

impl Step {
    /// Does it; gives back the copy that was taken. What changed since the plan was made is left alone.
    ///
    /// A step that needs the hub is not for this: it is an error.
    pub fn apply(
        &self,
        store: &Store,
        registry: &mut Registry,
        progress: Progress<'_>,
    ) -> Result<Option<PathBuf>> {
        match &self.action {
            Action::Copy { needed, from } => needed.take(from, store, registry, progress).map(Some),
            Action::Link { target } => store.restore_link(&self.place, target).map(|()| None),
            Action::Mode(mode) => set_mode(&self.place, *mode).map(|()| None),
            Action::Fetch { .. } | Action::Nothing { .. } => {
                Err(Error::new(Code::FileNotFound, "there is no good copy on this machine"))
            }
        }
    }
}

impl Needed {
    /// Puts a copy of the first of these files that holds what is needed in its place; which one it was.
    pub fn take(
        &self,
        from: &[PathBuf],
        store: &Store,
        registry: &mut Registry,
        progress: Progress<'_>,
    ) -> Result<PathBuf> {
        let mut last = Error::new(Code::FileNotFound, "there is no good copy on this machine");
        for source in from {
            let done = match &self.target {
                Target::Blob(digest) => store.restore(registry, digest, source, progress).map(|_| ()),
                Target::Foreign { root, path, present } => {
                    into_cache(source, self, root, path, present.as_ref(), store, progress)
                }
            };
            match done {
                Ok(()) => return Ok(source.clone()),
                // Another copy may be better.
                Err(error) if matches!(error.code(), Code::IntegrityFailed | Code::FileNotFound) => {
                    last = error;
                }
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }
}

/// Puts a copy in the place of a file of another tool, whole or not at all.
fn into_cache(
    source: &Path,
    needed: &Needed,
    root: &Path,
    path: &Path,
    present: Option<&StampKey>,
    store: &Store,
    progress: Progress<'_>,
) -> Result<()> {
    let folder = path.parent().unwrap_or(root);
    check_inside(folder, root)?;
    check_same(path, present)?;
    let mode = fs::metadata(path).map_or(USUAL_MODE, |found| found.permissions().mode() & 0o777);
    let temp_dir = stage(folder, store)?;
    let bytes = fs::metadata(source).map_err(|error| Error::io("read", source, error))?.len();
    let Copied { temp, digest, .. } =
        copy_hashed(Copy { source, temp_dir: &temp_dir, still_needed: bytes }, progress)?;
    let found = match needed.checksum {
        Checksum::Sha256(_) => Some(Checksum::Sha256(digest)),
        Checksum::GitSha1(_) => {
            let wanted = Wanted { sha256: false, git_sha1: true };
            checksums(temp.path(), wanted, &|_| Ok(()))?.git_sha1.map(Checksum::GitSha1)
        }
    };
    if found != Some(needed.checksum) {
        return Err(Error::new(Code::IntegrityFailed, format!("{} holds other content", source.display())));
    }
    check_inside(folder, root)?;
    check_same(path, present)?;
    temp.publish(path, mode)
}

/// Where the copy is made: in the store, so that nothing unfinished is ever seen in another tool's folder,
/// unless that is another filesystem.
fn stage(folder: &Path, store: &Store) -> Result<PathBuf> {
    let incomplete = store.incomplete();
    create_private_dir(&incomplete)?;
    let device = |path: &Path| fs::metadata(path).map(|found| found.dev());
    let same = device(folder).map_err(|error| Error::io("read", folder, error))?
        == device(&incomplete).map_err(|error| Error::io("read", &incomplete, error))?;
    Ok(if same { incomplete } else { folder.to_owned() })
}

/// No link on the way may lead out of the cache.
fn check_inside(folder: &Path, root: &Path) -> Result<()> {
    let real = |path: &Path| fs::canonicalize(path).map_err(|error| Error::io("read", path, error));
    if real(folder)?.starts_with(real(root)?) {
        return Ok(());
    }
    Err(Error::new(Code::BoundaryViolation, format!("{} leads out of {}", folder.display(), root.display()))
        .detail("path", folder.display().to_string()))
}

/// Whether there is still what was there when the plan was made.
fn check_same(path: &Path, present: Option<&StampKey>) -> Result<()> {
    let now = match fs::symlink_metadata(path) {
        Ok(found) if found.is_file() => Some(StampKey::from(&FileStamp::of(&found))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Ok(_) => return Err(changed(path)),
        Err(error) => return Err(Error::io("read", path, error)),
    };
    if now.as_ref() == present { Ok(()) } else { Err(changed(path)) }
}

fn changed(path: &Path) -> Error {
    Error::new(Code::Locked, format!("{} was changed by another program meanwhile", path.display()))
        .detail("path", path.display().to_string())
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    let found = fs::symlink_metadata(path).map_err(|error| Error::io("read", path, error))?;
    if found.is_symlink() {
        return Err(changed(path));
    }
    fs::set_permissions(path, Permissions::from_mode(mode))
        .map_err(|error| Error::io("change the mode of", path, error))
}
