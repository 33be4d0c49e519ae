//! The header of a safetensors file: eight bytes of length, a JSON object, then the tensors' bytes.
//!
//! Format: <https://github.com/huggingface/safetensors#format>. Every claim of the header is checked
//! against the file's size before anything is allocated for it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use crate::engine::format::file::{ModelFile, damaged, unsupported};
use crate::error::Result;

/// The format's own limit on the JSON part.
const MAX_HEADER_BYTES: u64 = 100_000_000;
const MAX_DIMENSIONS: usize = 32;

/// Element types of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dtype {
    Bool,
    F4,
    F6E2M3,
    F6E3M2,
    U8,
    I8,
    F8E4M3,
    F8E4M3FNUZ,
    F8E5M2,
    F8E5M2FNUZ,
    F8E8M0,
    I16,
    U16,
    F16,
    BF16,
    I32,
    U32,
    F32,
    C64,
    I64,
    U64,
    F64,
}

impl Dtype {
    /// Types with the names that headers use and their bits an element.
    const TABLE: &'static [(Dtype, &'static str, u64)] = &[
        (Dtype::Bool, "BOOL", 8),
        (Dtype::F4, "F4", 4),
        (Dtype::F6E2M3, "F6_E2M3", 6),
        (Dtype::F6E3M2, "F6_E3M2", 6),
        (Dtype::U8, "U8", 8),
        (Dtype::I8, "I8", 8),
        (Dtype::F8E4M3, "F8_E4M3", 8),
        (Dtype::F8E4M3FNUZ, "F8_E4M3FNUZ", 8),
        (Dtype::F8E5M2, "F8_E5M2", 8),
        (Dtype::F8E5M2FNUZ, "F8_E5M2FNUZ", 8),
        (Dtype::F8E8M0, "F8_E8M0", 8),
        (Dtype::I16, "I16", 16),
        (Dtype::U16, "U16", 16),
        (Dtype::F16, "F16", 16),
        (Dtype::BF16, "BF16", 16),
        (Dtype::I32, "I32", 32),
        (Dtype::U32, "U32", 32),
        (Dtype::F32, "F32", 32),
        (Dtype::C64, "C64", 64),
        (Dtype::I64, "I64", 64),
        (Dtype::U64, "U64", 64),
        (Dtype::F64, "F64", 64),
    ];

    fn from_name(name: &str) -> Option<Self> {
        Self::TABLE.iter().find(|row| row.1 == name).map(|row| row.0)
    }

    pub fn name(self) -> &'static str {
        Self::TABLE.iter().find(|row| row.0 == self).map_or("unknown", |row| row.1)
    }

    /// Bits an element.
    pub fn bits(self) -> u64 {
        Self::TABLE.iter().find(|row| row.0 == self).map_or(0, |row| row.2)
    }
}

/// One tensor of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    pub dtype: Dtype,
    /// Row-major, outermost dimension first.
    pub shape: Vec<usize>,
    /// Position of the first byte in the file.
    pub offset: u64,
    pub bytes: u64,
}

/// A checked header: every tensor's shape fits its byte range, the ranges tile the rest of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Header {
    pub tensors: BTreeMap<String, TensorInfo>,
    /// The free-form texts under `__metadata__`.
    pub metadata: BTreeMap<String, String>,
}

impl Header {
    /// Reads and checks the header; the tensors' bytes are not touched.
    pub fn read(file: &ModelFile) -> Result<Self> {
        let path = file.path();
        if file.bytes() < 8 {
            return Err(damaged(path, "is too short for a safetensors file"));
        }
        let mut length = [0; 8];
        file.read_at(&mut length, 0)?;
        let length = u64::from_le_bytes(length);
        if length > MAX_HEADER_BYTES {
            return Err(damaged(
                path,
                &format!("is not a safetensors file: its header would have {length} bytes"),
            ));
        }
        let Some(body) = file.bytes().checked_sub(8 + length) else {
            return Err(damaged(
                path,
                &format!("is truncated: its header has {length} bytes, the file {}", file.bytes()),
            ));
        };
        let mut json = vec![0; length as usize];
        file.read_at(&mut json, 8)?;
        Self::parse(&json, body, path)
    }

