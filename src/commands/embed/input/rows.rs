//! Comma- and tab-separated values with a line of names.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use csv::{ByteRecord, Reader, ReaderBuilder};

use super::{Carried, Record, Records, broken, decode, too_long};
use crate::cli::embed::Invalid;
use crate::commands::pieces::{LONGEST, unreadable};
use crate::error::{Code, Error, Result};

pub(super) struct Rows {
    reader: Reader<Bounded>,
    /// Bytes read since the last row; a quote that is never closed would take in the whole input.
    since: Arc<AtomicU64>,
    column: Option<String>,
    /// Names, and which of them is the text's; known once the first row was read.
    head: Option<(Arc<[String]>, usize)>,
    invalid: Invalid,
}

impl Rows {
    pub(super) fn new(
        reader: Box<dyn Read + Send>,
        delimiter: u8,
        column: Option<String>,
        invalid: Invalid,
    ) -> Self {
        let since = Arc::new(AtomicU64::new(0));
        let reader = Bounded { reader, since: Arc::clone(&since) };
        let reader = ReaderBuilder::new().delimiter(delimiter).from_reader(reader);
        Self { reader, since, column, head: None, invalid }
    }

    fn head(&mut self) -> Result<(Arc<[String]>, usize)> {
        if let Some(head) = &self.head {
            return Ok(head.clone());
        }
        let record = self.reader.byte_headers().map_err(|error| fault(error, 1))?.clone();
        let names: Arc<[String]> =
            record.iter().map(|name| decode(name.to_vec(), 1, self.invalid)).collect::<Result<_>>()?;
        let wanted = self.column.as_deref().unwrap_or("text");
        let found = names.iter().position(|name| name == wanted);
        let only = (self.column.is_none() && names.len() == 1).then_some(0);
        let Some(column) = found.or(only) else {
            return Err(Error::new(
                Code::InvalidRequest,
                format!("the first line names no column '{wanted}'"),
            )
            .hint(format!("choose with --column among {}", names.join(", ").escape_debug())));
        };
        self.head = Some((Arc::clone(&names), column));
        Ok((names, column))
    }
}

impl Records for Rows {
    fn next(&mut self) -> Result<Option<Record>> {
        let (names, column) = self.head()?;
        self.since.store(0, Ordering::Relaxed);
        let begins = self.reader.position().line();
        let mut row = ByteRecord::new();
        if !self.reader.read_byte_record(&mut row).map_err(|error| fault(error, begins))? {
            return Ok(None);
        }
        let number = row.position().map_or(begins, csv::Position::line);
        let mut values = row
            .iter()
            .map(|value| decode(value.to_vec(), number, self.invalid))
            .collect::<Result<Vec<_>>>()?;
        values.truncate(names.len());
        let text = values.get(column).cloned().unwrap_or_default();
        Ok(Some(Record { number, text, carried: Carried::Row { names, values } }))
    }

    fn position(&self) -> u64 {
        self.reader.position().byte()
    }
}

/// Fails once too much was read for one row.
struct Bounded {
    reader: Box<dyn Read + Send>,
    since: Arc<AtomicU64>,
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        if self.since.fetch_add(read as u64, Ordering::Relaxed) > LONGEST {
            return Err(io::Error::from(io::ErrorKind::OutOfMemory));
        }
        Ok(read)
    }
}

fn fault(error: csv::Error, line: u64) -> Error {
    let line = error.position().map_or(line, csv::Position::line);
    match error.into_kind() {
        csv::ErrorKind::Io(error) if error.kind() == io::ErrorKind::OutOfMemory => too_long(line),
        csv::ErrorKind::Io(error) => unreadable(error),
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            broken(line, &format!("has {len} values for {expected_len} columns"))
                .hint("put values that contain the separator or a line's end in quotes")
        }
        other => broken(line, &format!("is no row of values: {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(bytes: &'static [u8], delimiter: u8, column: Option<&str>) -> Result<Vec<(u64, String)>> {
        let mut rows = Rows::new(Box::new(bytes), delimiter, column.map(str::to_owned), Invalid::Error);
        let mut found = Vec::new();
        while let Some(record) = rows.next()? {
            found.push((record.number, record.text));
        }
        Ok(found)
    }

    fn owned(rows: &[(u64, &str)]) -> Vec<(u64, String)> {
        rows.iter().map(|row| (row.0, row.1.to_owned())).collect()
    }

    #[test]
    fn the_column_is_found_by_its_name() {
        let csv = b"id,text\n1,\"a, \"\"b\"\"\nc\"\n2,d\n";
        assert_eq!(rows(csv, b',', None).unwrap(), owned(&[(2, "a, \"b\"\nc"), (4, "d")]));
        assert_eq!(rows(csv, b',', Some("id")).unwrap(), owned(&[(2, "1"), (4, "2")]));
        assert_eq!(rows(b"id\tt\n1\tx y\n", b'\t', Some("t")).unwrap(), owned(&[(2, "x y")]));
        assert_eq!(rows(b"whatever\nx\n", b',', None).unwrap(), owned(&[(2, "x")]), "the only one");
        assert_eq!(rows(b"text\n", b',', None).unwrap(), owned(&[]));
    }

    #[test]
    fn rows_that_do_not_fit_are_errors_with_their_line() {
        for (bytes, what) in [
            (&b"text,b\nx,1\ny\n"[..], "line 3 has 1 values for 2 columns"),
            (b"text,b\nx,1\n\xff,2\n", "line 3 is not UTF-8"),
            (b"a,b\n1,2\n", "no column 'text'"),
        ] {
            let error = rows(bytes, b',', None).unwrap_err();
            assert!(error.message().contains(what), "{error}");
        }
    }
}
