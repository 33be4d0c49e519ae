//! Atomic publication: a file is written under a name of its own in the same filesystem and renamed
//! once it is whole and on disk.

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

use super::dir::sync_dir;
use super::lock::is_named;
use crate::error::{Error, Result};

/// How the names of unfinished files end.
const SUFFIX: &str = ".tmp";

/// A file under a temporary name, removed unless it is published. It is locked as long as its
/// process lives, so that others can tell it from what a dead process left.
#[derive(Debug)]
pub struct TempFile {
    path: PathBuf,
    file: File,
    published: bool,
}

impl TempFile {
    /// A new, empty file in `dir`, readable by its owner only.
    pub fn create_in(dir: &Path) -> Result<Self> {
        loop {
            let path = unique_path(dir);
            match OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path) {
                Ok(file) => {
                    if let Some(temp) = Self::locked(path, file) {
                        return Ok(temp);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Error::io("create a file in", dir, error)),
            }
        }
    }

    /// A file in `dir` that shares the blocks of `source`, or nothing where the filesystem cannot
    /// share them.
    pub fn clone_in(dir: &Path, source: &File) -> Option<Self> {
        let path = unique_path(dir);
        reflink_copy::reflink_file_to_path(source, &path).ok()?;
        // The clone may be read-only as its source is; nothing more is written to it.
        if let Ok(file) = File::open(&path) {
            return Self::locked(path, file);
        }
        // The copy that follows says what is wrong with the folder.
        let _ = fs::remove_file(&path);
        None
    }

    /// Locks the new file; nothing if another process took it for abandoned in the moment before.
    fn locked(path: PathBuf, file: File) -> Option<Self> {
        match file.try_lock() {
            Ok(()) if is_named(&file, &path) => {}
            Ok(()) | Err(TryLockError::WouldBlock) => return None,
            // Filesystems without locks only lose the distinction.
            Err(TryLockError::Error(_)) => {}
        }
        Some(Self { path, file, published: false })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Gives the file its mode and its name, replacing what has that name. When this returns, a power
    /// failure changes nothing any more.
    pub fn publish(mut self, target: &Path, mode: u32) -> Result<()> {
        let fail = |error| Error::io("write", target, error);
        self.file.set_permissions(Permissions::from_mode(mode)).map_err(fail)?;
        self.file.sync_all().map_err(fail)?;
        fs::rename(&self.path, target).map_err(fail)?;
        self.published = true;
        target.parent().map_or(Ok(()), sync_dir)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if !self.published {
            // Nothing can be done about it here, and the sweep of unfinished files finds it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Writes a small file so that it is there as a whole or not at all.
pub fn write_atomic(path: &Path, contents: &[u8], mode: u32) -> Result<()> {
    let mut temp = TempFile::create_in(path.parent().unwrap_or(Path::new(".")))?;
    temp.file().write_all(contents).map_err(|error| Error::io("write", path, error))?;
    temp.publish(path, mode)
}

/// Whether the process that wrote this temporary file is gone.
pub fn is_abandoned(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| file.try_lock().is_ok())
}

/// Whether a name is one of ours for something unfinished.
pub fn is_temporary(path: &Path) -> bool {
    path.file_name().is_some_and(|name| {
        let name = name.as_encoded_bytes();
        name.starts_with(b".") && name.ends_with(SUFFIX.as_bytes())
    })
}

/// A name that no other process and no other thread of this one uses, hidden and ending in `.tmp`.
pub fn unique_path(dir: &Path) -> PathBuf {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    dir.join(format!(".{}-{count}{SUFFIX}", process::id()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_there_as_a_whole_and_nothing_else() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("file");
        write_atomic(&path, b"one", 0o600).expect("write");
        write_atomic(&path, b"two", 0o444).expect("replace, although it is read-only later");
        assert_eq!(fs::read(&path).expect("read"), b"two");
        assert_eq!(fs::metadata(&path).expect("stat").permissions().mode() & 0o777, 0o444);
        assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 1);
    }

    #[test]
    fn what_is_not_published_goes() {
        let dir = tempfile::tempdir().expect("a folder");
        let temp = TempFile::create_in(dir.path()).expect("create");
        let path = temp.path().to_owned();
        assert!(path.exists() && !is_abandoned(&path));
        drop(temp);
        assert!(!path.exists());
    }
}
