//! SHA-256 of files.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use sha2::Digest as _;

use super::file::{FileStamp, open_regular};
use crate::error::{Code, Error, Result};
use crate::ids::{Checksum, Digest};

/// Called with the number of bytes done since the last call, from whichever thread does the work; an
/// error ends the work.
pub type Progress<'a> = &'a (dyn Fn(u64) -> Result<()> + Sync);

/// Large enough that system calls do not count, small enough to stay in the processor's cache.
const BUFFER: usize = 128 << 10;

/// What [`MetadataExt::blocks`] counts in, whatever the filesystem's own blocks are.
const BLOCK: u64 = 512;

/// What holes read as.
static ZEROS: [u8; BUFFER] = [0; BUFFER];

/// How much of a file's beginning and of its end [`hash_ends`] looks at, in bytes.
pub const ENDS: u64 = 8 << 10;

/// A file's content and the identity it had while it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hashed {
    pub digest: Digest,
    pub stamp: FileStamp,
}

/// Hashes a file. One that changes meanwhile is INTEGRITY_FAILED.
pub fn hash_file(path: &Path, progress: Progress<'_>) -> Result<Hashed> {
    let (file, stamp) = open_regular(path)?;
    let digest = pump(&file, path, &mut io::sink(), path, progress)?;
    check_unchanged(&file, path, &stamp)?;
    Ok(Hashed { digest, stamp })
}

/// Hashes a file that is open, from its beginning; `path` is for messages.
pub fn hash_open(mut file: &File, path: &Path, progress: Progress<'_>) -> Result<Hashed> {
    let fail = |error| Error::io("read", path, error);
    let stamp = FileStamp::of(&file.metadata().map_err(fail)?);
    file.rewind().map_err(fail)?;
    let digest = pump(file, path, &mut io::sink(), path, progress)?;
    check_unchanged(file, path, &stamp)?;
    Ok(Hashed { digest, stamp })
}

/// The same, but holes of a sparse file count as the zeros that they read as without being read, on the
/// filesystem's word: good enough for a look, not for an act.
pub fn hash_sparse(file: &File, path: &Path, progress: Progress<'_>) -> Result<Hashed> {
    let metadata = file.metadata().map_err(|error| Error::io("read", path, error))?;
    let stamp = FileStamp::of(&metadata);
    if stamp.bytes <= BUFFER as u64 || metadata.blocks().saturating_mul(BLOCK) >= stamp.bytes {
        return hash_open(file, path, progress);
    }
    let mut hasher = sha2::Sha256::new();
    read_extents(file, path, stamp.bytes, &mut |piece| {
        hasher.update(piece);
        progress(piece.len() as u64)
    })?;
    check_unchanged(file, path, &stamp)?;
    Ok(Hashed { digest: Digest::from_bytes(hasher.finalize().into()), stamp })
}

/// A short hash of a file's first and last bytes, [`ENDS`] each: files that differ in it differ.
pub fn hash_ends(file: &File, bytes: u64) -> io::Result<u64> {
    let mut hasher = sha2::Sha256::new();
    let mut buffer = [0; ENDS as usize];
    for at in [0, bytes.saturating_sub(ENDS)] {
        let length = bytes.min(ENDS) as usize;
        let piece = buffer.get_mut(..length).unwrap_or_default();
        file.read_exact_at(piece, at)?;
        hasher.update(&*piece);
    }
    let hash: [u8; 32] = hasher.finalize().into();
    Ok(hash.iter().take(8).fold(0, |bits, byte| bits << 8 | u64::from(*byte)))
}

/// The names that content has: our own, and git's where it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentHashes {
    pub digest: Digest,
    /// SHA-1 of `blob <length>\0` and the content.
    pub git: Option<[u8; 20]>,
}

impl ContentHashes {
    /// Whether the content is what the checksum says.
    pub fn are(&self, checksum: &Checksum) -> bool {
        match checksum {
            Checksum::Sha256(digest) => self.digest == *digest,
            Checksum::GitSha1(name) => self.git == Some(*name),
        }
    }
}

/// What it takes to name content and to compare it with a checksum, in one pass.
#[derive(Debug, Clone)]
pub struct ContentHasher {
    sha256: sha2::Sha256,
    sha1: Option<sha1::Sha1>,
}

