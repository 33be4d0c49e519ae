//! What a look into a file tells without reading all of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::problem::{Kind, Problem, Remedy};
use super::subject::Subject;
use crate::engine::format::file::{ModelFile, read_small};
use crate::engine::format::layout::Layout;
use crate::engine::format::{gguf, safetensors};
use crate::error::{Code, Error, Result};
use crate::ids::Part;

/// How every pointer of git-lfs begins, and the longest that its specification allows.
/// <https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md>
const POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";
const POINTER_BYTES: u64 = 1024;

/// Whether a file is a pointer of git-lfs, which a clone without git-lfs leaves in place of the content.
pub fn is_lfs_pointer(path: &Path, bytes: u64) -> bool {
    if bytes > POINTER_BYTES || bytes < POINTER.len() as u64 {
        return false;
    }
    read_small(path, POINTER_BYTES).is_ok_and(|content| content.starts_with(POINTER))
}

/// What is wrong with the header of a model file of this name; nothing for other files, and for those of
/// kinds that we cannot read.
pub fn header(path: &Path, name: &str) -> Option<String> {
    let extension = Path::new(name).extension()?.to_str()?.to_ascii_lowercase();
    let read: fn(&ModelFile) -> Result<()> = match extension.as_str() {
        "safetensors" => |file| safetensors::Header::read(file).map(|_| ()),
        "gguf" => |file| gguf::Header::read(file).map(|_| ()),
        _ => return None,
    };
    fault(ModelFile::open(path).and_then(|file| read(&file)))
}

fn fault(result: Result<()>) -> Option<String> {
    let error = result.err()?;
    // Whatever else fails is told when the content is read.
    (error.code() == Code::IntegrityFailed).then(|| error.message().to_owned())
}

/// Compares a model's index, and the numbers in the names of its files, with the files there are.
pub fn shards(subject: &mut Subject) {
    let Some(folder) = subject.folder.clone() else { return };
    let mut found = match Layout::find(&folder) {
        Ok(Layout::Safetensors { index: Some(index), shards, .. }) => {
            let index = file_name(&index);
            shards
                .iter()
                .filter(|shard| std::fs::symlink_metadata(shard).is_err())
                .map(|shard| missing(&folder, file_name(shard), format!("named by {index}")))
                .collect()
        }
        Err(error) => broken_index(&folder, &error).into_iter().collect(),
        Ok(_) => Vec::new(),
    };
    found.extend(numbered(subject).into_iter().map(|(name, of)| missing(&folder, name, of)));
    for mut problem in found {
        problem.remedy = Remedy::Advice(subject.advice.clone());
        let told = subject.problems.iter().any(|known| known.path == problem.path);
        if !told {
            subject.problems.push(problem);
        }
    }
}

fn missing(folder: &Path, name: String, why: String) -> Problem {
    Problem {
        place: folder.join(&name),
        path: name,
        kind: Kind::MissingShard,
        expected: Some(why),
        actual: None,
        remedy: Remedy::Advice(String::new()),
    }
}

/// An index that cannot be read, or that names files outside its folder.
fn broken_index(folder: &Path, error: &Error) -> Option<Problem> {
    let kind = match error.code() {
        Code::IntegrityFailed => Kind::BrokenHeader,
        Code::BoundaryViolation => Kind::EscapingLink,
        _ => return None,
    };
    let index = std::fs::read_dir(folder)
        .ok()?
        .flatten()
        .find(|entry| entry.file_name().to_string_lossy().ends_with(".index.json"))?;
    Some(Problem {
        path: index.file_name().to_string_lossy().into_owned(),
        place: index.path(),
        kind,
        expected: None,
        actual: Some(error.message().to_owned()),
        remedy: Remedy::Advice(String::new()),
    })
}

/// Files of numbered sets (`…-00001-of-00003.gguf`) of which only some are there: each with its set.
fn numbered(subject: &Subject) -> Vec<(String, String)> {
    let present: BTreeSet<&str> = subject
        .items
        .iter()
        .map(|item| item.path.as_str())
        .chain(subject.problems.iter().map(|problem| problem.path.as_str()))
        .collect();
    let sets: BTreeMap<(&str, usize, &str), Part> = present
        .iter()
        .filter_map(|path| Part::parse(path))
        .map(|part| ((part.stem, part.count, part.end), part))
        .collect();
    let mut absent = Vec::new();
    for ((stem, count, end), part) in sets {
        for number in 1..=count {
            let name = part.sibling(number);
            if !present.contains(name.as_str()) {
                absent.push((name, format!("one of {count} files {stem}-…{end}")));
            }
        }
    }
    absent
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_is_known_by_its_first_line() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("model.safetensors");
        let is_pointer = |content: &str| {
            std::fs::write(&path, content).expect("write");
            is_lfs_pointer(&path, content.len() as u64)
        };
        let pointer =
            format!("version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 5\n", "ab".repeat(32));
        assert!(is_pointer(&pointer));
        assert!(!is_pointer("version 1") && !is_pointer(&format!(" {pointer}")) && !is_pointer(""));
        assert!(!is_pointer(&pointer.repeat(20)));
    }
}
