//! A model that is to be added: its files, its name and what its headers tell.

use std::fs;
use std::path::{Component, Path, PathBuf};

use crate::commands::facts;
use crate::commands::foreign::Foreign;
use crate::context::Context;
use crate::engine::probe::probe;
use crate::error::{Code, Error, Result};
use crate::fs::plain_path;
use crate::ids::{Host, ModelName, Part, Revision, SnapshotPath, leader};
use crate::registry::{Facts, Origin};
use crate::store::Incoming;

/// A model to be added.
pub(super) struct Candidate {
    pub name: ModelName,
    /// The commit, where the folder's name tells it.
    pub revision: Option<Revision>,
    pub origin: Origin,
    pub root: PathBuf,
    /// The file that is loaded, if it is no folder: the first one of a model in parts.
    pub entry: Option<SnapshotPath>,
    pub facts: Facts,
    pub files: Vec<Incoming>,
}

impl Candidate {
    /// The model in a folder or .gguf file.
    pub fn new(path: &Path, name: Option<&str>, context: &Context) -> Result<Self> {
        let path = plain_path(path).map_err(|error| Error::io("resolve", path, error))?;
        let probed = probe(&path)?;
        let root = if path.is_dir() { path.clone() } else { path.parent().unwrap_or(&path).to_owned() };
        if path.is_dir() {
            tell_of_dangling_links(&root, context);
        }
        let files = probed
            .files
            .iter()
            .map(|file| {
                let source = root.join(file);
                let metadata = fs::metadata(&source).map_err(|error| Error::io("read", &source, error))?;
                Ok(Incoming { path: snapshot_path(file)?, bytes: metadata.len(), source })
            })
            .collect::<Result<Vec<_>>>()?;
        let first = leader(&files, |file| file.path.as_str());
        let entry = first.filter(|first| !path.is_dir() || first.path.has_extension("gguf"));
        let entry = entry.map(|first| first.path.clone());
        let (derived, revision, origin) = describe(&path, context);
        let name = match (name, derived) {
            (Some(name), _) => named(name)?,
            (None, Some(derived)) => derived,
            (None, None) => {
                let message = format!("{} gives no usable name", path.display());
                return Err(
                    Error::new(Code::InvalidRequest, message).hint("name the model with --name org/name")
                );
            }
        };
        Ok(Self { name, revision, origin, root, entry, facts: facts::of(&probed), files })
    }

    /// A model of another tool, to be adopted where it lies, or to be copied.
    pub fn of_foreign(found: &Foreign, name: Option<&str>, copy: bool) -> Result<Self> {
        if let Some(fault) = &found.fault {
            return Err(Error::new(Code::FileNotFound, fault.clone())
                .detail("path", found.path.display().to_string())
                .hint("fetch the model again with its tool"));
        }
        let (entry, facts, files) = match (found.origin, probe(&found.path)) {
            // Its files have no names of their own, and lie among those of other models.
            (Origin::Ollama, probed) => {
                let files = layers(found, copy)?;
                let entry = files.iter().find(|file| file.source == found.path).map(|file| file.path.clone());
                (entry, facts::of(&probed?), files)
            }
            // Which of several GGUF files is meant is told when the model runs.
            (_, Err(error)) if error.code() == Code::ModelAmbiguous => {
                let facts = variants(found).map_err(|_| error)?;
                (None, facts, incoming(&found.files)?)
            }
            (_, probed) => {
                let probed = probed?;
                let is_file = found.path.is_file();
                let root = &found.root;
                let paths = probed.files.iter().map(|file| {
                    let folder = if is_file { found.path.parent().unwrap_or(root) } else { root.as_path() };
                    let place = folder.join(file);
                    Ok((snapshot_path(place.strip_prefix(root).unwrap_or(file))?, place))
                });
                let files = incoming(&paths.collect::<Result<Vec<_>>>()?)?;
                let first = leader(&files, |file| file.path.as_str());
                let entry = first.filter(|first| first.path.has_extension("gguf"));
                let entry = entry.map(|first| first.path.clone());
                (entry, facts::of(&probed), files)
            }
        };
        let (name, revision) = match name {
            Some(name) => (named(name)?, found.revision.clone()),
            None => (found.name.clone(), found.revision.clone()),
        };
        Ok(Self { name, revision, origin: found.origin, root: found.root.clone(), entry, facts, files })
    }

    /// What a program would load.
    pub fn path(&self) -> PathBuf {
        self.entry.as_ref().map_or_else(|| self.root.clone(), |entry| self.root.join(entry))
    }
}

/// Links that lead nowhere are no files of a model, although somebody meant them to be.
fn tell_of_dangling_links(folder: &Path, context: &Context) {
    let mut dangling: Vec<PathBuf> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_symlink() && !path.exists())
        .collect();
    dangling.sort();
    for link in dangling {
        context.output.warn(format!("{} is a link that leads nowhere: it is left out", link.display()));
    }
}

fn named(name: &str) -> Result<ModelName> {
    ModelName::parse_pair(Host::Local, name)
        .map_err(|error| error.context(format!("--name '{}'", name.escape_debug())))
}

fn incoming(files: &[(SnapshotPath, PathBuf)]) -> Result<Vec<Incoming>> {
    let read = |(path, source): &(SnapshotPath, PathBuf)| {
        let metadata = fs::metadata(source).map_err(|error| Error::io("read", source, error))?;
        Ok(Incoming { path: path.clone(), bytes: metadata.len(), source: source.clone() })
    };
    files.iter().map(read).collect()
}

/// The layers of a model of Ollama: as files of their own names, or, where they lie, as blobs.
fn layers(found: &Foreign, copy: bool) -> Result<Vec<Incoming>> {
    let mut files = incoming(&found.files)?;
    if !copy {
        for file in &mut files {
            file.path = snapshot_path(file.source.strip_prefix(&found.root).unwrap_or(&file.source))?;
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        files.dedup_by(|a, b| a.path == b.path);
    }
    Ok(files)
}

/// What several GGUF files of one model have in common.
fn variants(found: &Foreign) -> Result<Facts> {
    let mut ggufs = found.files.iter().filter(|(path, _)| path.has_extension("gguf"));
    let Some((_, first)) = ggufs.next() else {
        return Err(Error::internal("several GGUF files, and none of them"));
    };
    Ok(Facts { quantization: None, ..facts::of(&probe(first)?) })
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
    let file = path.file_name().and_then(|name| name.to_str()).and_then(Part::parse);
    let stem = file.map(|part| part.stem).or_else(|| stem?.to_str());
    (stem.and_then(ModelName::of_local), None, Origin::Folder)
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