impl ContentHasher {
    /// For content of this many bytes that is to be compared with this checksum.
    pub fn new(checksum: &Checksum, bytes: u64) -> Self {
        let sha1 = match checksum {
            Checksum::Sha256(_) => None,
            Checksum::GitSha1(_) => Some(git_hasher(bytes)),
        };
        Self { sha256: sha2::Sha256::new(), sha1 }
    }

    pub fn update(&mut self, piece: &[u8]) {
        self.sha256.update(piece);
        if let Some(sha1) = &mut self.sha1 {
            sha1.update(piece);
        }
    }

    pub fn finish(self) -> ContentHashes {
        ContentHashes {
            digest: Digest::from_bytes(self.sha256.finalize().into()),
            git: self.sha1.map(|sha1| sha1.finalize().into()),
        }
    }
}

/// What names content of so many bytes as git does: SHA-1 of `blob <length>\0` and the content.
pub(super) fn git_hasher(bytes: u64) -> sha1::Sha1 {
    sha1::Sha1::new().chain_update(format!("blob {bytes}\0"))
}

/// Hashes a file for a comparison with a checksum. One that changes meanwhile is INTEGRITY_FAILED.
pub fn hash_contents(path: &Path, checksum: &Checksum, progress: Progress<'_>) -> Result<ContentHashes> {
    let (file, stamp) = open_regular(path)?;
    let mut hasher = ContentHasher::new(checksum, stamp.bytes);
    read_pieces(&file, path, &mut |piece| {
        hasher.update(piece);
        progress(piece.len() as u64)
    })?;
    check_unchanged(&file, path, &stamp)?;
    Ok(hasher.finish())
}

/// Reads `source` to its end into `target` and hashes it on the way.
pub(super) fn pump(
    source: &File,
    source_path: &Path,
    target: &mut dyn Write,
    target_path: &Path,
    progress: Progress<'_>,
) -> Result<Digest> {
    let mut hasher = sha2::Sha256::new();
    read_pieces(source, source_path, &mut |piece| {
        hasher.update(piece);
        target.write_all(piece).map_err(|error| Error::io("write", target_path, error))?;
        progress(piece.len() as u64)
    })?;
    Ok(Digest::from_bytes(hasher.finalize().into()))
}

/// Reads a file to its end.
pub(super) fn read_pieces(
    mut source: &File,
    path: &Path,
    take: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    // Of a small file no more than it needs: there may be very many.
    let length = source.metadata().map_or(BUFFER as u64, |metadata| metadata.len());
    let mut buffer = vec![0; BUFFER.min(length as usize + 1)];
    if length > BUFFER as u64 {
        read_ahead(source);
    }
    loop {
        match source.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => take(buffer.get(..length).unwrap_or_default())?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io("read", path, error)),
        }
    }
}

/// Hands on so many bytes of a file, zeros for its holes.
fn read_extents(
    source: &File,
    path: &Path,
    length: u64,
    take: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let mut buffer = vec![0; BUFFER];
    let mut at = 0;
    while at < length {
        let (data, end) = next_data(source, at, length);
        while at < data {
            let piece = (data - at).min(BUFFER as u64);
            take(ZEROS.get(..piece as usize).unwrap_or_default())?;
            at += piece;
        }
        while at < end {
            let room = (end - at).min(BUFFER as u64) as usize;
            match source.read_at(buffer.get_mut(..room).unwrap_or_default(), at) {
                // It got shorter, and whoever compares its stamps sees that.
                Ok(0) => return Ok(()),
                Ok(read) => {
                    take(buffer.get(..read).unwrap_or_default())?;
                    at += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io("read", path, error)),
            }
        }
    }
    Ok(())
}

/// Where the next data of a file begin at `at` or later, and where they end.
#[cfg(target_os = "linux")]
fn next_data(file: &File, at: u64, length: u64) -> (u64, u64) {
    use rustix::fs::{SeekFrom, seek};
    match seek(file, SeekFrom::Data(at)) {
        Ok(data) => {
            // Whatever it says, it goes on.
            let end = seek(file, SeekFrom::Hole(data)).ok().filter(|end| *end > data);
            (data.min(length), end.unwrap_or(length).min(length))
        }
        // No more of them.
        Err(rustix::io::Errno::NXIO) => (length, length),
        // A filesystem that does not tell.
        Err(_) => (at, length),
    }
}

