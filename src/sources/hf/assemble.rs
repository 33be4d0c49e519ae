//! From names on disk to models and payloads.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Area, Found, Leads, name_of, passed, tree};
use crate::cancel::Cancel;
use crate::error::Result;
use crate::fs::Entry;
use crate::ids::SnapshotPath;
use crate::sources::scan::{Checksum, Expected, Fault, ForeignFile, ForeignModel, Payload, Scan, bytes_of};
use crate::sources::walk::Walked;
use crate::sources::{ANOTHER_USERS, reason_of};

const SHARED: &str = "the shared store's files must stay regular files";
const IN_SNAPSHOT: &str = "an entry of a snapshot: tools delete through it";

/// Blobs that are links, and what they lead to in the cache.
type Links = HashMap<Arc<Path>, Result<PathBuf, Fault>>;

pub(super) fn assemble(root: &Path, own: bool, walked: Walked<Found>, cancel: &Cancel) -> Result<Scan> {
    let Walked { kept: mut found, passed_over } = walked;
    // A repository's entries stand together then, its blobs before its snapshots.
    found.sort_unstable_by(|a, b| bytes_of(&a.path).cmp(bytes_of(&b.path)));
    let mut scan = Scan { passed_over, ..Scan::default() };
    let mut links = Links::new();
    for one in &found {
        match (&one.leads, one.area) {
            (Leads::File(entry), _) => scan.payloads.push(payload(one, None, *entry, own)),
            (Leads::Store(to, entry), _) => scan.payloads.push(payload(one, Some(to), *entry, own)),
            (Leads::Inside(inside), Area::Blobs) => {
                links.insert(Arc::clone(&one.path), Ok(inside.clone()));
            }
            (Leads::Nowhere(fault), Area::Blobs) => {
                let reason = reason_of(fault).into();
                scan.passed_over.push(super::PassedOver {
                    path: one.path.to_path_buf(),
                    reason,
                    unreadable: false,
                });
                links.insert(Arc::clone(&one.path), Err(fault.clone()));
            }
            _ => {}
        }
    }
    scan.payloads.shrink_to_fit();
    let mut commit: Option<Commit> = None;
    for one in found {
        if one.area != Area::Snapshot {
            continue;
        }
        if commit.as_ref().is_none_or(|commit| !one.path.starts_with(&commit.folder)) {
            cancel.check()?;
            if let Some(done) = commit.take() {
                scan.models.extend(done.finish());
            }
            commit = Commit::of(root, &one.path, &mut scan);
        }
        if let Some(commit) = &mut commit {
            commit.add(one, &links, &mut scan);
        }
    }
    scan.models.extend(commit.and_then(Commit::finish));
    Ok(scan.sorted())
}

fn payload(found: &Found, linked_to: Option<&Arc<Path>>, entry: Entry, own: bool) -> Payload {
    let replaceable = match found.area {
        Area::SharedPart => Err(SHARED),
        Area::Snapshot => Err(IN_SNAPSHOT),
        _ if !own || !entry.is_own() => Err(ANOTHER_USERS),
        _ => Ok(()),
    };
    let claimed = match found.area {
        Area::Blobs => found.path.file_name().and_then(OsStr::to_str).and_then(Checksum::of_name),
        _ => None,
    };
    Payload { path: Arc::clone(&found.path), linked_to: linked_to.cloned(), entry, claimed, replaceable }
}

/// The snapshot that is being put together.
struct Commit {
    repository: PathBuf,
    folder: PathBuf,
    listing: HashMap<String, Expected>,
    /// None if its folders have no names that a model can have.
    model: Option<ForeignModel>,
}

impl Commit {
    /// The snapshot that holds this entry; `None` if the entry lies in none.
    fn of(root: &Path, entry: &Path, scan: &mut Scan) -> Option<Self> {
        let mut parts = entry.strip_prefix(root).ok()?.iter();
        let (repository_name, snapshots, commit) = (parts.next()?, parts.next()?, parts.next()?);
        let repository = root.join(repository_name);
        let folder = repository.join(snapshots).join(commit);
        let name = repository_name.to_str().and_then(name_of);
        let revision = commit.to_str().and_then(|commit| commit.parse().ok());
        let model = match (name, revision) {
            (Some(name), Some(revision)) => Some(ForeignModel {
                name,
                revision: Some(revision),
                root: folder.clone(),
                files: Vec::new(),
                absent: Vec::new(),
            }),
            (None, _) => {
                scan.passed_over.push(passed(&folder, "its repository has no name that a model can have"));
                None
            }
            (_, None) => {
                scan.passed_over.push(passed(&folder, "no commit's name"));
                None
            }
        };
        let listing = match (&model, commit.to_str()) {
            (Some(_), Some(commit)) => tree::read(&repository, commit),
            _ => HashMap::new(),
        };
        Some(Self { repository, folder, listing, model })
    }

    /// The model, with what its listing has beyond what is there.
    fn finish(self) -> Option<ForeignModel> {
        let mut model = self.model?;
        let absent =
            self.listing.into_iter().filter_map(|(path, expected)| Some((path.parse().ok()?, expected)));
        model.absent = absent.collect();
        model.absent.sort_by(|a, b| a.0.cmp(&b.0));
        Some(model)
    }

    fn add(&mut self, found: Found, links: &Links, scan: &mut Scan) {
        let Some(model) = &mut self.model else { return };
        let Some(path) = path_in(&self.folder, &found.path) else {
            scan.passed_over.push(passed(&found.path, "its name is not one that a model's file can have"));
            return;
        };
        let listed = self.listing.remove(path.as_str()).unwrap_or_default();
        let (content, named) = match found.leads {
            Leads::File(_) | Leads::Store(..) => (Ok(Arc::clone(&found.path)), None),
            Leads::Blob(name) => {
                let blob = self.repository.join("blobs").join(&*name);
                let named = name.to_str().and_then(Checksum::of_name);
                (blob_content(&blob, links, scan), named)
            }
            Leads::Inside(inside) => {
                let name = inside.file_name().and_then(OsStr::to_str);
                let named = name.filter(|_| inside.parent().is_some_and(|folder| folder.ends_with("blobs")));
                (blob_content(&inside, links, scan), named.and_then(Checksum::of_name))
            }
            Leads::Nowhere(fault) => (Err(fault), None),
        };
        let expected = Expected { checksum: listed.checksum.or(named), bytes: listed.bytes };
        // Shared files and files in snapshots have names that tell nothing.
        if let Ok(path) = &content
            && let Some(payload) = scan.position(path).and_then(|at| scan.payloads.get_mut(at))
        {
            payload.claimed = payload.claimed.or(named).or(expected.checksum);
        }
        model.files.push(ForeignFile { path, place: found.path, content, expected });
    }
}

/// The payload at a path of the cache, or the one that a blob there links to.
fn blob_content(path: &Path, links: &Links, scan: &Scan) -> Result<Arc<Path>, Fault> {
    let payload = |path: &Path| scan.payload(path).map(|payload| Arc::clone(&payload.path));
    match links.get(path) {
        Some(Ok(inside)) => payload(inside).ok_or_else(|| Fault::Dangling(inside.clone())),
        Some(Err(fault)) => Err(fault.clone()),
        None => payload(path).ok_or_else(|| Fault::Dangling(path.to_owned())),
    }
}

/// A file's path in its model, if it is one that a model's file can have.
fn path_in(folder: &Path, path: &Path) -> Option<SnapshotPath> {
    path.strip_prefix(folder).ok()?.to_str()?.parse().ok()
}
