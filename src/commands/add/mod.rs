//! `add`: probe, hash, register; with `--copy`, into the store.

mod candidate;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use self::candidate::Candidate;
use super::foreign::{self, Foreign, origin_of};
use super::status::present_sources;
use crate::cli::add::AddArgs;
use crate::context::Context;
use crate::error::{Code, Error, Result};
use crate::fs::{Progress, hash_file, open_regular, try_map};
use crate::ids::{ModelName, ModelRef, Revision, SnapshotPath};
use crate::output::progress::Unit;
use crate::registry::{FileRecord, NewSnapshot, Origin, Registry, Snapshot};
use crate::report::add::{AddReport, AddedReport, SkippedReport};
use crate::store::{Ingestion, Store};

pub fn run(args: &AddArgs, context: &Context) -> Result<AddReport> {
    let subjects = args.path.iter().map(|path| Subject::of(path, context)).collect::<Result<Vec<_>>>()?;
    if args.name.is_some() && (subjects.len() > 1 || subjects.iter().any(Subject::is_cache)) {
        return Err(Error::new(Code::InvalidRequest, "one name cannot be given to several models")
            .hint("add them one by one, each with its --name"));
    }
    let mut report = AddReport { models: Vec::new(), skipped: Vec::new() };
    // Every model is read before anything is registered.
    let mut candidates = Vec::new();
    for subject in &subjects {
        for read in subject.candidates(args, context)? {
            match read {
                Ok(candidate) => candidates.push((candidate, subject.is_cache())),
                Err(skipped) => report.skipped.push(skipped),
            }
        }
    }
    for (candidate, may_fail) in candidates {
        let (name, path) = (candidate.name.clone(), candidate.path());
        match candidate.add(args.copy, context) {
            Ok(added) => report.models.push(added),
            Err(error) if may_fail && error.code() != Code::Interrupted => {
                report.skipped.push(skipped(&name, &path, &error));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(report)
}

/// What an argument means.
enum Subject {
    /// All models of a tool's caches.
    Cache(Origin),
    /// One model of another tool.
    Model(Box<Foreign>),
    Path(PathBuf),
}

impl Subject {
    /// A folder called as a tool is would be written `./ollama`.
    fn of(path: &Path, context: &Context) -> Result<Self> {
        let text = path.to_str().unwrap_or_default();
        match text {
            "hf" => return Ok(Self::Cache(Origin::HuggingFaceCache)),
            "ollama" => return Ok(Self::Cache(Origin::Ollama)),
            "lmstudio" => return Ok(Self::Cache(Origin::LmStudio)),
            _ => {}
        }
        if !path.exists()
            && let Ok(reference @ ModelRef::Named { .. }) = text.parse()
            && let Some(found) = foreign::find(&reference, context)?
        {
            return Ok(Self::Model(Box::new(found)));
        }
        Ok(Self::Path(path.to_owned()))
    }

    fn is_cache(&self) -> bool {
        matches!(self, Self::Cache(_))
    }

    fn candidates(
        &self,
        args: &AddArgs,
        context: &Context,
    ) -> Result<Vec<std::result::Result<Candidate, SkippedReport>>> {
        let name = args.name.as_deref();
        match self {
            Self::Path(path) => Ok(vec![Ok(Candidate::new(path, name, context)?)]),
            Self::Model(found) => Ok(vec![Ok(Candidate::of_foreign(found, name, args.copy)?)]),
            Self::Cache(origin) => {
                let found = foreign::all(|other| other == *origin, context)?;
                if found.is_empty()
                    && !present_sources(&context.settings).iter().any(|it| origin_of(it.as_ref()) == *origin)
                {
                    return Err(Error::new(
                        Code::FileNotFound,
                        format!("{} keeps no models on this machine", origin.as_str()),
                    )
                    .hint("mlx-cache config shows where other tools' models are looked for"));
                }
                let read = |found: &Foreign| {
                    context.cancel.check()?;
                    Ok(Candidate::of_foreign(found, None, args.copy)
                        .map_err(|error| skipped(&found.name, &found.path, &error)))
                };
                try_map(&found, read)
            }
        }
    }
}

fn skipped(name: &ModelName, path: &Path, error: &Error) -> SkippedReport {
    SkippedReport {
        reference: name.to_string(),
        path: path.display().to_string(),
        reason: error.message().to_owned(),
    }
}

impl Candidate {
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
        let revision = match self.revision {
            Some(revision) => revision,
            None if self.origin == Origin::Ollama => of_layers(&files)?,
            None => Revision::of_content(files.iter().map(|file| (&file.path, &file.digest))),
        };
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
        let same_name = registry.snapshots_of(&new.name)?;
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
        let mut known = registry.snapshots_of(&new.name)?.into_iter();
        let added = known.find(|known| known.revision == new.revision);
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

/// The revision of a model of Ollama: the same whether its layers have names of their own or those of blobs.
fn of_layers(files: &[FileRecord]) -> Result<Revision> {
    let blobs = files.iter().map(|file| format!("sha256-{}", file.digest).parse());
    let blobs = blobs.collect::<Result<BTreeSet<SnapshotPath>>>()?;
    let named = blobs.iter().filter_map(|blob| {
        Some((blob, files.iter().find(|file| blob.as_str().ends_with(&file.digest.to_string()))?))
    });
    Ok(Revision::of_content(named.map(|(blob, file)| (blob, &file.digest))))
}