#[cfg(not(target_os = "linux"))]
fn next_data(_: &File, at: u64, length: u64) -> (u64, u64) {
    (at, length)
}

/// Lets the system read far ahead of a file that is read once from its start.
#[cfg(target_os = "linux")]
fn read_ahead(file: &File) {
    // Advice: without it the file is only read more slowly.
    let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::Sequential);
}

#[cfg(not(target_os = "linux"))]
fn read_ahead(_: &File) {}

/// Whether an open file still has the content that it had when it got this stamp. The time of the
/// inode does not count: links come and go.
pub(super) fn check_unchanged(file: &File, path: &Path, before: &FileStamp) -> Result<()> {
    let now = FileStamp::of(&file.metadata().map_err(|error| Error::io("read", path, error))?);
    if (now.bytes, now.modified_ns) == (before.bytes, before.modified_ns) {
        return Ok(());
    }
    Err(Error::new(Code::IntegrityFailed, format!("{} changed while it was read", path.display()))
        .detail("path", path.display().to_string())
        .hint("wait until the program that writes it is done, then try again"))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn a_file_has_the_digest_of_its_bytes_and_progress_counts_them() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("file");
        std::fs::write(&path, vec![7; 3 * BUFFER + 5]).expect("write");
        let seen = AtomicU64::new(0);
        let hashed = hash_file(&path, &|bytes| {
            seen.fetch_add(bytes, Ordering::Relaxed);
            Ok(())
        })
        .expect("hash");
        assert_eq!(seen.into_inner(), 3 * BUFFER as u64 + 5);
        let expected: [u8; 32] = sha2::Sha256::digest(vec![7; 3 * BUFFER + 5]).into();
        assert_eq!(hashed.digest, Digest::from_bytes(expected));

        std::fs::write(&path, "abc").expect("write");
        let digest = hash_file(&path, &|_| Ok(())).expect("hash").digest.to_string();
        // FIPS 180-2, appendix B.1.
        assert_eq!(digest, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn holes_count_as_the_zeros_that_they_read_as() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("file");
        let (mebi, piece) = (1 << 20, [7; 5000]);
        // Data at the beginning, at the end, in between, nowhere.
        for places in [&[0][..], &[4 * mebi - 5000], &[mebi + 77, 2 * mebi], &[]] {
            let file = File::create(&path).expect("a file");
            file.set_len(4 * mebi).expect("a length");
            for at in places {
                file.write_all_at(&piece, *at).expect("written");
            }
            let read = AtomicU64::new(0);
            let file = File::open(&path).expect("open");
            let sparse = hash_sparse(&file, &path, &|bytes| {
                read.fetch_add(bytes, Ordering::Relaxed);
                Ok(())
            });
            assert_eq!(sparse.expect("hash"), hash_file(&path, &|_| Ok(())).expect("hash"), "{places:?}");
            assert_eq!(read.into_inner(), 4 * mebi);
        }
    }

    #[test]
    fn ends_tell_files_apart_that_begin_and_end_differently() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("file");
        let ends = |content: &[u8]| {
            std::fs::write(&path, content).expect("write");
            hash_ends(&File::open(&path).expect("open"), content.len() as u64).expect("hash")
        };
        let content = vec![7; 5 * ENDS as usize];
        let changed = |at: usize| {
            let mut content = content.clone();
            content[at] = 8;
            ends(&content)
        };
        assert_eq!(changed(2 * ENDS as usize), ends(&content), "the middle is not looked at");
        assert_ne!(changed(0), ends(&content));
        assert_ne!(changed(content.len() - 1), ends(&content));
        assert_ne!(ends(b"a"), ends(b"b"));
        ends(b"");
    }

    #[test]
    fn a_file_that_changes_meanwhile_is_an_error() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("file");
        std::fs::write(&path, vec![7; BUFFER]).expect("write");
        let error = hash_file(&path, &|_| {
            std::fs::write(&path, "shorter").expect("write");
            Ok(())
        })
        .expect_err("it changed");
        assert_eq!(error.code(), Code::IntegrityFailed);
    }
}
