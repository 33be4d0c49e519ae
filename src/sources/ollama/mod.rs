//! Ollama's models.
//!
//! ```text
//! <models>/manifests/<host>/<namespace>/<name>/<tag>    JSON: the layers of one model
//! <models>/blobs/sha256-<64 hex>                        a layer; …-partial…: a download
//! ```
//!
//! Checked against Ollama's `manifest` package and `server/images.go`: its start-up deletes every other name
//! in `blobs/`, and opens blobs through links.

mod instructions;
mod manifest;

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use self::instructions::Instructions;
use self::manifest::{Manifest, model_name};
use super::bounds::{Bounds, Destination};
use super::scan::{Checksum, Expected, Fault, ForeignFile, ForeignModel, PassedOver, Payload, Scan};
use super::walk::{Answer, Seen, Walked, What, walk, what_is_at};
use super::{ANOTHER_USERS, Source, reason_of};
use crate::cancel::Cancel;
use crate::error::{Code, Error, Result};
use crate::fs::Entry;
use crate::ids::ModelName;

/// Where Ollama's installer for Linux lets its system service keep the models.
pub(super) const SYSTEM_ROOT: &str = "/usr/share/ollama/.ollama/models";

/// A `models` folder.
#[derive(Debug, Clone)]
pub struct Ollama {
    root: PathBuf,
    store: PathBuf,
}

impl Ollama {
    /// The models in `root`, some of whose files may be links into `store`.
    pub fn at(root: &Path, store: &Path) -> Self {
        Self { root: root.to_owned(), store: store.to_owned() }
    }

    fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }
}

impl Source for Ollama {
    fn name(&self) -> &'static str {
        "ollama"
    }

    fn root(&self) -> &Path {
        &self.root
    }

    fn scan(&self, cancel: &Cancel) -> Result<Scan> {
        let bounds = Bounds::new(&self.root, &self.store);
        let own = self.is_own();
        let walked = walk(&self.root, &self.store, Area::Models, cancel, |area, seen| {
            judge(area, seen, own, &bounds)
        })?;
        self.assemble(walked, cancel)
    }

    fn find(&self, name: &ModelName, cancel: &Cancel) -> Result<Scan> {
        let bounds = Bounds::new(&self.root, &self.store);
        let Some(manifest) = self.manifest(name, &bounds) else { return Ok(Scan::default()) };
        let mut walked = Walked { kept: Vec::new(), passed_over: Vec::new() };
        let read = Manifest::read(&manifest);
        let blobs: BTreeSet<OsString> =
            read.iter().flat_map(Manifest::layers).map(|layer| OsString::from(&layer.blob)).collect();
        walked.kept.push(Found::Manifest(manifest, read));
        let folder = self.blobs();
        for name in &blobs {
            // What is not there or cannot be read is missing from the model.
            let Ok(what) = what_is_at(&folder.join(name)) else { continue };
            match judge(Area::Blobs, &Seen { folder: &folder, name, what }, self.is_own(), &bounds) {
                Answer::Keep(found) => walked.kept.push(found),
                Answer::Enter(_) | Answer::Pass(_) | Answer::Ignore => {}
            }
        }
        self.assemble(walked, cancel)
    }
}

impl Ollama {
    /// What a model's small layers tell about how it is to be asked; nothing if there is no such model.
    pub fn instructions(&self, name: &ModelName) -> Result<Option<Instructions>> {
        let bounds = Bounds::new(&self.root, &self.store);
        let Some(path) = self.manifest(name, &bounds) else { return Ok(None) };
        match Manifest::read(&path) {
            Ok(manifest) => Instructions::read(name, &self.blobs(), &manifest, &bounds).map(Some),
            Err(reason) => Err(damaged(&path, &reason)),
        }
    }

    /// The place of a model's manifest, if there is one and no link on the way leads out.
    fn manifest(&self, name: &ModelName, bounds: &Bounds) -> Option<PathBuf> {
        let below: PathBuf = name.ollama_parts()?.iter().collect();
        let path = self.root.join("manifests").join(&below);
        let real = path.canonicalize().ok()?;
        (real == bounds.real_root().join("manifests").join(below)).then_some(path)
    }

    fn assemble(&self, walked: Walked<Found>, cancel: &Cancel) -> Result<Scan> {
        let mut scan = Scan { passed_over: walked.passed_over, ..Scan::default() };
        let mut manifests = Vec::new();
        let mut links = HashMap::new();
        for found in walked.kept {
            match found {
                Found::Payload(payload) => scan.payloads.push(payload),
                Found::Manifest(path, read) => manifests.push((path, read)),
                Found::Link(path, Ok(inside)) => {
                    links.insert(path, Ok(inside));
                }
                Found::Link(path, Err(fault)) => {
                    scan.passed_over.push(passed(&path, reason_of(&fault)));
                    links.insert(path, Err(fault));
                }
            }
        }
        // Files are looked up from here on.
        scan = scan.sorted();
        for (path, read) in manifests {
            cancel.check()?;
            match read.and_then(|manifest| Ok((name_of(&self.root, &path)?, manifest))) {
                Ok((name, manifest)) => {
                    let model = self.model(name, manifest, |place| content(place, &links, &scan));
                    scan.models.push(model);
                }
                Err(reason) => scan.passed_over.push(passed(&path, reason)),
            }
        }
        Ok(scan.sorted())
    }

