//! `add`: probe, hash, register; with `--copy`, into the store.

use std::fs;
use std::path::{Component, Path, PathBuf};

use super::facts;
use crate::cli::add::AddArgs;
use crate::context::Context;
use crate::engine::probe::probe;
use crate::error::{Code, Error, Result};
use crate::fs::{Progress, hash_file, open_regular, plain_path};
use crate::ids::{Host, ModelName, Revision, SnapshotPath};
use crate::output::progress::Unit;
use crate::registry::{Facts, FileRecord, NewSnapshot, Origin, Registry, Snapshot};
use crate::report::add::{AddReport, AddedReport};
use crate::store::{Incoming, Ingestion, Store, try_map};

pub fn run(args: &AddArgs, context: &Context) -> Result<AddReport> {
    if args.name.is_some() && args.path.len() > 1 {
        return Err(Error::new(Code::InvalidRequest, "one name cannot be given to several models")
            .hint("add them one by one, each with its --name"));
    }
    // Every path is read before anything is registered.
    let candidates = args
        .path
        .iter()
        .map(|path| Candidate::new(path, args.name.as_deref(), context))
        .collect::<Result<Vec<_>>>()?;
    let models = candidates
        .into_iter()
        .map(|candidate| candidate.add(args.copy, context))
        .collect::<Result<Vec<_>>>()?;
    Ok(AddReport { models })
}

/// A model to be added.
struct Candidate {
    name: ModelName,
    /// The commit, where the folder's name tells it.
    revision: Option<Revision>,
    origin: Origin,
    root: PathBuf,
    entry: Option<SnapshotPath>,
    facts: Facts,
    files: Vec<Incoming>,
}

impl Candidate {
    fn new(path: &Path, name: Option<&str>, context: &Context) -> Result<Self> {
        let path = plain_path(path).map_err(|error| Error::io("resolve", path, error))?;
        let probed = probe(&path)?;
        let root = if path.is_dir() { path.clone() } else { path.parent().unwrap_or(&path).to_owned() };
        let files = probed
            .files
            .iter()
            .map(|file| {
                let source = root.join(file);
                let metadata = fs::metadata(&source).map_err(|error| Error::io("read", &source, error))?;
                Ok(Incoming { path: snapshot_path(file)?, bytes: metadata.len(), source })
            })
            .collect::<Result<Vec<_>>>()?;
        let entry = match files.as_slice() {
            [only] if !path.is_dir() || only.path.has_extension("gguf") => Some(only.path.clone()),
            _ => None,
        };
        let (derived, revision, origin) = describe(&path, context);
        let name = match name {
            Some(name) => ModelName::parse_pair(Host::Local, name)
                .map_err(|error| error.context(format!("--name '{}'", name.escape_debug())))?,
            None => derived.ok_or_else(|| {
                Error::new(Code::InvalidRequest, format!("{} gives no usable name", path.display()))
                    .hint("name the model with --name org/name")
            })?,
        };
        Ok(Self { name, revision, origin, root, entry, facts: facts::of(&probed), files })
    }

    fn add(self, copy: bool, context: &Context) -> Result<AddedReport> {
        let store = Store::at(&context.settings.home.value);
        let mut registry = store.create()?;
        let total = self.files.iter().map(|file| file.bytes).sum();
        let verb = if copy { "copying" } else { "hashing" };
        let bar = context.output.progress(&format!("{verb} {}", self.name), Some(total), Unit::Bytes);
        let progress = |bytes| {
            bar.advance(bytes);
            context.cancel.check()
        };
        let ingestion = if copy {
            store.ingest(&registry, &self.files, &progress)?
        } else {
            Ingestion::adopted(self.hash(&registry, &progress)?)
        };
        drop(bar);
        let registered = self.register(copy, &store, &mut registry, &ingestion);
        if registered.is_err() {
            // The failure to register is the one to tell.
            let _ = store.discard(&registry, &ingestion);
        }
        registered
    }

    /// Hashes the files where they lie, several at a time; not those that were hashed before and did
    /// not change since.
    fn hash(&self, registry: &Registry, progress: Progress<'_>) -> Result<Vec<FileRecord>> {
        let remembered = self
            .files
            .iter()
            .map(|file| {
                let (_, stamp) = open_regular(&file.source)?;
                Ok((file, stamp, registry.remembered_digest(&stamp)?))
            })
            .collect::<Result<Vec<_>>>()?;
        try_map(&remembered, |(file, stamp, digest)| {
            let (digest, stamp) = if let Some(digest) = digest {
                progress(stamp.bytes)?;
                (*digest, *stamp)
            } else {
                let hashed = hash_file(&file.source, progress)?;
                (hashed.digest, hashed.stamp)
            };
            Ok(FileRecord { path: file.path.clone(), digest, bytes: stamp.bytes, stamp: Some(stamp) })
        })
    }