    /// Checks the JSON part of a header that is followed by `body` bytes of tensors.
    /// `path` is for messages only.
    pub fn parse(json: &[u8], body: u64, path: &Path) -> Result<Self> {
        let raw: RawHeader = serde_json::from_slice(json)
            .map_err(|e| damaged(path, &format!("has a broken safetensors header: {e}")))?;
        let data_start = 8 + json.len() as u64;
        let mut tensors = BTreeMap::new();
        for (name, raw) in raw.tensors {
            let Some(dtype) = Dtype::from_name(&raw.dtype) else {
                let kind: String = raw.dtype.chars().take(32).collect();
                return Err(unsupported(
                    path,
                    &format!("has tensor {name:?} of the unknown element type {kind:?}"),
                ));
            };
            let (begin, end) = raw.data_offsets;
            let fault = |reason: String| damaged(path, &format!("has a broken tensor {name:?}: {reason}"));
            if begin > end || end > body {
                return Err(fault(format!("its bytes {begin}..{end} leave the {body} bytes of the file")));
            }
            let bytes = byte_length(&raw.shape.0, dtype)
                .ok_or_else(|| fault("its shape is too large or not a whole number of bytes".to_owned()))?;
            if bytes != end - begin {
                return Err(fault(format!(
                    "shape {:?} of {} needs {bytes} bytes, the header gives {}",
                    raw.shape.0,
                    dtype.name(),
                    end - begin
                )));
            }
            let info = TensorInfo { dtype, shape: raw.shape.0, offset: data_start + begin, bytes };
            tensors.insert(name, info);
        }
        check_tiling(&tensors, data_start, body, path)?;
        Ok(Self { tensors, metadata: raw.metadata })
    }
}

/// Bytes of a tensor; `None` if that overflows or ends inside a byte.
fn byte_length(shape: &[usize], dtype: Dtype) -> Option<u64> {
    let mut elements = 1u64;
    for &size in shape {
        elements = elements.checked_mul(size as u64)?;
    }
    let bits = elements.checked_mul(dtype.bits())?;
    bits.is_multiple_of(8).then_some(bits / 8)
}

/// The format allows neither overlaps nor holes, and no bytes after the last tensor.
fn check_tiling(
    tensors: &BTreeMap<String, TensorInfo>,
    data_start: u64,
    body: u64,
    path: &Path,
) -> Result<()> {
    let mut order: Vec<(&String, &TensorInfo)> = tensors.iter().collect();
    order.sort_by_key(|(_, info)| (info.offset, info.bytes));
    let mut position = data_start;
    for (name, info) in order {
        if info.offset < position {
            return Err(damaged(path, &format!("has tensor {name:?} overlapping another one")));
        }
        if info.offset > position {
            return Err(damaged(path, &format!("has unclaimed bytes before tensor {name:?}")));
        }
        position = info.offset + info.bytes;
    }
    if position != data_start + body {
        return Err(damaged(
            path,
            &format!("has {} bytes that belong to no tensor at its end", data_start + body - position),
        ));
    }
    Ok(())
}

#[derive(Deserialize)]
struct RawTensor {
    dtype: String,
    shape: Shape,
    data_offsets: (u64, u64),
}

/// The header's object; repeated names are refused, since readers would disagree on which one counts.
struct RawHeader {
    tensors: BTreeMap<String, RawTensor>,
    metadata: BTreeMap<String, String>,
}

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct HeaderVisitor;

        impl<'de> Visitor<'de> for HeaderVisitor {
            type Value = RawHeader;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeader, A::Error> {
                let mut header = RawHeader { tensors: BTreeMap::new(), metadata: BTreeMap::new() };
                let mut seen_metadata = false;
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        if std::mem::replace(&mut seen_metadata, true) {
                            return Err(A::Error::custom("__metadata__ appears twice"));
                        }
                        header.metadata = map.next_value::<Option<_>>()?.unwrap_or_default();
                        continue;
                    }
                    let tensor = map.next_value()?;
                    if header.tensors.contains_key(&name) {
                        return Err(A::Error::custom(format!("tensor {name:?} appears twice")));
                    }
                    header.tensors.insert(name, tensor);
                }
                Ok(header)
            }
        }

        deserializer.deserialize_map(HeaderVisitor)
    }
}

/// A shape with a bounded number of dimensions, so that a hostile header cannot multiply in memory.
struct Shape(Vec<usize>);

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ShapeVisitor;

        impl<'de> Visitor<'de> for ShapeVisitor {
            type Value = Shape;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {MAX_DIMENSIONS} sizes")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut sizes: A) -> Result<Shape, A::Error> {
                let mut shape = Vec::new();
                while let Some(size) = sizes.next_element()? {
                    if shape.len() == MAX_DIMENSIONS {
                        return Err(A::Error::invalid_length(MAX_DIMENSIONS + 1, &self));
                    }
                    shape.push(size);
                }
                Ok(Shape(shape))
            }
        }

        deserializer.deserialize_seq(ShapeVisitor)
    }
}
