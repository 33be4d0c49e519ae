//! Input of any length, piece by piece: lines, or texts between NUL bytes.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use crate::error::{Code, Error, Result};

/// The longest piece in bytes.
pub(super) const LONGEST: u64 = 64 << 20;
const BUFFER: usize = 256 << 10;
const BYTE_ORDER_MARK: &[u8] = &[0xef, 0xbb, 0xbf];

/// Reads pieces that end with a byte, which they do not keep.
pub(super) struct Pieces {
    reader: BufReader<Box<dyn Read + Send>>,
    end: u8,
    /// The error of a piece that is longer than [`LONGEST`], by its number.
    too_long: fn(u64) -> Error,
    /// Of the last piece, counted from 1.
    pub(super) number: u64,
    /// Bytes read so far.
    pub(super) position: u64,
}

impl Pieces {
    pub(super) fn new(reader: Box<dyn Read + Send>, end: u8, too_long: fn(u64) -> Error) -> Self {
        Self { reader: BufReader::with_capacity(BUFFER, reader), end, too_long, number: 0, position: 0 }
    }

    /// The next piece, without the `\r` of a line's end.
    pub(super) fn next(&mut self) -> Result<Option<Vec<u8>>> {
        let mut piece = Vec::new();
        let read =
            self.reader.by_ref().take(LONGEST + 1).read_until(self.end, &mut piece).map_err(unreadable)?;
        if read == 0 {
            return Ok(None);
        }
        self.number += 1;
        self.position += read as u64;
        if read as u64 > LONGEST {
            return Err((self.too_long)(self.number));
        }
        if piece.last() == Some(&self.end) {
            piece.pop();
            if self.end == b'\n' && piece.last() == Some(&b'\r') {
                piece.pop();
            }
        }
        if self.number == 1 && piece.starts_with(BYTE_ORDER_MARK) {
            piece.drain(..BYTE_ORDER_MARK.len());
        }
        Ok(Some(piece))
    }
}

/// Opens an input, with its size in bytes; without one if it is no file, such as a pipe. `of` says what it
/// is to hold.
pub(super) fn open(path: &Path, of: &str) -> Result<(File, Option<u64>)> {
    let file = File::open(path).map_err(|error| Error::io("open", path, error))?;
    let metadata = file.metadata().map_err(|error| Error::io("read", path, error))?;
    if metadata.is_dir() {
        let message = format!("{} is a folder, not a file of {of}", path.display());
        return Err(Error::new(Code::InvalidRequest, message).hint("name one file"));
    }
    Ok((file, metadata.is_file().then_some(metadata.len())))
}

pub(super) fn unreadable(error: io::Error) -> Error {
    Error::io("read", Path::new("the input"), error)
}
