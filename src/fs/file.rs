//! Opening and recognising files.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::OFlags;

use crate::error::{Error, Result};

/// What tells that a file is still the one that was read: a changed content changes one of these,
/// unless somebody goes out of their way to hide it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileStamp {
    pub device: u64,
    pub inode: u64,
    pub bytes: u64,
    /// Last change of the content, nanoseconds since 1970.
    pub modified_ns: i64,
    /// Last change of the inode, nanoseconds since 1970.
    pub changed_ns: i64,
}

impl FileStamp {
    pub fn of(metadata: &Metadata) -> Self {
        let nanoseconds =
            |seconds: i64, rest: i64| seconds.saturating_mul(1_000_000_000).saturating_add(rest);
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified_ns: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// The path made absolute and without `.`, `..` and a slash at its end. Links stay as they are, except in
/// a path with `..`, which the filesystem alone can follow; there the last name still stays.
pub fn plain_path(path: &Path) -> io::Result<PathBuf> {
    let absolute: PathBuf = std::path::absolute(path)?.components().collect();
    if !absolute.components().any(|part| part == Component::ParentDir) {
        return Ok(absolute);
    }
    let resolved = match (absolute.parent(), absolute.file_name()) {
        (Some(parent), Some(name)) => parent.canonicalize().map(|parent| parent.join(name)),
        _ => absolute.canonicalize(),
    };
    // What is not there is named as it was written.
    Ok(resolved.unwrap_or(absolute))
}

/// Opens a regular file for reading, through symlinks. A fifo or a device is an error, not a wait.
pub fn open_regular(path: &Path) -> Result<(File, FileStamp)> {
    let fail = |error| Error::io("read", path, error);
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits() as i32)
        .open(path)
        .map_err(fail)?;
    let metadata = file.metadata().map_err(fail)?;
    if metadata.is_dir() {
        return Err(fail(io::ErrorKind::IsADirectory.into()));
    }
    if !metadata.is_file() {
        return Err(fail(io::Error::other("it is not a regular file")));
    }
    Ok((file, FileStamp::of(&metadata)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lose_their_detours_but_not_their_links() {
        let dir = tempfile::tempdir().expect("a folder");
        let root = dir.path().canonicalize().expect("a path");
        std::fs::create_dir_all(root.join("a/b")).expect("folders");
        std::os::unix::fs::symlink(root.join("a/b"), root.join("link")).expect("link");
        let plain = |text: &str| plain_path(&root.join(text)).expect("a path");
        assert_eq!(plain("a/./b/"), root.join("a/b"));
        assert_eq!(plain("link"), root.join("link"));
        assert_eq!(plain("a/../link"), root.join("link"));
        // Up from where the link leads.
        assert_eq!(plain("link/../x"), root.join("a/x"));
        assert_eq!(plain("link/.."), root.join("a"));
        assert_eq!(plain("absent/../x"), root.join("absent/../x"));
    }

    #[test]
    fn what_is_no_regular_file_is_an_error_at_once() {
        let dir = tempfile::tempdir().expect("a folder");
        assert!(open_regular(dir.path()).is_err());
        let fifo = dir.path().join("fifo");
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().expect("mkfifo").success());
        assert!(open_regular(&fifo).expect_err("a fifo").message().contains("regular file"));
    }
}
