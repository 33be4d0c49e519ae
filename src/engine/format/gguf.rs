//! The header of a GGUF file: metadata, then where each tensor lies.
//!
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>, versions 2 and 3, little-endian.
//! Counts and lengths are compared with the size of the file before memory is taken for them.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use crate::engine::format::file::{ModelFile, damaged, unsupported};
use crate::engine::format::ggml_type::GgmlType;
use crate::engine::format::metadata::{Metadata, Value};
use crate::error::{Error, Result};

/// The first four bytes of every GGUF file.
pub const MAGIC: [u8; 4] = *b"GGUF";

// Generous limits: the largest vocabularies have some 260,000 tokens and 500,000 merges.
const MAX_KEY_BYTES: u64 = 65_535;
const MAX_TEXT_BYTES: u64 = 16 << 20;
const MAX_ARRAY: u64 = 8 << 20;
const MAX_HEADER_BYTES: u64 = 128 << 20;
const MAX_KEYS: u64 = 1 << 16;
const MAX_TENSORS: u64 = 1 << 20;
const MAX_DIMENSIONS: u32 = 4;
const MAX_ALIGNMENT: u64 = 1 << 20;
const DEFAULT_ALIGNMENT: u64 = 32;

/// One tensor of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    pub kind: GgmlType,
    /// Row-major, outermost dimension first: the reverse of the order in the file.
    pub shape: Vec<usize>,
    /// Position of the first byte in the file.
    pub offset: u64,
    pub bytes: u64,
}

/// A checked header: every tensor lies inside the file and overlaps no other one.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Header {
    pub metadata: Metadata,
    pub tensors: BTreeMap<String, TensorInfo>,
}

impl Header {
    /// Reads and checks the header; the tensors' bytes are not touched.
    pub fn read(file: &ModelFile) -> Result<Self> {
        Self::parse(file.reader(0), file.bytes(), file.path())
    }

    /// Reads a header from the start of a file of `file_bytes`. `path` is for messages only.
    pub fn parse(input: impl Read, file_bytes: u64, path: &Path) -> Result<Self> {
        // Metadata of a model with a vocabulary has megabytes: large reads make few system calls.
        let input = BufReader::with_capacity(1 << 18, input);
        let mut cursor = Cursor { input, position: 0, length: file_bytes, path };
        if cursor.array::<4>()? != MAGIC {
            return Err(damaged(path, "is not a GGUF file"));
        }
        match cursor.u32()? {
            2 | 3 => {}
            // A big-endian version number has its set bits at the other end.
            version if version != 0 && version.trailing_zeros() >= 16 => {
                return Err(unsupported(path, "is a big-endian GGUF file")
                    .hint("get the little-endian file of the model"));
            }
            version => {
                return Err(unsupported(path, &format!("is a GGUF file of version {version}"))
                    .hint("versions 2 and 3 are supported: convert the model again"));
            }
        }
        let tensor_count = cursor.count("tensors", 24, MAX_TENSORS)?;
        let key_count = cursor.count("metadata keys", 13, MAX_KEYS)?;
        let mut metadata = Metadata::default();
        for _ in 0..key_count {
            let key = cursor.text("metadata key", MAX_KEY_BYTES)?;
            let value = cursor.value(&key)?;
            if metadata.0.contains_key(&key) {
                return Err(damaged(path, &format!("has the metadata key {key:?} twice")));
            }
            metadata.0.insert(key, value);
        }
        let alignment = alignment(&metadata, path)?;
        let mut tensors = BTreeMap::new();
        for _ in 0..tensor_count {
            let (name, info) = cursor.tensor(alignment)?;
            if tensors.contains_key(&name) {
                return Err(damaged(path, &format!("has tensor {name:?} twice")));
            }
            tensors.insert(name, info);
        }
        let data_start = cursor.position.next_multiple_of(alignment);
        place(&mut tensors, data_start, file_bytes, path)?;
        Ok(Self { metadata, tensors })
    }
}

fn alignment(metadata: &Metadata, path: &Path) -> Result<u64> {
    let Some(value) = metadata.get("general.alignment") else {
        return Ok(DEFAULT_ALIGNMENT);
    };
    match metadata.unsigned("general.alignment") {
        Some(alignment) if alignment.is_power_of_two() && alignment <= MAX_ALIGNMENT => Ok(alignment),
        _ => Err(damaged(path, &format!("has an impossible alignment: {value:?}"))),
    }
}

