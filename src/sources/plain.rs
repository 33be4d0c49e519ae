//! Folders of plain files, as LM Studio and people have them: no checksums, no records.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::bounds::{Bounds, Destination};
use super::scan::{Checksum, Expected, Fault, ForeignFile, ForeignModel, PassedOver, Payload, Scan};
use super::walk::{Answer, Seen, Walked, What};
use super::{ANOTHER_USERS, reason_of};
use crate::fs::Entry;
use crate::ids::ModelName;

/// Extensions of files that hold a model's numbers.
const WEIGHTS: [&str; 12] =
    ["gguf", "ggml", "safetensors", "bin", "pt", "pth", "ckpt", "onnx", "onnx_data", "npz", "h5", "msgpack"];
/// Endings of the names of files that hold a tokenizer.
const TOKENIZERS: [&str; 8] = [
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    ".tiktoken",
    ".spm",
    "spiece.model",
];
/// Endings of the names that downloads have until they are complete.
const PARTIAL: [&str; 7] = [".part", ".partial", ".incomplete", ".download", ".crdownload", ".aria2", ".tmp"];

const NOT_CONTENT: &str = "neither weights nor a tokenizer";

/// A file or a link in such a folder.
pub(super) enum Found {
    File(Payload),
    /// A link to another file of the folder, or to nothing that counts.
    Link(Arc<Path>, Result<PathBuf, Fault>),
}

/// What to do about a file or a link of a model. `refused` says why nothing here may be replaced.
pub(super) fn judge<A>(seen: &Seen<'_>, bounds: &Bounds, refused: Option<&'static str>) -> Answer<A, Found> {
    let name = seen.name.to_str().map_or_else(|| seen.name.to_string_lossy(), Cow::Borrowed);
    if matches!(seen.what, What::Special | What::Folder) {
        return Answer::pass("no regular file");
    }
    if name.starts_with('.') {
        return if name == ".DS_Store" { Answer::Ignore } else { Answer::pass("a hidden file") };
    }
    if name.starts_with("downloading_") || PARTIAL.iter().any(|ending| name.ends_with(ending)) {
        return Answer::pass("a download that is not complete");
    }
    let replaceable = |entry: &Entry| match refused {
        Some(reason) => Err(reason),
        None if !entry.is_own() => Err(ANOTHER_USERS),
        None if is_weights(seen.name) || is_tokenizer(&name) => Ok(()),
        None => Err(NOT_CONTENT),
    };
    let path = seen.path();
    Answer::Keep(match &seen.what {
        What::Link(text) => match bounds.follow(&path, text) {
            Ok(Destination::Store(to, entry)) => Found::File(Payload {
                path,
                // The store's names are digests.
                claimed: to.file_name().and_then(OsStr::to_str).and_then(Checksum::of_name),
                linked_to: Some(to),
                entry,
                replaceable: replaceable(&entry),
            }),
            Ok(Destination::Inside(inside)) => Found::Link(path, Ok(inside)),
            Err(fault) => Found::Link(path, Err(fault)),
        },
        What::File(entry) => Found::File(Payload {
            path,
            linked_to: None,
            entry: *entry,
            claimed: None,
            replaceable: replaceable(entry),
        }),
        What::Folder | What::Special => return Answer::pass("no regular file"),
    })
}

/// The files alone, and the links that lead nowhere, in no order.
pub(super) fn files(walked: Walked<Found>) -> Scan {
    let mut scan = Scan { passed_over: walked.passed_over, ..Scan::default() };
    let payloads = walked.kept.into_iter().filter_map(|found| match found {
        Found::File(payload) => Some(payload),
        Found::Link(path, leads) => {
            scan.passed_over.extend(leads.err().map(|fault| passed(&path, reason_of(&fault))));
            None
        }
    });
    scan.payloads = payloads.collect();
    scan
}

/// Puts models together: `name` tells the name of the model in a folder, if one can be there.
///
/// A folder with weights is a model; files in folders below it that hold no weights belong to it.
pub(super) fn assemble(
    root: &Path,
    walked: Walked<Found>,
    name: impl Fn(&Path) -> Option<ModelName>,
) -> Scan {
    let mut scan = Scan { passed_over: walked.passed_over, ..Scan::default() };
    let mut folders: HashSet<PathBuf> = HashSet::new();
    let mut places: Vec<Place> = Vec::with_capacity(walked.kept.len());
    for found in walked.kept {
        let place = match found {
            Found::File(payload) => {
                let place = Place { path: Arc::clone(&payload.path), link: None };
                scan.payloads.push(payload);
                place
            }
            Found::Link(path, leads) => {
                if let Err(fault) = &leads {
                    scan.passed_over.push(passed(&path, reason_of(fault)));
                }
                Place { path, link: Some(leads) }
            }
        };
        if let (Some(folder), Some(file)) = (place.path.parent(), place.path.file_name())
            && is_model(file)
            && !folders.contains(folder)
        {
            folders.insert(folder.to_owned());
        }
        places.push(place);
    }
    // Payloads are looked up from here on.
    scan = scan.sorted();
    let mut models: HashMap<&Path, Option<ForeignModel>> = HashMap::new();
    for place in places {
        let mut above = place.path.ancestors().skip(1).take_while(|above| above.starts_with(root));
        let Some(folder) = above.find_map(|above| folders.get(above)) else { continue };
        let model = models.entry(folder).or_insert_with(|| {
            let name = name(folder)?;
            Some(ForeignModel {
                name,
                revision: None,
                root: folder.clone(),
                files: Vec::new(),
                absent: Vec::new(),
            })
        });
        let Some(model) = model else { continue };
        match file(folder, place, &scan) {
            Ok(file) => model.files.push(file),
            Err(passed) => scan.passed_over.push(passed),
        }
    }
    scan.models = models.into_values().flatten().collect();
    scan.sorted()
}

/// Where a tool looks for a file.
struct Place {
    path: Arc<Path>,
    /// For a link: the file of the folder that it leads to.
    link: Option<Result<PathBuf, Fault>>,
}

fn file(folder: &Path, place: Place, scan: &Scan) -> Result<ForeignFile, PassedOver> {
    let Place { path: place, link } = place;
    let below = place.strip_prefix(folder).unwrap_or(&place);
    let Some(path) = below.to_str().and_then(|below| below.parse().ok()) else {
        return Err(passed(&place, "its name is not one that a model's file can have".to_owned()));
    };
    let content = match link {
        None => Ok(Arc::clone(&place)),
        Some(Ok(inside)) => match scan.payload(&inside) {
            Some(payload) => Ok(Arc::clone(&payload.path)),
            None => Err(Fault::Dangling(inside)),
        },
        Some(Err(fault)) => Err(fault),
    };
    Ok(ForeignFile { path, place, content, expected: Expected::default() })
}

fn passed(path: &Path, reason: String) -> PassedOver {
    PassedOver { path: path.to_owned(), reason: reason.into(), unreadable: false }
}

fn has_extension(name: &OsStr, these: &[&str]) -> bool {
    let extension = Path::new(name).extension();
    extension.is_some_and(|extension| these.iter().any(|this| extension.eq_ignore_ascii_case(this)))
}

fn is_weights(name: &OsStr) -> bool {
    has_extension(name, &WEIGHTS)
}

/// The formats that a model here can have.
fn is_model(name: &OsStr) -> bool {
    has_extension(name, &["gguf", "safetensors"])
}

fn is_tokenizer(name: &str) -> bool {
    TOKENIZERS.iter().any(|ending| name.ends_with(ending))
}