    fn model(
        &self,
        name: ModelName,
        manifest: Manifest,
        content: impl Fn(&Path) -> Result<Arc<Path>, Fault>,
    ) -> ForeignModel {
        let blobs = self.blobs();
        let files = manifest.into_layers().map(|layer| {
            let place: Arc<Path> = blobs.join(&layer.blob).into();
            ForeignFile {
                path: layer.path,
                content: content(&place),
                place,
                expected: Expected { checksum: Some(Checksum::Sha256(layer.digest)), bytes: layer.bytes },
            }
        });
        ForeignModel { name, revision: None, files: files.collect(), absent: Vec::new(), root: blobs }
    }
}

/// Which part of the folder a folder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Area {
    Models,
    Blobs,
    /// The folder of manifests, and how many folders below it.
    Manifests(u8),
}

/// How many folders there are between `manifests/` and a manifest: host, namespace and name.
const DEPTH: u8 = 3;

enum Found {
    Payload(Payload),
    /// A blob that is a link to another file here, or that leads nowhere.
    Link(Arc<Path>, Result<PathBuf, Fault>),
    Manifest(PathBuf, Result<Manifest, String>),
}

fn judge(area: Area, seen: &Seen<'_>, own: bool, bounds: &Bounds) -> Answer<Area, Found> {
    let name = seen.name.to_str().unwrap_or_default();
    match (area, &seen.what) {
        (_, What::Special) => Answer::pass("no regular file"),
        (Area::Models, What::Folder) => match name {
            "blobs" => Answer::Enter(Area::Blobs),
            "manifests" => Answer::Enter(Area::Manifests(0)),
            _ => Answer::pass("no folder of Ollama"),
        },
        (Area::Models, What::File(_)) => Answer::pass("no file of Ollama"),
        (Area::Models, What::Link(_)) => Answer::pass("a link in the place of a folder"),

        (Area::Blobs, What::Folder) => Answer::pass("no blob"),
        (Area::Blobs, What::File(entry)) => match claimed(name) {
            Some(claimed) => Answer::Keep(Found::Payload(payload(seen.path(), None, *entry, claimed, own))),
            None if is_partial(name) => Answer::pass("a download that is not complete"),
            None => Answer::pass("no name that a blob has"),
        },
        (Area::Blobs, What::Link(text)) => {
            let Some(claimed) = claimed(name) else { return Answer::pass("no name that a blob has") };
            let path = seen.path();
            Answer::Keep(match bounds.follow(&path, text) {
                Ok(Destination::Store(to, entry)) => {
                    Found::Payload(payload(path, Some(to), entry, claimed, own))
                }
                Ok(Destination::Inside(inside)) => Found::Link(path, Ok(inside)),
                Err(fault) => Found::Link(path, Err(fault)),
            })
        }

        (Area::Manifests(depth), What::Folder) if depth < DEPTH => Answer::Enter(Area::Manifests(depth + 1)),
        (Area::Manifests(_), What::Folder) => Answer::pass("too deep for a manifest"),
        (Area::Manifests(DEPTH), What::File(_)) if !name.starts_with('.') => {
            let path = seen.folder.join(seen.name);
            let read = Manifest::read(&path);
            Answer::Keep(Found::Manifest(path, read))
        }
        (Area::Manifests(_), What::File(_)) if name == ".DS_Store" => Answer::Ignore,
        (Area::Manifests(_), What::File(_)) => Answer::pass("no manifest"),
        (Area::Manifests(_), What::Link(_)) => Answer::pass("a link in the place of a manifest"),
    }
}

fn payload(
    path: Arc<Path>,
    linked_to: Option<Arc<Path>>,
    entry: Entry,
    claimed: Checksum,
    own: bool,
) -> Payload {
    let replaceable = if own && entry.is_own() { Ok(()) } else { Err(ANOTHER_USERS) };
    Payload { path, linked_to, entry, claimed: Some(claimed), replaceable }
}

/// What the blob at `place` leads to.
fn content(
    place: &Path,
    links: &HashMap<Arc<Path>, Result<PathBuf, Fault>>,
    scan: &Scan,
) -> Result<Arc<Path>, Fault> {
    let payload = |path: &Path| scan.payload(path).map(|payload| Arc::clone(&payload.path));
    match links.get(place) {
        Some(Ok(inside)) => payload(inside).ok_or_else(|| Fault::Dangling(inside.clone())),
        Some(Err(fault)) => Err(fault.clone()),
        None => payload(place).ok_or(Fault::Missing),
    }
}

/// The digest in a blob's name.
fn claimed(name: &str) -> Option<Checksum> {
    name.strip_prefix("sha256-")?.parse().ok().map(Checksum::Sha256)
}

fn is_partial(name: &str) -> bool {
    name.starts_with("sha256-") && name.contains("-partial")
}

/// The model that a manifest's place names.
fn name_of(root: &Path, path: &Path) -> Result<ModelName, String> {
    let below = path.strip_prefix(root.join("manifests")).unwrap_or(path);
    let parts: Vec<&str> = below.iter().filter_map(|part| part.to_str()).collect();
    match parts.as_slice() {
        [host, namespace, name, tag] => model_name(host, namespace, name, tag),
        _ => None,
    }
    .ok_or_else(|| "its place has no name that a model can have".to_owned())
}

fn passed(path: &Path, reason: String) -> PassedOver {
    PassedOver { path: path.to_owned(), reason: reason.into(), unreadable: false }
}

/// A model of Ollama whose records cannot be understood.
fn damaged(path: &Path, reason: &str) -> Error {
    Error::new(Code::IntegrityFailed, format!("{} is damaged: {reason}", path.display()))
        .detail("path", path.display().to_string())
        .hint("pull the model again with Ollama")
}
