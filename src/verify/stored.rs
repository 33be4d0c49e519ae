//! Our own store as subjects.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use super::contents::Contents;
use super::problem::{HubFile, Kind, Needed, Problem, Remedy, Target};
use super::subject::{Item, Record, Subject};
use crate::error::{Error, Result};
use crate::fs::{FileStamp, relative_target};
use crate::ids::Digest;
use crate::registry::{FileRecord, Origin, Registry, Snapshot};
use crate::sources::Checksum;
use crate::store::{BLOB_MODE, Store};

/// What only this user may enter.
const STORE_MODE: u32 = 0o700;

/// A snapshot whose content lies in the store.
pub fn snapshot(
    store: &Store,
    registry: &Registry,
    snapshot: &Snapshot,
    contents: &mut Contents,
) -> Result<Subject> {
    let mut subject = Subject::new(snapshot.name.to_string(), "store", snapshot.path());
    subject.revision = Some(snapshot.revision.to_string());
    subject.folder = Some(snapshot.root.clone());
    subject.advice = advice(snapshot);
    let files = registry.files(snapshot.id)?;
    if leads_out(&snapshot.root, &store.models()) {
        subject.folder = None;
        subject.problems.push(Problem {
            path: ".".to_owned(),
            place: snapshot.root.clone(),
            kind: Kind::EscapingLink,
            expected: None,
            actual: fs::canonicalize(&snapshot.root).ok().map(|real| real.display().to_string()),
            remedy: Remedy::Advice(format!(
                "remove the link {}, then run mlx-cache verify --repair",
                snapshot.root.display()
            )),
        });
        return Ok(subject);
    }
    for file in &files {
        subject.problems.extend(link(store, &snapshot.root, file));
        let hub = HubFile::new(&snapshot.name, &snapshot.revision, &file.path);
        blob(store, file, hub, &mut subject, contents);
    }
    let known: BTreeSet<PathBuf> = files.iter().map(|file| snapshot.root.join(&file.path)).collect();
    other_links(store, &snapshot.root, &known, &mut subject);
    Ok(subject)
}

/// What brings a model back that misses something.
fn advice(snapshot: &Snapshot) -> String {
    match snapshot.origin {
        Origin::Copied => {
            format!("add the model again with: mlx-cache add PATH --copy --name {}", snapshot.name)
        }
        _ => format!("fetch the model again with: mlx-cache pull {}@{}", snapshot.name, snapshot.revision),
    }
}

/// What the link of a snapshot's folder should be, and is not.
fn link(store: &Store, root: &Path, file: &FileRecord) -> Option<Problem> {
    let link = root.join(&file.path);
    let target = relative_target(link.parent().unwrap_or(root), &store.blob(&file.digest));
    let (kind, actual) = match fs::read_link(&link) {
        Ok(found) if found == target => return None,
        Ok(found) => (kind_of_link(store, &link), Some(found.display().to_string())),
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            (Kind::NotAFile, Some("not a link".to_owned()))
        }
        Err(_) => (Kind::Missing, None),
    };
    Some(Problem {
        path: file.path.to_string(),
        place: link.clone(),
        kind,
        expected: Some(target.display().to_string()),
        actual,
        remedy: Remedy::Link { link, target },
    })
}

/// What is wrong with a link that is not the one it should be.
fn kind_of_link(store: &Store, link: &Path) -> Kind {
    match (fs::canonicalize(link), fs::canonicalize(store.home())) {
        (Ok(found), Ok(home)) if found.starts_with(&home) => Kind::WrongLink,
        (Ok(_), _) => Kind::EscapingLink,
        (Err(_), _) => Kind::DanglingLink,
    }
}

/// Takes note of a blob that a record names.
fn blob(
    store: &Store,
    file: &FileRecord,
    hub: Option<HubFile>,
    subject: &mut Subject,
    contents: &mut Contents,
) {
    let path = file.path.as_str();
    let place = store.blob(&file.digest);
    let needed = Remedy::Content(Needed {
        target: Target::Blob(file.digest),
        checksum: Checksum::Sha256(file.digest),
        bytes: Some(file.bytes),
        hub,
    });
    let problem = |kind, actual: Option<String>| Problem {
        path: path.to_owned(),
        place: place.clone(),
        kind,
        expected: Some(format!("sha256:{}", file.digest)),
        actual,
        remedy: needed.clone(),
    };
    let metadata = match fs::symlink_metadata(&place) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // A link that leads elsewhere is told already, and its repair brings back the content.
            subject.problems.retain(|known| known.path != path);
            subject.problems.push(problem(Kind::Missing, None));
            return;
        }
        Err(error) => {
            subject.problems.push(problem(Kind::Unreadable, Some(error.to_string())));
            return;
        }
    };
    if !metadata.is_file() {
        subject.problems.push(problem(Kind::NotAFile, Some(kind_of(&metadata).to_owned())));
        return;
    }
    subject.problems.extend(mode(path, &place, &metadata, BLOB_MODE));
    let stamp = FileStamp::of(&metadata);
    let claims = vec![Checksum::Sha256(file.digest)];
    let remembered = (file.stamp == Some(stamp)).then_some(file.digest);
    let content = contents.add(&place, stamp, &claims, remembered);
    subject.items.push(Item {
        path: path.to_owned(),
        place,
        content,
        bytes: Some(file.bytes),
        claims,
        record: Record::Blob(file.digest),
        remedy: needed,
    });
}