    fn register(
        self,
        copy: bool,
        store: &Store,
        registry: &mut Registry,
        ingestion: &Ingestion,
    ) -> Result<AddedReport> {
        let files = ingestion.files.clone();
        // Several commits of one repository stand side by side.
        let pinned = self.revision.is_some();
        let revision = self
            .revision
            .unwrap_or_else(|| Revision::of_content(files.iter().map(|file| (&file.path, &file.digest))));
        let origin = if copy { Origin::Copied } else { self.origin };
        let mut new = NewSnapshot {
            name: self.name,
            revision,
            origin,
            root: self.root,
            entry: self.entry,
            facts: self.facts,
            files,
        };
        let lock = store.lock()?;
        let known = registry.snapshots()?;
        let same_name: Vec<&Snapshot> = known.iter().filter(|known| known.name.is_same(&new.name)).collect();
        let same_place = |known: &Snapshot| known.root == new.root && known.entry == new.entry;
        let same = same_name.iter().find(|known| known.revision == new.revision);
        if let Some(same) = same
            && stays(same, copy, same_place(same))
        {
            return Ok(report(same, true));
        }
        let already_known = same.is_some_and(|same| same.origin.is_stored() == copy);
        // A model that changed in its place is followed; a name that other content has is not taken.
        // Several commits of one repository stand side by side.
        let (replaced, others): (Vec<&Snapshot>, Vec<&Snapshot>) = same_name
            .iter()
            .filter(|known| known.revision != new.revision)
            .partition(|known| same_place(known));
        if let Some(other) = others.first()
            && !pinned
        {
            return Err(taken(&new, other));
        }
        let replaced: Vec<i64> = replaced.iter().map(|known| known.id).collect();
        store.register(&lock, registry, &mut new, &replaced)?;
        let added = registry
            .snapshots()?
            .into_iter()
            .find(|known| known.name.is_same(&new.name) && known.revision == new.revision);
        let added = added.ok_or_else(|| Error::internal("a registered model is not in the registry"))?;
        Ok(report(&added, already_known))
    }
}

/// Whether what is known already is as good as what would take its place: it is not made an adopted model
/// again once it was copied, and its files are still there.
fn stays(known: &Snapshot, copy: bool, same_place: bool) -> bool {
    match (known.origin.is_stored(), copy) {
        // Registering heals a folder of links that was damaged.
        (_, true) => false,
        (true, false) => known.path().exists(),
        // In the same place what is remembered of the files is brought up to date.
        (false, false) => !same_place && known.path().exists(),
    }
}

fn report(snapshot: &Snapshot, already_known: bool) -> AddedReport {
    AddedReport {
        reference: snapshot.name.to_string(),
        revision: snapshot.revision.to_string(),
        origin: snapshot.origin.as_str().to_owned(),
        path: snapshot.path().display().to_string(),
        bytes: snapshot.bytes.0,
        files: snapshot.file_count,
        already_known,
    }
}

fn taken(new: &NewSnapshot, other: &Snapshot) -> Error {
    Error::new(
        Code::InvalidRequest,
        format!("the name {} belongs to another model, at {}", new.name, other.path().display()),
    )
    .hint("choose another name with --name org/name, or remove the other model first")
}

/// A file's path inside its model's folder.
fn snapshot_path(path: &Path) -> Result<SnapshotPath> {
    let text = path.to_str().ok_or_else(|| {
        Error::new(Code::InvalidRequest, format!("the file name {} is not UTF-8", path.display()))
            .detail("path", path.display().to_string())
            .hint("rename the file")
    })?;
    text.parse()
}

/// Name, commit and owner, as far as the path tells them: a snapshot of a Hugging Face cache, a folder
/// of LM Studio, or any other.
fn describe(path: &Path, context: &Context) -> (Option<ModelName>, Option<Revision>, Origin) {
    if let Some((name, revision)) = hugging_face(path) {
        let inside = path.starts_with(&context.settings.hf_hub_cache.value);
        let origin = if inside { Origin::HuggingFaceCache } else { Origin::Folder };
        return (Some(name), Some(revision), origin);
    }
    let folder = if path.is_dir() { Some(path) } else { path.parent() };
    if let Some(folder) = folder
        && let Ok(below) = folder.strip_prefix(&context.settings.lmstudio_models.value)
        && let Some(name) = pair(below, Host::LmStudio)
    {
        return (Some(name), None, Origin::LmStudio);
    }
    let stem = if path.is_dir() { path.file_name() } else { path.file_stem() };
    let name = stem.and_then(|stem| stem.to_str()).and_then(ModelName::of_local);
    (name, None, Origin::Folder)
}

/// `…/models--org--name/snapshots/<commit>`, or a file in it.
fn hugging_face(path: &Path) -> Option<(ModelName, Revision)> {
    path.ancestors().take(3).find_map(|folder| {
        let commit = folder.file_name()?.to_str()?;
        let snapshots = folder.parent().filter(|parent| parent.ends_with("snapshots"))?;
        let repository = snapshots.parent()?.file_name()?.to_str()?.strip_prefix("models--")?;
        let (org, name) = repository.split_once("--")?;
        let name = ModelName::new(Host::HuggingFace, org, name).ok()?;
        Some((name, commit.parse().ok()?))
    })
}

/// The first two components as a name.
fn pair(path: &Path, host: Host) -> Option<ModelName> {
    let mut parts = path.components().filter_map(|part| match part {
        Component::Normal(part) => part.to_str(),
        _ => None,
    });
    ModelName::new(host, parts.next()?, parts.next()?).ok()
}
