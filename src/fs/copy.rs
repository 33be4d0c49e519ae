//! Content that moves into a folder of ours.

use std::fs::File;
use std::io::Seek;
use std::path::Path;

use super::hash::{Progress, check_unchanged, pump};
use super::space::space;
use super::temp::TempFile;
use super::{FileStamp, open_regular};
use crate::error::{Code, Error, Result};
use crate::ids::{Bytes, Digest};

/// A copy to be made.
#[derive(Debug, Clone, Copy)]
pub struct Copy<'a> {
    pub source: &'a Path,
    /// Folder for the unfinished file.
    pub temp_dir: &'a Path,
    /// Bytes that this and the copies after it take at most; compared with the free space as soon as
    /// it turns out that the filesystem cannot share blocks.
    pub still_needed: u64,
}

/// A copy under a temporary name.
#[derive(Debug)]
pub struct Copied {
    pub temp: TempFile,
    pub digest: Digest,
    /// Identity of the source.
    pub source: FileStamp,
}

/// Clones a file where the filesystem can share blocks and copies it elsewhere, and hashes what
/// arrived.
pub fn copy_hashed(copy: Copy<'_>, progress: Progress<'_>) -> Result<Copied> {
    copy_open(&open_regular(copy.source)?.0, copy, progress)
}

/// The same for a file that is open; its path is for messages.
pub fn copy_open(mut file: &File, copy: Copy<'_>, progress: Progress<'_>) -> Result<Copied> {
    let fail = |error| Error::io("read", copy.source, error);
    let stamp = FileStamp::of(&file.metadata().map_err(fail)?);
    file.rewind().map_err(fail)?;
    let (temp, digest) = if let Some(mut temp) = TempFile::clone_in(copy.temp_dir, file) {
        let path = temp.path().to_owned();
        let digest = pump(temp.file(), &path, &mut std::io::sink(), &path, progress)?;
        (temp, digest)
    } else {
        check_space(copy.temp_dir, copy.still_needed)?;
        let mut temp = TempFile::create_in(copy.temp_dir)?;
        let path = temp.path().to_owned();
        let digest = pump(file, copy.source, temp.file(), &path, progress)?;
        (temp, digest)
    };
    check_unchanged(file, copy.source, &stamp)?;
    Ok(Copied { temp, digest, source: stamp })
}

fn check_space(dir: &Path, needed: u64) -> Result<()> {
    let free = space(dir)?.free;
    if needed <= free {
        return Ok(());
    }
    let message = format!(
        "{} has too little free space: {} needed, {} free",
        dir.display(),
        Bytes(needed),
        Bytes(free)
    );
    Err(Error::new(Code::InsufficientDisk, message)
        .detail("path", dir.display().to_string())
        .detail("bytes_needed", needed)
        .detail("bytes_free", free)
        .hint("free some disk space, or choose another disk with MLX_CACHE_HOME"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_the_content_and_its_digest() {
        let dir = tempfile::tempdir().expect("a folder");
        let source = dir.path().join("source");
        std::fs::write(&source, "abc").expect("write");
        let copy = Copy { source: &source, temp_dir: dir.path(), still_needed: 3 };
        let copied = copy_hashed(copy, &|_| Ok(())).expect("copy");
        assert_eq!(std::fs::read(copied.temp.path()).expect("read"), b"abc");
        assert!(copied.digest.to_string().starts_with("ba7816bf"));
    }

    #[test]
    fn what_cannot_fit_is_refused_before_it_is_written() {
        let dir = tempfile::tempdir().expect("a folder");
        let error = check_space(dir.path(), u64::MAX).expect_err("no disk is that large");
        assert_eq!(error.code(), Code::InsufficientDisk);
    }
}
