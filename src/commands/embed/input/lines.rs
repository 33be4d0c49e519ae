//! A text a line, or between NUL bytes.

use std::io::Read;

use super::{Carried, Record, Records, decode, too_long};
use crate::cli::embed::Invalid;
use crate::commands::pieces::Pieces;
use crate::error::Result;

pub(super) struct Lines {
    pieces: Pieces,
    invalid: Invalid,
}

impl Lines {
    pub(super) fn new(reader: Box<dyn Read + Send>, end: u8, invalid: Invalid) -> Self {
        Self { pieces: Pieces::new(reader, end, too_long), invalid }
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
