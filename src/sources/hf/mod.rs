//! The Hugging Face hub cache.
//!
//! ```text
//! <hub>/models--<org>--<name>/blobs/<etag>              content; <etag>.incomplete: a download
//! <hub>/models--<org>--<name>/snapshots/<commit>/<path> symlinks into blobs/, or files where none can be made
//! <hub>/models--<org>--<name>/refs/<branch or tag>      a commit's name
//! <hub>/models--<org>--<name>/trees/<commit>.json       sizes and checksums of all files of a commit
//! <hub>/blobs/<2 hex>/<xet hash>                        content that several repositories' blobs link to
//! ```
//!
//! Checked against `huggingface_hub` 2.4: `file_download.py`, `_tree_cache.py`, `utils/_cache_manager.py`
//! and `utils/_shared_blobs.py`.

mod assemble;
mod tree;

use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::bounds::{Bounds, Destination};
use super::record;
use super::scan::{Checksum, Fault, Scan};
use super::walk::{Answer, Seen, Walked, What, walk};
use super::{Source, scan::PassedOver};
use crate::cancel::Cancel;
use crate::error::Result;
use crate::fs::Entry;
use crate::ids::{Host, ModelName, Revision, RevisionSpec};

/// Says that `hub/blobs` is a store that repositories share.
const SHARED_MARKER: &str = ".huggingface-shared-blobs";

/// A commit's name has 40 bytes.
const LONGEST_REF: u64 = 256;

/// A `hub` folder.
#[derive(Debug, Clone)]
pub struct HuggingFace {
    root: PathBuf,
    store: PathBuf,
}

impl HuggingFace {
    /// The cache in `root`, some of whose files may be links into `store`.
    pub fn at(root: &Path, store: &Path) -> Self {
        Self { root: root.to_owned(), store: store.to_owned() }
    }

    /// The commit that a branch, a tag or a pull request was last seen at.
    pub fn commit(&self, name: &ModelName, reference: &RevisionSpec) -> Option<Revision> {
        let path = self.repository(name).join("refs").join(reference.as_str());
        let text = record::read(&path, LONGEST_REF).ok()?;
        str::from_utf8(&text).ok()?.trim().parse().ok()
    }

    /// The folder of a model's repository, whether it exists or not.
    fn repository(&self, name: &ModelName) -> PathBuf {
        self.root.join(format!("models--{}--{}", name.org(), name.name()))
    }

    fn walk(&self, start: &Path, area: Area, cancel: &Cancel) -> Result<Walked<Found>> {
        let bounds = Bounds::new(&self.root, &self.store);
        let shares = has_shared_store(&self.root);
        walk(start, &self.store, area, cancel, |area, seen| judge(area, seen, &self.root, shares, &bounds))
    }
}

impl Source for HuggingFace {
    fn name(&self) -> &'static str {
        "hf"
    }

    fn root(&self) -> &Path {
        &self.root
    }

    fn scan(&self, cancel: &Cancel) -> Result<Scan> {
        let walked = self.walk(&self.root, Area::Hub, cancel)?;
        assemble::assemble(&self.root, self.is_own(), walked, cancel)
    }

    fn find(&self, name: &ModelName, cancel: &Cancel) -> Result<Scan> {
        let repository = self.repository(name);
        let is_folder = repository.symlink_metadata().is_ok_and(|found| found.is_dir());
        if name.host() != Host::HuggingFace || !is_folder {
            return Ok(Scan::default());
        }
        let mut walked = self.walk(&repository, Area::Repository, cancel)?;
        let is_shared = |found: &Found| matches!(found.leads, Leads::Inside(_));
        if walked.kept.iter().any(is_shared) && has_shared_store(&self.root) {
            walked.kept.append(&mut self.walk(&self.root.join("blobs"), Area::Shared, cancel)?.kept);
        }
        assemble::assemble(&self.root, self.is_own(), walked, cancel)
    }
}

/// Which part of the cache a folder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Area {
    Hub,
    Repository,
    Blobs,
    /// The folder that holds a folder for each commit.
    Snapshots,
    /// A commit's folder, or one in it.
    Snapshot,
    Shared,
    /// One of the shared store's 256 folders.
    SharedPart,
}

/// A file or a link that belongs to content.
struct Found {
    path: Arc<Path>,
    area: Area,
    leads: Leads,
}

/// What a name leads to.
enum Leads {
    File(Entry),
    /// A link into our store.
    Store(Arc<Path>, Entry),
    /// A link to a blob of the same repository, by its name.
    Blob(Box<OsStr>),
    /// A link to another file of the cache.
    Inside(PathBuf),
    Nowhere(Fault),
}

