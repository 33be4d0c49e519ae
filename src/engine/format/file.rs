//! One open file of a checkpoint, read by position.
//!
//! Positional reads: a file that shrinks while it is read is an error with a code, and several threads can read
//! one file at once. Only what kernels multiply as it lies there is mapped, see [`ModelFile::region`].

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
#[cfg(target_os = "linux")]
use std::sync::{Arc, OnceLock};

#[cfg(target_os = "linux")]
use crate::engine::ffi::{Mapping, Region};
use crate::error::{Code, Error, Result};

/// A regular file, open for reading.
#[derive(Debug)]
pub struct ModelFile {
    path: PathBuf,
    file: File,
    bytes: u64,
    /// Once somebody has asked for a part of it; `None` if there can be none.
    #[cfg(target_os = "linux")]
    mapping: OnceLock<Option<Arc<Mapping>>>,
}

impl ModelFile {
    pub fn open(path: &Path) -> Result<Self> {
        // Asked before opening: to open a named pipe would wait for its writer.
        let kind = std::fs::metadata(path).map_err(|e| Error::io("read", path, e))?;
        if !kind.is_file() {
            return Err(damaged(path, "is not a regular file"));
        }
        let file = File::open(path).map_err(|e| Error::io("open", path, e))?;
        let bytes = file.metadata().map_err(|e| Error::io("read", path, e))?.len();
        Ok(Self {
            path: path.to_owned(),
            file,
            bytes,
            #[cfg(target_os = "linux")]
            mapping: OnceLock::new(),
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Size in bytes when it was opened.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Fills `buffer` from `offset`; a file that has become too short is INTEGRITY_FAILED.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.file.read_exact_at(buffer, offset).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => damaged(
                &self.path,
                &format!("ends before byte {}", offset.saturating_add(buffer.len() as u64)),
            ),
            _ => Error::io("read", &self.path, e),
        })
    }

    /// Bytes as they lie in the page cache; `None` where the system maps no files, or not this one.
    #[cfg(target_os = "linux")]
    pub fn region(&self, offset: u64, bytes: u64) -> Option<Region> {
        let mapping =
            self.mapping.get_or_init(|| Mapping::new(&self.file, &self.path, self.bytes)).as_ref()?;
        let (start, end) = (usize::try_from(offset).ok()?, usize::try_from(offset.checked_add(bytes)?).ok()?);
        Region::new(Arc::clone(mapping) as _, start..end)
    }

    /// The bytes from `offset` on, in order.
    pub fn reader(&self, offset: u64) -> impl Read + '_ {
        PositionedReader { file: &self.file, offset }
    }
}

struct PositionedReader<'a> {
    file: &'a File,
    offset: u64,
}

impl Read for PositionedReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

/// Reads a whole small file (a configuration, an index) of at most `limit` bytes.
pub fn read_small(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let file = ModelFile::open(path)?;
    if file.bytes() > limit {
        return Err(damaged(path, &format!("has {} bytes, more than the {limit} allowed", file.bytes())));
    }
    let mut content = Vec::with_capacity(file.bytes() as usize);
    let read = file.reader(0).take(limit).read_to_end(&mut content);
    read.map_err(|e| Error::io("read", path, e))?;
    Ok(content)
}

/// INTEGRITY_FAILED: "{path} {reason}".
pub fn damaged(path: &Path, reason: &str) -> Error {
    Error::new(Code::IntegrityFailed, format!("{} {reason}", path.display()))
        .hint("the file is damaged or incomplete: get the model again")
        .detail("path", path.display().to_string())
}

/// MODEL_UNSUPPORTED: "{path} {reason}".
pub fn unsupported(path: &Path, reason: &str) -> Error {
    Error::new(Code::ModelUnsupported, format!("{} {reason}", path.display()))
        .detail("path", path.display().to_string())
}
