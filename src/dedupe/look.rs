//! What lies in the caches and in the store: names and numbers, no content.

use std::borrow::Cow;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memchr::memmem;
use walkdir::WalkDir;

use super::{File, STORE, Skipped, Watch};
use crate::cancel::Cancel;
use crate::error::{Code, Error, Result};
use crate::fs::{EntryKind, entry_at};
use crate::ids::Digest;
use crate::sources::{Checksum, Payload, Scan, Source, Survey};
use crate::store::Store;

/// The word for folders that the user names.
const FOLDER: &str = "folder";

/// What was found.
#[derive(Debug, Default)]
pub struct Look {
    /// The caches of tools among what was looked through.
    pub roots: Vec<Root>,
    /// Regular files with content, each path once.
    pub files: Vec<Arc<File>>,
    pub skipped: Vec<Skipped>,
    /// Files that are links into the store already, and what these say they hold.
    pub linked: Vec<(Arc<Path>, Option<Digest>)>,
}

/// A folder that was looked through.
#[derive(Debug)]
pub struct Root {
    pub source: &'static str,
    /// As it was named.
    pub named: PathBuf,
    /// Without links in it.
    pub path: Arc<Path>,
    pub survey: Survey,
    /// What was found in it; its payloads are among the files.
    pub scan: Scan,
}

/// Looks through foreign caches, and with `stored` through the store. `foreign` are the caches of tools
/// that exist, whether they are looked through or not: what lies in them is theirs, whatever other
/// folder holds it too.
pub fn look(
    sources: &[Box<dyn Source>],
    foreign: &[Box<dyn Source>],
    store: &Store,
    stored: bool,
    cancel: &Cancel,
    watch: &dyn Watch,
) -> Result<Look> {
    let mut look = Look::default();
    let home = real(store.home());
    let theirs: Vec<(&'static str, PathBuf)> =
        foreign.iter().map(|source| (source.name(), real(source.root()))).collect();
    let (mut seen, mut looked) = (HashSet::new(), HashSet::new());
    for source in sources {
        watch.check()?;
        let path = real(source.root());
        if path.starts_with(&home) {
            return Err(Error::new(
                Code::BoundaryViolation,
                format!("{} lies in the store itself", source.root().display()),
            )
            .detail("path", source.root().display().to_string())
            .hint("name folders outside of the store; the store's own content is --source store"));
        }
        let root: Arc<Path> = path.into();
        if !looked.insert((source.name(), Arc::clone(&root))) {
            continue;
        }
        if !source.is_own() {
            look.skipped.push(Skipped::new(&root, "it belongs to another user"));
            continue;
        }
        // A folder is no tool that uses anything.
        let is_tool = source.name() != FOLDER;
        let mut scan = if is_tool { source.scan(cancel)? } else { source.files(cancel)? };
        let inside = |path: &Arc<Path>| below(path, source.root(), &root);
        for passed in std::mem::take(&mut scan.passed_over) {
            look.skipped.push(Skipped { path: passed.path.as_path().into(), reason: passed.reason });
        }
        let device = entry_at(&root).map_err(|error| Error::io("read", &root, error))?.stamp.device;
        let survey = if is_tool { scan.survey() } else { Survey::default() };
        // Most folders have nothing to do with the others; then no path need be compared with them.
        let holds_store = home.starts_with(&root);
        let theirs_inside: Vec<&(&'static str, PathBuf)> =
            theirs.iter().filter(|(_, cache)| cache.starts_with(&root) && !root.starts_with(cache)).collect();
        let overlaps = sources
            .iter()
            .map(|other| real(other.root()))
            .any(|other| *other != *root && (other.starts_with(&root) || root.starts_with(&other)));
        let payloads = std::mem::take(&mut scan.payloads);
        look.files.reserve_exact(payloads.len());
        for payload in payloads {
            let Some(path) = inside(&payload.path) else { continue };
            if holds_store && path.starts_with(&home) {
                continue;
            }
            let owner = theirs_inside
                .iter()
                .filter(|(_, cache)| path.starts_with(cache))
                .max_by_key(|(_, cache)| cache.as_os_str().len());
            if let Some((name, _)) = owner {
                if !sources.iter().any(|other| other.name() == *name) {
                    let reason = format!("it is {name}'s, which was not asked for");
                    look.skipped.push(Skipped { path, reason: reason.into() });
                }
                continue;
            }
            if overlaps && !seen.insert(Arc::clone(&path)) {
                continue;
            }
            if let Some(name) = &payload.linked_to {
                let digest = name.file_name().and_then(|name| name.to_str()?.parse().ok());
                look.linked.push((path, digest));
                continue;
            }
            let replaceable = replaceable(&path, &payload, device);
            look.files.push(Arc::new(File {
                source: source.name(),
                root: Arc::clone(&root),
                path,
                entry: payload.entry,
                claimed: match payload.claimed {
                    Some(Checksum::Sha256(digest)) => Some(digest),
                    _ => None,
                },
                replaceable,
            }));
        }
        if !is_tool {
            continue;
        }
        look.roots.push(Root {
            source: source.name(),
            named: source.root().to_owned(),
            path: root,
            survey,
            scan,
        });
    }
    drop(seen);
    if stored {
        watch.check()?;
        look.files.extend(blobs(store).into_iter().map(Arc::new));
    }
    Ok(look)
}

/// Whether dedupe may replace a payload in a folder on this filesystem, or why not.
fn replaceable(path: &Path, payload: &Payload, device: u64) -> Result<(), Cow<'static, str>> {
    if path.to_str().is_none() {
        Err("its name is not UTF-8".into())
    } else if !payload.entry.is_own() {
        Err("it belongs to another user".into())
    } else if payload.entry.stamp.device != device {
        Err("it lies on another filesystem, mounted inside of the folder".into())
    } else {
        payload.replaceable.map_err(Into::into)
    }
}

/// The content of the store.
pub(super) fn blobs(store: &Store) -> Vec<File> {
    let root: Arc<Path> = real(&store.blobs()).into();
    WalkDir::new(&root)
        .min_depth(2)
        .max_depth(2)
        .into_iter()
        .flatten()
        .filter_map(|found| {
            let digest: Digest = found.file_name().to_str()?.parse().ok()?;
            let entry = entry_at(found.path()).ok().filter(|entry| entry.kind == EntryKind::File)?;
            Some(File {
                source: STORE,
                root: Arc::clone(&root),
                path: found.path().into(),
                entry,
                claimed: Some(digest),
                replaceable: Err("it is content of the store".into()),
            })
        })
        .collect()
}

/// The path below `from` as one below `to`, which is `from` without links; nothing for a path that is
/// not plain.
pub(super) fn below(path: &Arc<Path>, from: &Path, to: &Path) -> Option<Arc<Path>> {
    // Most are what they were, and then there is one text for both.
    let within = path.as_os_str().as_encoded_bytes().strip_prefix(from.as_os_str().as_encoded_bytes());
    if from == to && within.is_some_and(|rest| rest.starts_with(b"/") && memmem::find(rest, b"/.").is_none())
    {
        return Some(Arc::clone(path));
    }
    let rest = path.strip_prefix(from).ok()?;
    let plain = rest.iter().all(|part| part != OsStr::new("..") && part != OsStr::new("."));
    plain.then(|| to.join(rest).into())
}

/// The path without links, as far as it exists.
fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}
