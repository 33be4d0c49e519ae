//! Texts as they come: from arguments, from standard input or from a file, one by one.

mod lines;
mod objects;
mod rows;

use std::ffi::OsStr;
use std::io::{self, IsTerminal, Read};
use std::path::Path;
use std::sync::Arc;

use crate::cli::embed::{EmbedArgs, Empty, InputFormat, Invalid};
use crate::commands::pieces::{self, LONGEST};
use crate::error::{Code, Error, Result};

/// One text and what came with it.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The line that it began in, or which argument it was; counted from 1.
    pub number: u64,
    pub text: String,
    pub carried: Carried,
}

/// What a JSON line of output repeats of the input.
#[derive(Debug, Clone, PartialEq)]
pub enum Carried {
    /// The text itself.
    Nothing,
    /// The object that the text was in.
    Object(String),
    /// The row that the text was in.
    Row { names: Arc<[String]>, values: Vec<String> },
}

/// A source of texts.
pub trait Records: Send {
    /// The next text; `None` at the end.
    fn next(&mut self) -> Result<Option<Record>>;

    /// Bytes read so far, for progress.
    fn position(&self) -> u64 {
        0
    }
}

/// An opened input.
pub struct Input {
    records: Box<dyn Records>,
    /// What errors call it.
    name: Option<String>,
    /// What a text's number counts.
    unit: &'static str,
    /// Size in bytes, if it is a file.
    pub bytes: Option<u64>,
    skip_empty: bool,
}

impl Input {
    /// Opens what the arguments name. Nothing of standard input is read yet.
    pub fn open(args: &EmbedArgs) -> Result<Self> {
        let skip_empty = args.input.empty == Empty::Skip;
        let from_stdin = match (&args.input.input, args.texts.as_slice()) {
            (Some(path), _) => path == Path::new("-"),
            (None, [only]) => only == "-",
            (None, []) => true,
            (None, texts) => {
                if texts.iter().any(|text| text == "-") {
                    return Err(Error::new(
                        Code::InvalidRequest,
                        "'-' stands for standard input, beside other texts",
                    )
                    .hint("give texts as arguments or on standard input, not both"));
                }
                false
            }
        };
        if !args.texts.is_empty() && !from_stdin {
            return Self::of_arguments(args, skip_empty);
        }
        let (reader, name, bytes): (Box<dyn Read + Send>, _, _) = match &args.input.input {
            Some(path) if !from_stdin => {
                let (file, bytes) = pieces::open(path, "texts")?;
                (Box::new(file), Some(path.display().to_string()), bytes)
            }
            _ => {
                if io::stdin().is_terminal() && args.texts.is_empty() && args.input.input.is_none() {
                    return Err(Error::new(Code::InvalidRequest, "there is no text to embed")
                        .hint("give texts as arguments, pipe them in, or name a file with --input"));
                }
                (Box::new(io::stdin()), None, None)
            }
        };
        let format = args.input.input_format.unwrap_or_else(|| by_ending(args.input.input.as_deref()));
        check_flags(args, format)?;
        let invalid = args.input.invalid;
        let records: Box<dyn Records> = match format {
            InputFormat::Txt => {
                let end = if args.input.null { 0 } else { b'\n' };
                Box::new(lines::Lines::new(reader, end, invalid))
            }
            InputFormat::Jsonl => {
                Box::new(objects::Objects::new(reader, args.input.field.as_deref(), invalid))
            }
            InputFormat::Csv => Box::new(rows::Rows::new(reader, b',', args.input.column.clone(), invalid)),
            InputFormat::Tsv => Box::new(rows::Rows::new(reader, b'\t', args.input.column.clone(), invalid)),
        };
        Ok(Self { records, name, unit: if args.input.null { "text" } else { "line" }, bytes, skip_empty })
    }

    fn of_arguments(args: &EmbedArgs, skip_empty: bool) -> Result<Self> {
        let input = &args.input;
        if input.null || input.field.is_some() || input.column.is_some() || input.input_format.is_some() {
            return Err(Error::new(
                Code::InvalidRequest,
                "--null, --field, --column and --input-format are for files and standard input",
            )
            .hint("leave them out, or pipe the texts in"));
        }
        let texts = args.texts.clone().into_iter();
        Ok(Self {
            records: Box::new(Arguments { texts, number: 0 }),
            name: None,
            unit: "text",
            bytes: None,
            skip_empty,
        })
    }

