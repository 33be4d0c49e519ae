//! Vectors as bytes: rows one after the other, between a beginning and an end that know how many there are.

mod binary;
mod text;
mod zip;

use half::f16;

use super::input::Record;
use crate::cli::embed::{Format, VectorType};
use crate::error::Result;

/// Writes vectors in one format. What it gives is to be written in order; only the beginning changes at
/// the end, at its full length.
#[derive(Debug, Clone)]
pub struct VectorWriter {
    format: Format,
    dtype: VectorType,
    dimensions: usize,
    /// Name of the vector in a JSON line.
    field: String,
}

/// One vector as it is written.
enum Numbers {
    F32(Vec<f32>),
    F16(Vec<f16>),
    I8(Vec<i8>),
    U8(Vec<u8>),
}

impl VectorWriter {
    pub fn new(format: Format, dtype: VectorType, dimensions: usize, field: &str) -> Self {
        Self { format, dtype, dimensions, field: field.to_owned() }
    }

    /// Whether the beginning has to be written again once all rows are there.
    pub fn rewrites_beginning(&self) -> bool {
        matches!(self.format, Format::Npy | Format::Npz | Format::Safetensors)
    }

    /// What stands before the rows: its length does not depend on what they are. `checksum` is the CRC-32
    /// of all rows.
    pub fn beginning(&self, rows: u64, checksum: &crc32fast::Hasher) -> Vec<u8> {
        match self.format {
            Format::Json => b"[".to_vec(),
            Format::Jsonl | Format::Csv | Format::F32 => Vec::new(),
            Format::Npy => binary::npy_header(self.dtype, rows, self.columns()),
            Format::Npz => zip::beginning(&self.entry(rows), rows, self, checksum),
            Format::Safetensors => binary::safetensors_header(self.dtype, rows, self.columns()),
        }
    }

    /// Adds the bytes of one row.
    ///
    /// # Errors
    /// A JSON line that has a field of the vector's name already.
    pub fn row(&self, record: &Record, vector: &[f32], first: bool, to: &mut Vec<u8>) -> Result<()> {
        let numbers = self.numbers(vector);
        match self.format {
            Format::Json => {
                to.extend_from_slice(if first { b"" } else { b",\n" });
                text::list(&numbers, to);
            }
            Format::Jsonl => text::object(record, &self.field, &numbers, to)?,
            Format::Csv => text::values(&numbers, to),
            Format::Npy | Format::Npz | Format::Safetensors | Format::F32 => numbers.append(to),
        }
        Ok(())
    }

    /// What stands after the rows.
    pub fn end(&self, rows: u64, checksum: &crc32fast::Hasher) -> Vec<u8> {
        match self.format {
            Format::Json => b"]\n".to_vec(),
            Format::Npz => zip::end(&self.entry(rows), rows, self, checksum),
            _ => Vec::new(),
        }
    }

    /// Bytes of so many rows in a format of fixed width.
    fn body_bytes(&self, rows: u64) -> u64 {
        let size = match self.dtype {
            VectorType::F32 => 4,
            VectorType::F16 => 2,
            VectorType::Int8 | VectorType::Binary => 1,
        };
        rows * self.columns() as u64 * size
    }

    /// Numbers of a row: a byte holds eight bits.
    fn columns(&self) -> usize {
        if self.dtype == VectorType::Binary { self.dimensions.div_ceil(8) } else { self.dimensions }
    }

    /// The header of the array inside a zip file.
    fn entry(&self, rows: u64) -> Vec<u8> {
        binary::npy_header(self.dtype, rows, self.columns())
    }

    fn numbers(&self, vector: &[f32]) -> Numbers {
        match self.dtype {
            VectorType::F32 => Numbers::F32(vector.to_vec()),
            VectorType::F16 => Numbers::F16(vector.iter().map(|&value| f16::from_f32(value)).collect()),
            VectorType::Int8 => {
                let largest = vector.iter().fold(0f32, |largest, value| largest.max(value.abs()));
                let scale = if largest > 0.0 { 127.0 / largest } else { 0.0 };
                Numbers::I8(vector.iter().map(|value| (value * scale).round() as i8).collect())
            }
            VectorType::Binary => {
                let byte = |bits: &[f32]| {
                    bits.iter()
                        .enumerate()
                        .fold(0, |byte, (place, &bit)| byte | u8::from(bit > 0.0) << (7 - place))
                };
                Numbers::U8(vector.chunks(8).map(byte).collect())
            }
        }
    }
}

impl Numbers {
    fn append(&self, to: &mut Vec<u8>) {
        match self {
            Self::F32(values) => values.iter().for_each(|value| to.extend(value.to_le_bytes())),
            Self::F16(values) => values.iter().for_each(|value| to.extend(value.to_le_bytes())),
            Self::I8(values) => to.extend(values.iter().map(|value| value.cast_unsigned())),
            Self::U8(values) => to.extend(values),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::embed::input::Carried;

    fn row(format: Format, dtype: VectorType, carried: Carried, vector: &[f32]) -> Result<Vec<u8>> {
        let writer = VectorWriter::new(format, dtype, vector.len(), "vector");
        let record = Record { number: 1, text: "a \"b\"".to_owned(), carried };
        let mut bytes = Vec::new();
        writer.row(&record, vector, true, &mut bytes)?;
        Ok(bytes)
    }

    #[test]
    fn numbers_are_made_smaller_as_said() {
        let vector = [0.5, -1.0, 0.0, 0.25, -0.1, 0.2, 0.3, -0.4, 0.9];
        let bytes = |dtype| row(Format::Npy, dtype, Carried::Nothing, &vector).unwrap();
        assert_eq!(bytes(VectorType::F32)[..4], 0.5f32.to_le_bytes());
        assert_eq!(bytes(VectorType::F16)[2..4], [0x00, 0xbc]);
        assert_eq!(bytes(VectorType::Int8)[..4], [64, 129, 0, 32]);
        assert_eq!(bytes(VectorType::Binary), [0b1001_0110, 0b1000_0000]);
        assert_eq!(row(Format::F32, VectorType::Int8, Carried::Nothing, &[0.0]).unwrap(), [0]);
    }

    #[test]
    fn a_json_line_repeats_what_came_with_the_text() {
        let line = |carried| {
            String::from_utf8(row(Format::Jsonl, VectorType::F32, carried, &[0.5, -1.0]).unwrap()).unwrap()
        };
        assert_eq!(line(Carried::Nothing), "{\"text\":\"a \\\"b\\\"\",\"vector\":[0.5,-1.0]}\n");
        let object = |text: &str| Carried::Object(text.to_owned());
        assert_eq!(line(object("{ }")), "{\"vector\":[0.5,-1.0]}\n");
        let kept = line(object(r#"{"id":12345678901234567890123,"a":{"vector":1} }"#));
        assert_eq!(kept, "{\"id\":12345678901234567890123,\"a\":{\"vector\":1},\"vector\":[0.5,-1.0]}\n");
        let row_of = Carried::Row {
            names: ["id", "text"].map(str::to_owned).into(),
            values: ["7", "x"].map(str::to_owned).to_vec(),
        };
        assert_eq!(line(row_of), "{\"id\":\"7\",\"text\":\"x\",\"vector\":[0.5,-1.0]}\n");

        let taken = object(r#"{"vector":1}"#);
        let error = row(Format::Jsonl, VectorType::F32, taken, &[0.5]).unwrap_err();
        assert!(error.message().contains("vector"), "{error}");
        assert!(error.hint_text().unwrap().contains("--output-field"));
    }
}
