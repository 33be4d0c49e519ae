//! Other tools' caches as subjects: their own names, listings and manifests say what content should be.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::contents::Contents;
use super::local_dir;
use super::problem::{HubFile, Kind, Needed, Problem, Remedy, Target};
use super::stored::kind_of;
use super::subject::{Item, Record, Subject, shown};
use crate::error::Result;
use crate::ids::{Digest, Host, ModelName, SnapshotPath};
use crate::registry::{FileRecord, Registry, Snapshot};
use crate::sources::{Checksum, Expected, Fault, ForeignFile, ForeignModel, Payload, Scan, Source};

/// A cache, what a look at it found, and what the registry knows of its models.
#[derive(Debug)]
pub struct Cache<'a> {
    source: &'a dyn Source,
    scan: &'a Scan,
    registry: Option<&'a Registry>,
    /// Names of downloads that did not come to their end, as far as they tell what they would have been.
    unfinished: HashSet<(PathBuf, String)>,
    own: bool,
}

/// An adopted snapshot with its files by where they lie.
type Known<'a> = (&'a Snapshot, HashMap<PathBuf, FileRecord>);

/// What records say of a file.
struct Noted {
    path: String,
    claims: Vec<Checksum>,
    bytes: Option<u64>,
    record: Record,
    /// The digest that the registry has for a file with this identity.
    remembered: Option<Digest>,
}

impl<'a> Cache<'a> {
    pub fn new(source: &'a dyn Source, scan: &'a Scan, registry: Option<&'a Registry>) -> Self {
        let unfinished = scan.passed_over.iter().filter_map(|passed| unfinished(&passed.path)).collect();
        Self { source, scan, registry, unfinished, own: source.is_own() }
    }

    /// One model as a subject; `adopted` are the snapshots that the registry knows of it.
    pub fn model(
        &self,
        model: &ForeignModel,
        adopted: &[&Snapshot],
        contents: &mut Contents,
    ) -> Result<Subject> {
        let mut subject = Subject::new(model.name.to_string(), self.source.name(), model.root.clone());
        subject.revision = model.revision.as_ref().map(ToString::to_string);
        subject.folder = (self.source.name() != "ollama").then(|| model.root.clone());
        subject.advice = self.advice(model);
        let mut known: Vec<Known<'_>> = Vec::new();
        if let Some(registry) = self.registry {
            for snapshot in adopted {
                let files = registry.files(snapshot.id)?;
                let places = files.into_iter().map(|file| (snapshot.root.join(&file.path), file)).collect();
                known.push((snapshot, places));
            }
        }
        for file in &model.files {
            match &file.content {
                Ok(path) => self.content(model, file, path, &known, &mut subject, contents)?,
                Err(fault) => subject.problems.push(self.fault(model, &subject, file, fault)),
            }
        }
        self.absent(model, &mut subject);
        Self::gone(model, &known, &mut subject);
        Ok(subject)
    }

    /// What lies in the cache and belongs to no model; nothing if there is nothing to tell.
    pub fn rest(&self, contents: &mut Contents) -> Result<Option<Subject>> {
        let root = self.source.root();
        let mut subject = Subject::new(root.display().to_string(), self.source.name(), root.to_owned());
        let used: HashSet<&Path> = self
            .scan
            .models
            .iter()
            .flat_map(|model| &model.files)
            .filter_map(|file| file.content.as_deref().ok())
            .collect();
        for payload in self.scan.payloads.iter().filter(|payload| !used.contains(&*payload.path)) {
            if let Some(claim) = payload.claimed {
                let path = self.below(&payload.path);
                let noted =
                    Noted { path, claims: vec![claim], bytes: None, record: Record::None, remembered: None };
                subject.items.push(self.item(noted, payload, "", None, contents)?);
            }
        }
        let told = self.places_told();
        for passed in self.scan.passed_over.iter().filter(|passed| !told.contains(&passed.path)) {
            if let Some((kind, actual)) = self.fault_of_name(&passed.path, passed.unreadable) {
                subject.problems.push(Problem {
                    path: self.below(&passed.path),
                    place: passed.path.clone(),
                    kind,
                    expected: None,
                    actual: Some(actual.unwrap_or_else(|| passed.reason.to_string())),
                    remedy: Remedy::Advice(match kind {
                        Kind::BrokenRecord => "fetch the model again with ollama pull".to_owned(),
                        Kind::Unreadable => "check the permissions of the path and its folders".to_owned(),
                        _ => format!("remove the link {}", passed.path.display()),
                    }),
                });
            }
        }
        Ok((!subject.items.is_empty() || !subject.problems.is_empty()).then_some(subject))
    }