/// Turns offsets into the data section into offsets into the file, and checks every range.
fn place(
    tensors: &mut BTreeMap<String, TensorInfo>,
    data_start: u64,
    file_bytes: u64,
    path: &Path,
) -> Result<()> {
    for (name, info) in tensors.iter_mut() {
        let start = data_start.checked_add(info.offset);
        let end = start.and_then(|start| start.checked_add(info.bytes));
        match (start, end) {
            (Some(start), Some(end)) if end <= file_bytes => info.offset = start,
            _ => {
                return Err(damaged(
                    path,
                    &format!(
                        "is truncated: tensor {name:?} has {} bytes at {} of the data, the file {file_bytes} in all",
                        info.bytes, info.offset
                    ),
                ));
            }
        }
    }
    let mut order: Vec<(&String, &TensorInfo)> = tensors.iter().collect();
    order.sort_by_key(|(_, info)| (info.offset, info.bytes));
    let mut position = data_start;
    for (name, info) in order {
        if info.offset < position {
            return Err(damaged(path, &format!("has tensor {name:?} overlapping another one")));
        }
        position = info.offset + info.bytes;
    }
    Ok(())
}

/// Reads little-endian values and knows how much of the file is left.
struct Cursor<'a, R> {
    input: BufReader<R>,
    position: u64,
    length: u64,
    path: &'a Path,
}

