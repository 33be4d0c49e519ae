//! Numbers as text.

use std::fmt::Display;
use std::io::Write;

use serde_json::value::RawValue;

use super::Numbers;
use crate::commands::embed::input::{Carried, Record};
use crate::error::{Code, Error, Result};

/// `[0.5,-1.0]`, the shortest numbers that are read back as the same.
pub(super) fn list(numbers: &Numbers, to: &mut Vec<u8>) {
    to.push(b'[');
    joined(numbers, to);
    to.push(b']');
}

/// `0.5,-1.0` and the end of the line.
pub(super) fn values(numbers: &Numbers, to: &mut Vec<u8>) {
    joined(numbers, to);
    to.push(b'\n');
}

fn joined(numbers: &Numbers, to: &mut Vec<u8>) {
    match numbers {
        Numbers::F32(values) => join(values.iter().copied(), to, float),
        // Of the numbers that become this half, the one with the fewest digits as a float32.
        Numbers::F16(values) => join(values.iter().map(|value| value.to_f32()), to, float),
        Numbers::I8(values) => join(values.iter(), to, plain),
        Numbers::U8(values) => join(values.iter(), to, plain),
    }
}

fn join<T>(values: impl Iterator<Item = T>, to: &mut Vec<u8>, write: impl Fn(T, &mut Vec<u8>)) {
    for (index, value) in values.enumerate() {
        if index > 0 {
            to.push(b',');
        }
        write(value, to);
    }
}

fn float(value: f32, to: &mut Vec<u8>) {
    // Writing to memory cannot fail, and vectors are made of finite numbers.
    let _ = serde_json::to_writer(&mut *to, &value);
}

fn plain(value: impl Display, to: &mut Vec<u8>) {
    let _ = write!(to, "{value}");
}

/// The object of a JSON line: what the input had, and the vector.
pub(super) fn object(record: &Record, field: &str, numbers: &Numbers, to: &mut Vec<u8>) -> Result<()> {
    let start = to.len();
    match &record.carried {
        Carried::Nothing => {
            if field == "text" {
                return Err(taken(record, field));
            }
            to.extend_from_slice(b"{\"text\":");
            string(&record.text, to);
        }
        Carried::Row { names, values } => {
            to.push(b'{');
            for (name, value) in names.iter().zip(values) {
                if name == field {
                    return Err(taken(record, field));
                }
                if to.len() > start + 1 {
                    to.push(b',');
                }
                string(name, to);
                to.push(b':');
                string(value, to);
            }
        }
        Carried::Object(text) => {
            let names: std::collections::BTreeMap<&str, &RawValue> =
                serde_json::from_str(text).unwrap_or_default();
            // Names with escapes are not borrowed as they stand: then the text is searched for the name.
            let known = names.contains_key(field) || (names.is_empty() && text.contains(field));
            if known {
                return Err(taken(record, field));
            }
            // As it is, so that numbers keep all their digits; the reader has checked that it is an object.
            to.extend_from_slice(text.strip_suffix('}').unwrap_or(text).trim_end().as_bytes());
        }
    }
    if to.len() > start + 1 {
        to.push(b',');
    }
    string(field, to);
    to.push(b':');
    list(numbers, to);
    to.extend_from_slice(b"}\n");
    Ok(())
}

fn string(text: &str, to: &mut Vec<u8>) {
    // Writing to memory cannot fail.
    let _ = serde_json::to_writer(&mut *to, text);
}

fn taken(record: &Record, field: &str) -> Error {
    Error::new(Code::EmbeddingFailed, format!("line {} has a field {field} already", record.number))
        .hint("name the vector otherwise with --output-field")
        .detail("line", record.number)
}
