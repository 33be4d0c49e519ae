//! The file: anybody may have written it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use jiff::Timestamp;

use crate::commands::export::caches;
use crate::context::Context;
use crate::error::{Code, Error, Result};
use crate::fs::open_regular;
use crate::ids::{Digest, Host, ModelName, Revision, SnapshotPath};
use crate::registry::{Facts, FileRecord, Kind, NewSnapshot, Origin};
use crate::report::export::{ExportedPlace, ExportedSnapshot, RegistryFile};

/// A registry of 10,000 models with 50 files each has a quarter of this.
const LONGEST: u64 = 256 << 20;
/// Longest word for an architecture or a quantization.
const LONGEST_WORD: usize = 200;

/// One snapshot of the file, understood but not looked for.
#[derive(Debug)]
pub(super) struct Entry {
    /// For an adopted one, where it should lie on this machine.
    pub new: NewSnapshot,
    pub added_at: Timestamp,
    pub last_used: Option<Timestamp>,
}

/// Reads and checks all of it: one bad entry, and nothing of the file is used.
pub(super) fn read(path: &Path, context: &Context) -> Result<Vec<Entry>> {
    let (text, path) = if path == Path::new("-") {
        let name = Path::new("standard input");
        (context.cancel.while_waiting(|| content(io::stdin(), name))?, name)
    } else {
        let (file, _): (File, _) = open_regular(path)?;
        (content(file, path)?, path)
    };
    let file: RegistryFile = {
        let reader = &mut serde_json::Deserializer::from_slice(&text);
        serde_path_to_error::deserialize(reader).map_err(|error| {
            let message = format!("{} is no export of a registry: {error}", path.display());
            Error::new(Code::InvalidRequest, message).hint("name a file that `mlx-cache export` wrote")
        })?
    };
    if file.kind != RegistryFile::KIND {
        let message = format!("{} is no export of a registry", path.display());
        return Err(
            Error::new(Code::InvalidRequest, message).hint("name a file that `mlx-cache export` wrote")
        );
    }
    if file.version != RegistryFile::VERSION {
        let message = format!(
            "{} has the form {} of an export, this version knows {}",
            path.display(),
            file.version,
            RegistryFile::VERSION
        );
        return Err(Error::new(Code::InvalidRequest, message)
            .detail("version", file.version)
            .hint("use the version of mlx-cache that wrote it, or a later one"));
    }
    let mut seen = BTreeSet::new();
    let mut entries = Vec::new();
    for (at, snapshot) in file.snapshots.into_iter().enumerate() {
        let entry = entry(snapshot, context)
            .map_err(|error| error.context(format!("{}: snapshots[{at}]", path.display())))?;
        let key = (entry.new.name.to_string().to_lowercase(), entry.new.revision.to_string());
        if !seen.insert(key) {
            return Err(wrong(&format!("{} is there twice", entry.new.name)));
        }
        entries.push(entry);
    }
    Ok(entries)
}

fn content(input: impl Read, path: &Path) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    input.take(LONGEST + 1).read_to_end(&mut text).map_err(|error| Error::io("read", path, error))?;
    if text.len() as u64 > LONGEST {
        return Err(wrong(&format!("{} is longer than {LONGEST} bytes", path.display())));
    }
    Ok(text)
}

fn entry(snapshot: ExportedSnapshot, context: &Context) -> Result<Entry> {
    let host = Host::from_folder(&snapshot.host).ok_or_else(|| unknown("host", &snapshot.host))?;
    let name = ModelName::new(host, &snapshot.org, &snapshot.name)?;
    let revision: Revision = snapshot.revision.parse()?;
    let origin = Origin::from_word(&snapshot.origin).ok_or_else(|| unknown("origin", &snapshot.origin))?;
    let files = snapshot
        .files
        .into_iter()
        .map(|file| {
            let (path, digest): (SnapshotPath, Digest) = (file.path.parse()?, file.digest.parse()?);
            Ok(FileRecord { path, digest, bytes: file.bytes, stamp: None })
        })
        .collect::<Result<Vec<_>>>()?;
    let paths: BTreeSet<&SnapshotPath> = files.iter().map(|file| &file.path).collect();
    if files.is_empty() || paths.len() < files.len() {
        return Err(wrong(&format!("{name} has no files, or one twice")));
    }
    let total = files.iter().try_fold(0_u64, |sum, file| sum.checked_add(file.bytes));
    if total.is_none_or(|total| i64::try_from(total).is_err()) {
        return Err(wrong(&format!("the files of {name} are larger than any disk")));
    }
    let entry: Option<SnapshotPath> = snapshot.entry.map(|entry| entry.parse()).transpose()?;
    if entry.as_ref().is_some_and(|entry| !paths.contains(entry)) {
        return Err(wrong(&format!("{name} is a file that is not among its files")));
    }
    let root = match (origin.is_stored(), &snapshot.place) {
        (true, _) => PathBuf::new(),
        (false, Some(place)) => root(place, context)?,
        (false, None) => return Err(wrong(&format!("{name} is adopted, but from nowhere"))),
    };
    let facts = Facts {
        kind: Kind::from_word(&snapshot.model_kind).ok_or_else(|| unknown("kind", &snapshot.model_kind))?,
        architecture: snapshot.architecture.map(word).transpose()?,
        parameters: snapshot.parameters,
        quantization: snapshot.quantization.map(word).transpose()?,
        context_length: snapshot.context_length,
    };
    let new = NewSnapshot { name, revision, origin, root, entry, facts, files };
    Ok(Entry { new, added_at: snapshot.added_at, last_used: snapshot.last_used })
}

/// Where an adopted model would lie here. Our own store is no such place.
fn root(place: &ExportedPlace, context: &Context) -> Result<PathBuf> {
    let path = Path::new(&place.path);
    let is_plain = path.components().all(|part| matches!(part, Component::Normal(_) | Component::RootDir));
    let text_is_plain = !place.path.chars().any(char::is_control) && place.path.len() <= 4096;
    let home = &context.settings.home.value;
    let root = match &place.cache {
        Some(cache) => {
            let (_, folder) = caches(&context.settings)
                .into_iter()
                .find(|(word, _)| word == cache)
                .ok_or_else(|| unknown("cache", cache))?;
            (!path.is_absolute()).then(|| folder.join(path))
        }
        None => path.is_absolute().then(|| path.to_owned()),
    };
    match root {
        Some(root) if is_plain && text_is_plain && !root.starts_with(home) => Ok(root),
        _ => {
            let shown: String = place.path.chars().take(200).flat_map(char::escape_debug).collect();
            Err(Error::new(Code::BoundaryViolation, format!("the place \"{shown}\" is not one for a model"))
                .hint("do not use this file: mlx-cache does not write such places"))
        }
    }
}

fn word(text: String) -> Result<String> {
    if text.chars().count() > LONGEST_WORD || text.chars().any(char::is_control) {
        return Err(wrong("an architecture or a quantization is no word"));
    }
    Ok(text)
}

fn unknown(what: &str, word: &str) -> Error {
    let shown: String = word.chars().take(80).flat_map(char::escape_debug).collect();
    wrong(&format!("unknown {what} \"{shown}\""))
}

fn wrong(message: &str) -> Error {
    Error::new(Code::InvalidRequest, message).hint("name a file that `mlx-cache export` wrote")
}