    /// The next text, with `true` if it is one of the empty ones that are left out.
    pub fn next(&mut self) -> Result<Option<(Record, bool)>> {
        let name = self.name.as_deref();
        let record = self.records.next().map_err(|error| match name {
            Some(name) => error.context(name),
            None => error,
        })?;
        Ok(record.map(|record| {
            let skipped = self.skip_empty && record.text.trim().is_empty();
            (record, skipped)
        }))
    }

    /// Bytes read so far.
    pub fn position(&self) -> u64 {
        self.records.position()
    }

    /// The error of a text, with where it is.
    pub fn located(&self) -> Located {
        Located { name: self.name.clone(), unit: self.unit }
    }
}

/// Says where a text is.
#[derive(Debug, Clone)]
pub struct Located {
    name: Option<String>,
    unit: &'static str,
}

impl Located {
    pub fn error(&self, record: &Record, error: Error) -> Error {
        let place = format!("{} {}", self.unit, record.number);
        let place = match &self.name {
            Some(name) => format!("{name}: {place}"),
            None => place,
        };
        error.context(place).detail(self.unit, record.number)
    }
}

struct Arguments {
    texts: std::vec::IntoIter<String>,
    number: u64,
}

impl Records for Arguments {
    fn next(&mut self) -> Result<Option<Record>> {
        self.number += 1;
        let record = |text| Record { number: self.number, text, carried: Carried::Nothing };
        Ok(self.texts.next().map(record))
    }
}

fn by_ending(path: Option<&Path>) -> InputFormat {
    let ending = path.and_then(Path::extension).map(OsStr::to_ascii_lowercase);
    match ending.as_deref().and_then(|ending| ending.to_str()) {
        Some("jsonl" | "ndjson") => InputFormat::Jsonl,
        Some("csv") => InputFormat::Csv,
        Some("tsv" | "tab") => InputFormat::Tsv,
        _ => InputFormat::Txt,
    }
}

/// A flag that does nothing for an input is a misunderstanding.
fn check_flags(args: &EmbedArgs, format: InputFormat) -> Result<()> {
    let input = &args.input;
    let misplaced = match format {
        InputFormat::Txt | InputFormat::Csv | InputFormat::Tsv if input.field.is_some() => {
            Some(("--field", "JSON lines"))
        }
        InputFormat::Txt | InputFormat::Jsonl if input.column.is_some() => Some(("--column", "CSV and TSV")),
        InputFormat::Jsonl | InputFormat::Csv | InputFormat::Tsv if input.null => {
            Some(("--null", "plain texts"))
        }
        _ => None,
    };
    match misplaced {
        None => Ok(()),
        Some((flag, what)) => {
            Err(Error::new(Code::InvalidRequest, format!("{flag} is for {what}, which this input is not"))
                .hint("leave it out, or say what the input is with --input-format"))
        }
    }
}

/// The text of some bytes: UTF-8, or with replacements where they are wanted.
fn decode(bytes: Vec<u8>, number: u64, invalid: Invalid) -> Result<String> {
    match (String::from_utf8(bytes), invalid) {
        (Ok(text), _) => Ok(text),
        (Err(error), Invalid::Replace) => Ok(String::from_utf8_lossy(error.as_bytes()).into_owned()),
        (Err(error), Invalid::Error) => {
            let offset = error.utf8_error().valid_up_to();
            Err(broken(number, &format!("is not UTF-8: byte {} begins no character", offset + 1))
                .hint("convert the input with iconv, or replace such bytes with --invalid replace"))
        }
    }
}

/// EMBEDDING_FAILED: "line {number} {reason}".
fn broken(number: u64, reason: &str) -> Error {
    Error::new(Code::EmbeddingFailed, format!("line {number} {reason}")).detail("line", number)
}

fn too_long(number: u64) -> Error {
    broken(number, &format!("is longer than {} MiB", LONGEST >> 20))
        .hint("break the text up; --null reads texts that end with a NUL byte")
}
