//! GGUF models in several files, as `llama-gguf-split` writes them.
//!
//! The first file has the metadata of the model; each has tensors of its own, and the keys `split.no`
//! (from 0), `split.count` and `split.tensors.count` (of all files): tools/gguf-split of llama.cpp.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::engine::format::file::{ModelFile, damaged, unsupported};
use crate::engine::format::gguf::{Header, TensorInfo};
use crate::engine::format::metadata::Metadata;
use crate::error::{Code, Result};
use crate::ids::Part;

/// An open file and where its tensors lie.
pub type OpenPart = (ModelFile, BTreeMap<String, TensorInfo>);

/// Opens the GGUF file at `path` with all its other parts; the metadata are those of the first.
///
/// # Errors
/// INTEGRITY_FAILED naming the part that is missing, damaged or of another model; MODEL_UNSUPPORTED for
/// a part that is not the first, or that has a name by which the others cannot be found.
pub fn open(path: &Path) -> Result<(Vec<OpenPart>, Metadata)> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let named = Part::parse(name);
    let file = open_part(path, named)?;
    let Header { metadata, tensors } = Header::read(&file)?;
    let Some(count) = metadata.unsigned("split.count").filter(|&count| count > 1) else {
        return Ok((vec![(file, tensors)], metadata));
    };
    let Some(part) = named.filter(|part| part.count as u64 == count) else {
        return Err(unsupported(
            path,
            &format!("is one of the {count} parts of a model, but not named as one"),
        )
        .hint("name them NAME-00001-of-0000N.gguf, or join them with `llama-gguf-split --merge`"));
    };
    check_number(path, &metadata, part)?;
    if part.number != 1 {
        let first = path.with_file_name(part.sibling(1));
        if !first.exists() {
            return Err(missing(&first, Part { number: 1, ..part }));
        }
        return Err(unsupported(path, &format!("is part {} of {count} of a model", part.number))
            .hint(format!("name the first part: {}", first.display())));
    }
    let total = total(path, &metadata)?;
    let mut seen: BTreeSet<String> = tensors.keys().cloned().collect();
    let mut parts = vec![(file, tensors)];
    for number in 2..=part.count {
        let path = path.with_file_name(part.sibling(number));
        let part = Part { number, ..part };
        let file = open_part(&path, Some(part))?;
        let Header { metadata, tensors } = Header::read(&file)?;
        if metadata.unsigned("split.count") != Some(count) || self::total(&path, &metadata)? != total {
            return Err(damaged(&path, "is a part of another model"));
        }
        check_number(&path, &metadata, part)?;
        for name in tensors.keys() {
            if !seen.insert(name.clone()) {
                return Err(damaged(&path, &format!("has tensor {name:?} that another part has too")));
            }
        }
        // Checked one by one: more than the first part says is not gathered.
        if seen.len() as u64 > total {
            return Err(wrong_total(&path, seen.len(), total));
        }
        parts.push((file, tensors));
    }
    if seen.len() as u64 != total {
        return Err(wrong_total(path, seen.len(), total));
    }
    Ok((parts, metadata))
}

fn open_part(path: &Path, part: Option<Part>) -> Result<ModelFile> {
    ModelFile::open(path).map_err(|error| match part {
        Some(part) if error.code() == Code::FileNotFound => missing(path, part),
        _ => error,
    })
}

fn missing(path: &Path, part: Part) -> crate::error::Error {
    damaged(path, &format!("is missing, part {} of {} of the model", part.number, part.count))
}

fn check_number(path: &Path, metadata: &Metadata, part: Part) -> Result<()> {
    match metadata.unsigned("split.no").and_then(|number| number.checked_add(1)) {
        Some(number) if number == part.number as u64 => Ok(()),
        Some(number) => Err(damaged(path, &format!("is part {number} of its model under another's name"))),
        None => Err(damaged(path, "does not say which part of its model it is")),
    }
}

/// How many tensors all parts have.
fn total(path: &Path, metadata: &Metadata) -> Result<u64> {
    let total = metadata.unsigned("split.tensors.count");
    total.ok_or_else(|| damaged(path, "does not say how many tensors all parts have"))
}

fn wrong_total(path: &Path, found: usize, total: u64) -> crate::error::Error {
    damaged(path, &format!("is of a model of {total} tensors, but its parts have {found}"))
}