/// A mode that it should not have.
fn mode(path: &str, place: &Path, metadata: &fs::Metadata, expected: u32) -> Option<Problem> {
    let found = metadata.permissions().mode() & 0o7777;
    (found != expected).then(|| Problem {
        path: path.to_owned(),
        place: place.to_owned(),
        kind: Kind::WrongMode,
        expected: Some(format!("mode {expected:04o}")),
        actual: Some(format!("mode {found:04o}")),
        remedy: Remedy::Mode { path: place.to_owned(), mode: expected },
    })
}

/// Links in a snapshot's folder that no record names and that lead nowhere or out of the store: what loads
/// the folder follows them.
fn other_links(store: &Store, root: &Path, known: &BTreeSet<PathBuf>, subject: &mut Subject) {
    for entry in WalkDir::new(root).min_depth(1).sort_by_file_name().into_iter().flatten() {
        if !entry.path_is_symlink() || known.contains(entry.path()) {
            continue;
        }
        let kind = kind_of_link(store, entry.path());
        if kind == Kind::WrongLink {
            continue;
        }
        subject.problems.push(Problem {
            path: entry.path().strip_prefix(root).unwrap_or(entry.path()).display().to_string(),
            place: entry.path().to_owned(),
            kind,
            expected: None,
            actual: fs::read_link(entry.path()).ok().map(|target| target.display().to_string()),
            remedy: Remedy::Advice(format!("remove the link {}", entry.path().display())),
        });
    }
}

/// What the store holds beside its snapshots: its folder, content that nothing uses, names that are none.
/// Nothing if there is nothing of that kind.
pub fn rest(store: &Store, registry: Option<&Registry>, contents: &mut Contents) -> Result<Option<Subject>> {
    let (used, linked) = match registry {
        Some(registry) => (registry.snapshot_digests()?, registry.linked_digests()?.into_iter().collect()),
        None => (BTreeSet::new(), BTreeSet::new()),
    };
    let home = store.home();
    let mut subject = Subject::new(home.display().to_string(), "store", home.to_owned());
    if let Ok(metadata) = fs::metadata(home) {
        subject.problems.extend(mode(".", home, &metadata, STORE_MODE));
    }
    let blobs = store.blobs();
    if blobs.is_dir() {
        for entry in WalkDir::new(&blobs).min_depth(1).sort_by_file_name() {
            let entry = entry.map_err(|error| Error::io("read", &blobs, error.into()))?;
            let is_hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
            let is_fan = entry.depth() == 1 && entry.file_type().is_dir();
            if !is_hidden && !is_fan {
                unused(store, &entry, &used, &linked, &mut subject, contents);
            }
        }
    }
    for digest in linked.difference(&used).filter(|digest| !store.blob(digest).exists()) {
        subject.problems.push(Problem {
            path: store.blob(digest).strip_prefix(home).unwrap_or(home).display().to_string(),
            place: store.blob(digest),
            kind: Kind::Missing,
            expected: Some(format!("sha256:{digest}")),
            actual: None,
            remedy: needed(*digest),
        });
    }
    Ok((!subject.items.is_empty() || !subject.problems.is_empty()).then_some(subject))
}

/// Takes note of an entry of blobs/ that no snapshot uses.
fn unused(
    store: &Store,
    entry: &walkdir::DirEntry,
    used: &BTreeSet<Digest>,
    linked: &BTreeSet<Digest>,
    subject: &mut Subject,
    contents: &mut Contents,
) {
    let path = entry.path().strip_prefix(store.home()).unwrap_or(entry.path()).display().to_string();
    let digest = entry.file_name().to_str().and_then(|name| name.parse::<Digest>().ok());
    let advice = Remedy::Advice("no model uses it: mlx-cache gc removes it".to_owned());
    let Some(digest) = digest.filter(|digest| store.blob(digest) == entry.path()) else {
        subject.problems.push(Problem {
            path,
            place: entry.path().to_owned(),
            kind: Kind::WrongName,
            expected: Some("the SHA-256 of its content, in the folder of its first two digits".to_owned()),
            actual: None,
            remedy: advice,
        });
        return;
    };
    if used.contains(&digest) {
        return;
    }
    let Ok(metadata) = entry.metadata() else { return };
    if !metadata.is_file() {
        subject.problems.push(Problem {
            path,
            place: entry.path().to_owned(),
            kind: Kind::NotAFile,
            expected: None,
            actual: Some(kind_of(&metadata).to_owned()),
            remedy: advice,
        });
        return;
    }
    let claims = vec![Checksum::Sha256(digest)];
    let content = contents.add(entry.path(), FileStamp::of(&metadata), &claims, None);
    subject.items.push(Item {
        path,
        place: entry.path().to_owned(),
        content,
        bytes: None,
        claims,
        record: Record::Blob(digest),
        // Other tools' files may be links to it.
        remedy: if linked.contains(&digest) { needed(digest) } else { advice },
    });
}

fn needed(digest: Digest) -> Remedy {
    let checksum = Checksum::Sha256(digest);
    Remedy::Content(Needed { target: Target::Blob(digest), checksum, bytes: None, hub: None })
}

pub(super) fn kind_of(metadata: &fs::Metadata) -> &'static str {
    let kind = metadata.file_type();
    if kind.is_dir() {
        "a folder"
    } else if kind.is_symlink() {
        "a link"
    } else if kind.is_file() {
        "a file"
    } else {
        "a device, pipe or socket"
    }
}

/// Whether a folder that exists lies, by the links on the way to it, outside of `root`.
fn leads_out(folder: &Path, root: &Path) -> bool {
    match (fs::canonicalize(folder), fs::canonicalize(root)) {
        (Ok(folder), Ok(root)) => !folder.starts_with(root),
        _ => false,
    }
}
