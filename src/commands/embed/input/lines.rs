//! A text a line, or between NUL bytes.

use std::io::{BufRead, BufReader, Read};

use super::{Carried, LONGEST, Record, Records, decode, too_long, unreadable};
use crate::cli::embed::Invalid;
use crate::error::Result;

const BUFFER: usize = 256 << 10;
const BYTE_ORDER_MARK: &[u8] = &[0xef, 0xbb, 0xbf];

/// Reads pieces that end with a byte, which they do not keep.
pub(super) struct Pieces {
    reader: BufReader<Box<dyn Read + Send>>,
    end: u8,
    pub(super) number: u64,
    pub(super) position: u64,
}

impl Pieces {
    pub(super) fn new(reader: Box<dyn Read + Send>, end: u8) -> Self {
        Self { reader: BufReader::with_capacity(BUFFER, reader), end, number: 0, position: 0 }
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
            return Err(too_long(self.number));
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

pub(super) struct Lines {
    pieces: Pieces,
    invalid: Invalid,
}

impl Lines {
    pub(super) fn new(reader: Box<dyn Read + Send>, end: u8, invalid: Invalid) -> Self {
        Self { pieces: Pieces::new(reader, end), invalid }
    }
}

impl Records for Lines {
    fn next(&mut self) -> Result<Option<Record>> {
        let Some(piece) = self.pieces.next()? else { return Ok(None) };
        let number = self.pieces.number;
        let text = decode(piece, number, self.invalid)?;
        Ok(Some(Record { number, text, carried: Carried::Nothing }))
    }

    fn position(&self) -> u64 {
        self.pieces.position
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    fn lines(bytes: &'static [u8], end: u8, invalid: Invalid) -> Result<Vec<(u64, String)>> {
        let mut lines = Lines::new(Box::new(bytes), end, invalid);
        let mut found = Vec::new();
        while let Some(record) = lines.next()? {
            found.push((record.number, record.text));
        }
        Ok(found)
    }

    fn texts(bytes: &'static [u8], end: u8) -> Vec<String> {
        lines(bytes, end, Invalid::Error).unwrap().into_iter().map(|line| line.1).collect()
    }

    #[test]
    fn a_line_ends_with_a_line_feed_or_the_input() {
        assert_eq!(texts(b"one\ntwo\r\n\nfour", b'\n'), ["one", "two", "", "four"]);
        assert_eq!(texts(b"one\n", b'\n'), ["one"]);
        assert_eq!(texts(b"", b'\n'), Vec::<String>::new());
        assert_eq!(texts(b"a\nb\r\0c", 0), ["a\nb\r", "c"]);
        assert_eq!(texts(b"\xef\xbb\xbfone\n\xef\xbb\xbftwo", b'\n'), ["one", "\u{feff}two"]);
    }

    #[test]
    fn bytes_that_are_no_text_are_an_error_with_the_line_or_replaced() {
        let error = lines(b"fine\nb\xff\n", b'\n', Invalid::Error).unwrap_err();
        assert_eq!(error.code(), Code::EmbeddingFailed);
        assert!(error.message().contains("line 2") && error.message().contains("byte 2"), "{error}");
        assert_eq!(lines(b"b\xffc", b'\n', Invalid::Replace).unwrap(), [(1, "b\u{fffd}c".to_owned())]);
    }
}