    fn below(&self, path: &Path) -> String {
        path.strip_prefix(self.source.root()).unwrap_or(path).display().to_string()
    }

    /// Takes note of a file whose content is there.
    fn content(
        &self,
        model: &ForeignModel,
        file: &ForeignFile,
        path: &Arc<Path>,
        known: &[Known<'_>],
        subject: &mut Subject,
        contents: &mut Contents,
    ) -> Result<()> {
        let Some(payload) = self.scan.payload(path) else { return Ok(()) };
        let mut claims: Vec<Checksum> = file.expected.checksum.into_iter().chain(payload.claimed).collect();
        if claims.is_empty() && self.source.name() != "ollama" {
            claims.extend(local_dir::checksum(&model.root, &file.path));
        }
        let (mut bytes, mut record, mut remembered) = (file.expected.bytes, Record::None, None);
        let recorded = known.iter().find_map(|(snapshot, files)| Some((snapshot, files.get(&*file.place)?)));
        if let Some((snapshot, file)) = recorded {
            claims.push(Checksum::Sha256(file.digest));
            bytes = bytes.or(Some(file.bytes));
            remembered = (file.stamp == Some(payload.entry.stamp)).then_some(file.digest);
            record = Record::Adopted { snapshot: snapshot.id, path: file.path.clone() };
        }
        claims.sort_unstable();
        claims.dedup();
        let noted = Noted { path: file.path.to_string(), claims, bytes, record, remembered };
        let item = self.item(noted, payload, &subject.advice, hub(model, &file.path), contents)?;
        subject.items.push(item);
        Ok(())
    }

    fn item(
        &self,
        noted: Noted,
        payload: &Payload,
        advice: &str,
        hub: Option<HubFile>,
        contents: &mut Contents,
    ) -> Result<Item> {
        let Noted { path, claims, bytes, record, remembered } = noted;
        let remembered = match (remembered, self.registry) {
            (None, Some(registry)) => {
                registry.remembered(&[payload.entry.stamp])?.first().and_then(|remembered| remembered.digest)
            }
            _ => remembered,
        };
        let place = payload.linked_to.as_ref().unwrap_or(&payload.path);
        let content = contents.add(place, payload.entry.stamp, &claims, remembered);
        Ok(Item {
            path,
            place: payload.path.to_path_buf(),
            content,
            bytes,
            remedy: self
                .remedy(payload, &claims, bytes, hub)
                .unwrap_or_else(|| Remedy::Advice(advice.to_owned())),
            claims,
            record,
        })
    }

    /// How wrong content could be made good: only where its name says what it should be, in folders of
    /// this user.
    fn remedy(
        &self,
        payload: &Payload,
        claims: &[Checksum],
        bytes: Option<u64>,
        hub: Option<HubFile>,
    ) -> Option<Remedy> {
        let named = payload.claimed.filter(|claimed| claims.iter().all(|claim| agree(claim, claimed)));
        match (named, &payload.linked_to) {
            (Some(checksum @ Checksum::Sha256(digest)), Some(_)) => {
                Some(Remedy::Content(Needed { target: Target::Blob(digest), checksum, bytes, hub }))
            }
            (Some(checksum), None) if self.own && payload.replaceable != Err(ANOTHER_USERS) => {
                let target = Target::Foreign {
                    root: self.source.root().to_owned(),
                    path: payload.path.to_path_buf(),
                    present: Some((&payload.entry.stamp).into()),
                };
                Some(Remedy::Content(Needed { target, checksum, bytes, hub }))
            }
            _ => None,
        }
    }

    /// A place that leads to no content.
    fn fault(&self, model: &ForeignModel, subject: &Subject, file: &ForeignFile, fault: &Fault) -> Problem {
        let (kind, actual) = match fault {
            Fault::Missing => (Kind::Missing, None),
            Fault::Dangling(target) => match fs::symlink_metadata(target) {
                Ok(found) if target.is_absolute() => (Kind::NotAFile, Some(kind_of(&found).to_owned())),
                _ => (Kind::DanglingLink, Some(target.display().to_string())),
            },
            Fault::Escaping(target) => (Kind::EscapingLink, Some(target.display().to_string())),
            Fault::NotAFile => {
                let found = fs::symlink_metadata(&file.place).ok();
                (Kind::NotAFile, found.map(|found| kind_of(&found).to_owned()))
            }
            Fault::Unreadable(reason) => (Kind::Unreadable, Some(reason.clone())),
        };
        let missing = match fault {
            Fault::Missing => Some(file.place.to_path_buf()),
            Fault::Dangling(target) if target.is_absolute() => Some(target.clone()),
            _ => None,
        };
        let is_unfinished =
            missing.as_deref().and_then(key).is_some_and(|key| self.unfinished.contains(&key));
        Problem {
            path: file.path.to_string(),
            place: file.place.to_path_buf(),
            kind: if is_unfinished { Kind::Unfinished } else { kind },
            expected: file.expected.checksum.as_ref().map(shown),
            actual,
            remedy: missing
                .and_then(|path| self.bring_back(path, file.expected, hub(model, &file.path)))
                .unwrap_or_else(|| Remedy::Advice(subject.advice.clone())),
        }
    }

    /// How content could be brought back to a place that is named by its checksum.
    fn bring_back(&self, path: PathBuf, expected: Expected, hub: Option<HubFile>) -> Option<Remedy> {
        let named = named(&path)?;
        let is_inside = path.starts_with(self.source.root());
        if !self.own || !is_inside || fs::symlink_metadata(&path).is_ok() {
            return None;
        }
        if expected.checksum.is_some_and(|checksum| !agree(&checksum, &named)) {
            return None;
        }
        let target = Target::Foreign { root: self.source.root().to_owned(), path, present: None };
        Some(Remedy::Content(Needed { target, checksum: named, bytes: expected.bytes, hub }))
    }

    /// Files that the listing of a commit has and that are not there: nobody's fault, unless their
    /// download was begun.
    fn absent(&self, model: &ForeignModel, subject: &mut Subject) {
        let repository = model.root.ancestors().nth(2).unwrap_or(&model.root);
        for (path, expected) in &model.absent {
            // Blobs are named by their checksums.
            let begun = expected.checksum.as_ref().is_some_and(|checksum| {
                self.unfinished.contains(&(repository.join("blobs"), checksum.to_string()))
            });
            if !begun {
                subject.absent += 1;
                continue;
            }
            subject.problems.push(Problem {
                path: path.to_string(),
                place: model.root.join(path),
                kind: Kind::Unfinished,
                expected: expected.checksum.as_ref().map(shown),
                actual: None,
                remedy: Remedy::Advice(subject.advice.clone()),
            });
        }
    }

    /// Files that were there when the model was adopted.
    fn gone(model: &ForeignModel, known: &[Known<'_>], subject: &mut Subject) {
        let there: HashSet<&Path> = model.files.iter().map(|file| &*file.place).collect();
        for (_, files) in known {
            for (place, file) in files.iter().filter(|(place, _)| !there.contains(place.as_path())) {
                if fs::metadata(place).is_ok_and(|found| found.is_file()) {
                    continue;
                }
                subject.problems.push(Problem {
                    path: file.path.to_string(),
                    place: place.clone(),
                    kind: Kind::Missing,
                    expected: Some(format!("sha256:{}", file.digest)),
                    actual: None,
                    remedy: Remedy::Advice(subject.advice.clone()),
                });
            }
        }
    }

    /// The blobs of models that lead to no content: each is told with its model.
    fn places_told(&self) -> HashSet<PathBuf> {
        let mut told = HashSet::new();
        for model in &self.scan.models {
            let blobs = model.root.ancestors().nth(2).map(|repository| repository.join("blobs"));
            for file in model.files.iter().filter(|file| file.content.is_err()) {
                told.insert(file.place.to_path_buf());
                let held = fs::read_link(&file.place).ok();
                let name = held.as_deref().and_then(Path::file_name);
                told.extend(blobs.as_deref().zip(name).map(|(blobs, name)| blobs.join(name)));
            }
        }
        told
    }

    /// What is wrong with a name that was passed over, if anything: it belongs to no model, but it stands
    /// where content or a record should.
    fn fault_of_name(&self, path: &Path, unreadable: bool) -> Option<(Kind, Option<String>)> {
        if unreadable {
            return Some((Kind::Unreadable, None));
        }
        let found = fs::symlink_metadata(path).ok()?;
        let folder = path.parent()?;
        if found.is_symlink() && folder.ends_with("blobs") {
            let held = fs::read_link(path).ok()?.display().to_string();
            let real = fs::canonicalize(self.source.root()).ok()?;
            return match fs::canonicalize(path) {
                Ok(target) if target.starts_with(real) => None,
                Ok(_) => Some((Kind::EscapingLink, Some(held))),
                Err(_) => Some((Kind::DanglingLink, Some(held))),
            };
        }
        let manifests = self.source.root().join("manifests");
        let is_manifest = self.source.name() == "ollama"
            && found.is_file()
            && path.strip_prefix(manifests).is_ok_and(|below| below.components().count() == 4)
            && !path.file_name()?.as_encoded_bytes().starts_with(b".");
        is_manifest.then_some((Kind::BrokenRecord, None))
    }

    fn advice(&self, model: &ForeignModel) -> String {
        if !self.own {
            return format!(
                "{} belongs to another user: ask them to fetch it again",
                self.source.root().display()
            );
        }
        let name = &model.name;
        match self.source.name() {
            "hf" => {
                let revision =
                    model.revision.as_ref().map(|it| format!(" --revision {it}")).unwrap_or_default();
                format!("fetch it again with: hf download {name}{revision} --force-download")
            }
            "ollama" => format!("fetch it again with: ollama pull {}", own_name(name)),
            "lmstudio" => format!("fetch it again in LM Studio: {}", own_name(name)),
            _ => "copy it again from where it came from".to_owned(),
        }
    }
}

/// Why a payload of a shared folder is left alone; as the scans say it.
const ANOTHER_USERS: &str = "it belongs to another user";

/// A model's name as its own tool writes it.
fn own_name(name: &ModelName) -> String {
    let text = name.to_string();
    match name.host() {
        Host::Ollama | Host::LmStudio => text.split_once(':').map_or(text.clone(), |(_, own)| own.to_owned()),
        _ => text,
    }
}

/// The file on the hub that a file of a Hugging Face cache is.
fn hub(model: &ForeignModel, path: &SnapshotPath) -> Option<HubFile> {
    HubFile::new(&model.name, model.revision.as_ref()?, path)
}

/// Whether two checksums do not contradict each other.
fn agree(one: &Checksum, other: &Checksum) -> bool {
    std::mem::discriminant(one) != std::mem::discriminant(other) || one == other
}

/// The checksum that a blob's name is.
fn named(path: &Path) -> Option<Checksum> {
    let name = path.file_name()?.to_str()?;
    path.parent()?
        .ends_with("blobs")
        .then(|| Checksum::of_name(name.strip_prefix("sha256-").unwrap_or(name)))?
}

/// The folder of a blob and the checksum in its name.
fn key(path: &Path) -> Option<(PathBuf, String)> {
    let name = path.file_name()?.to_str()?;
    Some((path.parent()?.to_owned(), name.strip_prefix("sha256-").unwrap_or(name).to_owned()))
}

/// The folder and the checksum of a download that did not come to its end: `<etag>.<8 hex>.incomplete` and
/// `<etag>.incomplete`, `sha256-<hex>-partial` and `sha256-<hex>-partial-<n>`.
fn unfinished(path: &Path) -> Option<(PathBuf, String)> {
    let name = path.file_name()?.to_str()?;
    let checksum = match name.strip_prefix("sha256-") {
        Some(rest) => rest.split_once("-partial")?.0,
        None => name.strip_suffix(".incomplete")?.split('.').next()?,
    };
    Some((path.parent()?.to_owned(), checksum.to_owned()))
}