impl<R: Read> Cursor<'_, R> {
    fn remaining(&self) -> u64 {
        self.length.saturating_sub(self.position)
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<()> {
        self.input.read_exact(buffer).map_err(|e| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => {
                damaged(self.path, "is truncated: it ends inside the header")
            }
            _ => Error::io("read", self.path, e),
        })?;
        self.advance(buffer.len())
    }

    fn advance(&mut self, bytes: usize) -> Result<()> {
        self.position += bytes as u64;
        if self.position > MAX_HEADER_BYTES {
            return Err(damaged(self.path, "has a larger header than any model needs"));
        }
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// A count of things of at least `least_bytes` each.
    fn count(&mut self, what: &str, least_bytes: u64, most: u64) -> Result<u64> {
        let count = self.u64()?;
        if count > most || count.saturating_mul(least_bytes) > self.remaining() {
            return Err(damaged(
                self.path,
                &format!("claims {count} {what}, with {} bytes left in the file", self.remaining()),
            ));
        }
        Ok(count)
    }

    fn text(&mut self, what: &str, most: u64) -> Result<String> {
        let length = self.u64()?;
        if length > most || length > self.remaining() {
            return Err(damaged(self.path, &format!("claims a {what} of {length} bytes")));
        }
        let length = length as usize;
        let not_utf8 = || damaged(self.path, &format!("has a {what} that is not UTF-8"));
        // Vocabularies are some 100,000 short texts: nearly all of them lie whole in the buffer.
        if let Some(bytes) = self.input.buffer().get(..length) {
            let text = std::str::from_utf8(bytes).map_err(|_| not_utf8())?.to_owned();
            self.input.consume(length);
            self.advance(length)?;
            return Ok(text);
        }
        let mut bytes = vec![0; length];
        self.fill(&mut bytes)?;
        String::from_utf8(bytes).map_err(|_| not_utf8())
    }

    fn value(&mut self, key: &str) -> Result<Value> {
        let kind = self.u32()?;
        Ok(match kind {
            kind::U8 | kind::U16 | kind::U32 | kind::U64 => Value::Unsigned(self.unsigned(kind)?),
            kind::I8 | kind::I16 | kind::I32 | kind::I64 => Value::Signed(self.signed(kind)?),
            kind::F32 => Value::Float(f32::from_le_bytes(self.array()?).into()),
            kind::F64 => Value::Float(f64::from_le_bytes(self.array()?)),
            kind::BOOL => Value::Bool(self.bool(key)?),
            kind::TEXT => Value::Text(self.text("metadata text", MAX_TEXT_BYTES)?),
            kind::ARRAY => self.values(key)?,
            other => return Err(self.unknown_kind(key, other)),
        })
    }

    /// An array's elements.
    fn values(&mut self, key: &str) -> Result<Value> {
        let kind = self.u32()?;
        let least = match kind {
            kind::U8 | kind::I8 | kind::BOOL => 1,
            kind::U16 | kind::I16 => 2,
            kind::U32 | kind::I32 | kind::F32 => 4,
            kind::U64 | kind::I64 | kind::F64 | kind::TEXT => 8,
            kind::ARRAY => {
                return Err(unsupported(
                    self.path,
                    &format!("has nested arrays in its metadata key {key:?}"),
                ));
            }
            other => return Err(self.unknown_kind(key, other)),
        };
        let count = self.count("array elements", least, MAX_ARRAY)?;
        Ok(match kind {
            kind::TEXT => Value::Texts(self.list(count, |c| c.text("metadata text", MAX_TEXT_BYTES))?),
            kind::BOOL => Value::Bools(self.list(count, |c| c.bool(key))?),
            kind::F32 => Value::Floats(self.list(count, |c| c.array().map(f32::from_le_bytes))?),
            kind::F64 => {
                Value::Floats(self.list(count, |c| c.array().map(|b| f64::from_le_bytes(b) as f32))?)
            }
            kind::U8 | kind::U16 | kind::U32 | kind::U64 => Value::Integers(self.list(count, |c| {
                let value = c.unsigned(kind)?;
                i64::try_from(value).map_err(|_| {
                    damaged(c.path, &format!("has the absurd number {value} in its metadata key {key:?}"))
                })
            })?),
            _ => Value::Integers(self.list(count, |c| c.signed(kind))?),
        })
    }

    fn list<T>(&mut self, count: u64, mut read: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let mut values = Vec::with_capacity(count as usize);
        for _ in 0..count {
            values.push(read(self)?);
        }
        Ok(values)
    }

    fn unsigned(&mut self, kind: u32) -> Result<u64> {
        Ok(match kind {
            kind::U8 => u8::from_le_bytes(self.array()?).into(),
            kind::U16 => u16::from_le_bytes(self.array()?).into(),
            kind::U32 => self.u32()?.into(),
            _ => self.u64()?,
        })
    }

    fn signed(&mut self, kind: u32) -> Result<i64> {
        Ok(match kind {
            kind::I8 => i8::from_le_bytes(self.array()?).into(),
            kind::I16 => i16::from_le_bytes(self.array()?).into(),
            kind::I32 => i32::from_le_bytes(self.array()?).into(),
            _ => i64::from_le_bytes(self.array()?),
        })
    }

    fn bool(&mut self, key: &str) -> Result<bool> {
        match self.array()? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => Err(damaged(self.path, &format!("has the truth value {other} in {key:?}"))),
        }
    }

    fn unknown_kind(&self, key: &str, kind: u32) -> Error {
        damaged(self.path, &format!("has a value of the unknown type {kind} in its metadata key {key:?}"))
    }

    /// Name and place of a tensor; its offset still counts from the start of the data.
    fn tensor(&mut self, alignment: u64) -> Result<(String, TensorInfo)> {
        let name = self.text("tensor name", MAX_KEY_BYTES)?;
        let path = self.path;
        let fault = |reason: &str| damaged(path, &format!("has a broken tensor {name:?}: {reason}"));
        let dimensions = self.u32()?;
        if dimensions > MAX_DIMENSIONS {
            return Err(fault(&format!("it has {dimensions} dimensions")));
        }
        let mut sizes = Vec::with_capacity(dimensions as usize);
        for _ in 0..dimensions {
            sizes.push(self.u64()?);
        }
        let number = self.u32()?;
        let kind = GgmlType::from_number(number).ok_or_else(|| {
            unsupported(path, &format!("has tensor {name:?} of the unknown type number {number}"))
        })?;
        let offset = self.u64()?;
        if !offset.is_multiple_of(alignment) {
            return Err(fault(&format!("its offset {offset} is not a multiple of {alignment}")));
        }
        let innermost = sizes.first().copied().unwrap_or(1);
        if !innermost.is_multiple_of(kind.block_elements()) {
            return Err(fault(&format!(
                "its rows of {innermost} are not whole blocks of {} ({})",
                kind.block_elements(),
                kind.name()
            )));
        }
        let elements = sizes.iter().try_fold(1u64, |product, &size| product.checked_mul(size));
        let bytes = elements.and_then(|n| (n / kind.block_elements()).checked_mul(kind.block_bytes()));
        let bytes = bytes.ok_or_else(|| fault("its shape is too large"))?;
        let shape: Option<Vec<usize>> = sizes.iter().rev().map(|&size| usize::try_from(size).ok()).collect();
        let shape = shape.ok_or_else(|| fault("its shape is too large"))?;
        Ok((name, TensorInfo { kind, shape, offset, bytes }))
    }
}

/// Numbers of value types in files.
mod kind {
    pub const U8: u32 = 0;
    pub const I8: u32 = 1;
    pub const U16: u32 = 2;
    pub const I16: u32 = 3;
    pub const U32: u32 = 4;
    pub const I32: u32 = 5;
    pub const F32: u32 = 6;
    pub const BOOL: u32 = 7;
    pub const TEXT: u32 = 8;
    pub const ARRAY: u32 = 9;
    pub const U64: u32 = 10;
    pub const I64: u32 = 11;
    pub const F64: u32 = 12;
}