fn judge(area: Area, seen: &Seen<'_>, root: &Path, shares: bool, bounds: &Bounds) -> Answer<Area, Found> {
    let name = seen.name.to_str();
    match (&seen.what, area) {
        (What::Special, _) => Answer::pass("no regular file"),
        (What::Folder, _) => folder(area, name, shares),
        (What::File(entry), Area::Blobs | Area::Snapshot | Area::SharedPart) => match (area, name) {
            (Area::Blobs, Some(name)) if is_partial(name) => Answer::pass("a download that is not complete"),
            (Area::Blobs | Area::SharedPart, Some(name)) if is_record(name) => Answer::Ignore,
            (Area::Blobs, Some(name)) if !name.starts_with('.') => keep(area, seen, Leads::File(*entry)),
            (Area::Snapshot, _) => keep(area, seen, Leads::File(*entry)),
            (Area::SharedPart, Some(name)) if is_sha256_name(name) => keep(area, seen, Leads::File(*entry)),
            _ => Answer::pass("no name that a file of the cache has"),
        },
        (What::Link(text), Area::Blobs | Area::Snapshot) => {
            let path = seen.path();
            let leads = match own_blob(root, seen.folder, text).filter(|_| area == Area::Snapshot) {
                Some(blob) => Leads::Blob(blob.into()),
                None => match bounds.follow(&path, text) {
                    Ok(Destination::Store(to, entry)) => Leads::Store(to, entry),
                    Ok(Destination::Inside(inside)) => Leads::Inside(inside),
                    Err(fault) => Leads::Nowhere(fault),
                },
            };
            Answer::Keep(Found { path, area, leads })
        }
        (What::Link(_), Area::Hub | Area::Repository | Area::Snapshots) => {
            Answer::pass("a link in the place of a folder")
        }
        (What::Link(_), Area::Shared | Area::SharedPart) => Answer::pass("a link in the shared store"),
        (What::File(_), _) => match name {
            Some("CACHEDIR.TAG" | ".DS_Store" | SHARED_MARKER) => Answer::Ignore,
            Some(name) if is_record(name) => Answer::Ignore,
            _ => Answer::pass("no part of a model"),
        },
    }
}

fn folder(area: Area, name: Option<&str>, shares: bool) -> Answer<Area, Found> {
    match (area, name) {
        (Area::Hub, Some(name)) if name.starts_with("models--") => Answer::Enter(Area::Repository),
        (Area::Hub, Some("blobs")) if shares => Answer::Enter(Area::Shared),
        (Area::Hub, Some(".locks")) | (Area::Repository, Some("refs" | "trees" | ".no_exist")) => {
            Answer::Ignore
        }
        (Area::Hub, _) => Answer::pass("no model's repository"),
        (Area::Repository, Some("blobs")) => Answer::Enter(Area::Blobs),
        (Area::Repository, Some("snapshots")) => Answer::Enter(Area::Snapshots),
        (Area::Snapshots | Area::Snapshot, _) => Answer::Enter(Area::Snapshot),
        (Area::Shared, Some(name)) if name.len() == 2 => Answer::Enter(Area::SharedPart),
        _ => Answer::pass("no folder of the cache"),
    }
}

fn keep(area: Area, seen: &Seen<'_>, leads: Leads) -> Answer<Area, Found> {
    Answer::Keep(Found { path: seen.path(), area, leads })
}

/// `<etag>.incomplete`, and with eight digits in between.
fn is_partial(name: &str) -> bool {
    name.ends_with(".incomplete")
}

fn is_record(name: &str) -> bool {
    [".lock", ".refs", ".soft"].iter().any(|ending| name.ends_with(ending))
}

/// Shared files are named by 64 digits that are no SHA-256: Xet has its own hash.
fn is_sha256_name(name: &str) -> bool {
    matches!(Checksum::of_name(name), Some(Checksum::Sha256(_)))
}

/// Whether `hub/blobs` is the shared store: a folder with a marker, neither of them a link.
fn has_shared_store(root: &Path) -> bool {
    let folder = root.join("blobs");
    folder.symlink_metadata().is_ok_and(|found| found.is_dir())
        && record::read(&folder.join(SHARED_MARKER), 64).is_ok()
}

/// The name of the blob that a relative link in a snapshot's folder holds, if it leads to a blob of the
/// same repository. The walk came through no link, so that `..` means what it says.
fn own_blob<'a>(root: &Path, folder: &Path, text: &'a Path) -> Option<&'a OsStr> {
    let depth = folder.strip_prefix(root).ok()?.components().count();
    let mut parts = text.components();
    // Up to the repository's folder, which is the first below the root.
    for _ in 1..depth {
        parts.next().filter(|part| *part == Component::ParentDir)?;
    }
    match (parts.next()?, parts.next()?, parts.next()) {
        (Component::Normal(blobs), Component::Normal(name), None) if blobs == "blobs" => Some(name),
        _ => None,
    }
}

/// The model whose repository has this folder name. One without an organization, as the hub's first models
/// are, counts as the user's own.
fn name_of(folder: &str) -> Option<ModelName> {
    let rest = folder.strip_prefix("models--")?;
    match rest.split_once("--") {
        Some((org, name)) => ModelName::new(Host::HuggingFace, org, name).ok(),
        None => ModelName::new(Host::Local, "local", rest).ok(),
    }
}

fn passed(path: &Path, reason: &'static str) -> PassedOver {
    PassedOver { path: path.to_owned(), reason: reason.into(), unreadable: false }
}
