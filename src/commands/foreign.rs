//! Models in the caches of other tools, whether they were added here or not.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::status::present_sources;
use crate::context::Context;
use crate::engine::format::layout::Layout;
use crate::error::{Code, Error, Result};
use crate::ids::{
    Digest, FileChoice, Host, ModelName, ModelRef, Revision, RevisionSpec, SnapshotPath, leader,
};
use crate::registry::Origin;
use crate::sources::{Checksum, ForeignModel, HuggingFace, Instructions, Ollama, Scan, Source};

/// A model of another tool.
#[derive(Debug, Clone)]
pub struct Foreign {
    pub name: ModelName,
    /// The commit, where the cache knows it.
    pub revision: Option<Revision>,
    pub origin: Origin,
    /// The folder that the paths of its files start from, for Ollama that of all blobs.
    pub root: PathBuf,
    /// What a program loads: the folder, or the one file.
    pub path: PathBuf,
    /// The paths of its files in the model, and where they lie.
    pub files: Vec<(SnapshotPath, PathBuf)>,
    /// Of its content, what several files share counted once.
    pub bytes: u64,
    /// Digest and size of its largest file, if the cache's records claim one.
    pub largest: Option<(Digest, u64)>,
    /// What is missing from it, if anything.
    pub fault: Option<String>,
}

/// The origin of models of this kind of cache.
pub fn origin_of(source: &dyn Source) -> Origin {
    match source.name() {
        "hf" => Origin::HuggingFaceCache,
        "ollama" => Origin::Ollama,
        "lmstudio" => Origin::LmStudio,
        _ => Origin::Folder,
    }
}

/// All models of the caches with one of these origins.
pub fn all(wanted: impl Fn(Origin) -> bool, context: &Context) -> Result<Vec<Foreign>> {
    let mut found = Vec::new();
    for source in present_sources(&context.settings) {
        let origin = origin_of(source.as_ref());
        if wanted(origin) {
            let scan = source.scan(&context.cancel)?;
            found.extend(scan.models.iter().map(|model| Foreign::of(model, &scan, origin)));
        }
    }
    Ok(found)
}

/// The model that a full name means, if another tool has it: quick, since nothing else is looked at.
///
/// Of several commits in the Hugging Face cache it is the one that was asked for, else that of the branch
/// `main`, else the newest; one that is there in part only is none.
pub fn find(reference: &ModelRef, context: &Context) -> Result<Option<Foreign>> {
    let ModelRef::Named { name, revision, file } = reference else { return Ok(None) };
    for source in present_sources(&context.settings) {
        if !can_have(source.as_ref(), name.host()) {
            continue;
        }
        let scan = source.find(name, &context.cancel)?;
        let Some(model) = choose(&scan, name, revision.as_ref(), source.as_ref()) else { continue };
        let mut found = Foreign::of(model, &scan, origin_of(source.as_ref()));
        if found.origin == Origin::HuggingFaceCache && !found.is_whole() {
            continue;
        }
        if let Some(file) = file {
            found.narrow(file, reference)?;
        }
        return Ok(Some(found));
    }
    Ok(None)
}

/// How a model of Ollama is to be asked.
pub fn instructions(name: &ModelName, context: &Context) -> Result<Option<Instructions>> {
    for source in present_sources(&context.settings) {
        if source.name() == "ollama"
            && let Some(found) = Ollama::at(source.root(), &context.settings.home.value).instructions(name)?
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn can_have(source: &dyn Source, host: Host) -> bool {
    matches!(
        (source.name(), host),
        ("hf", Host::HuggingFace) | ("ollama", Host::Ollama) | ("lmstudio", Host::LmStudio)
    )
}

fn choose<'a>(
    scan: &'a Scan,
    name: &ModelName,
    asked: Option<&RevisionSpec>,
    source: &dyn Source,
) -> Option<&'a ForeignModel> {
    if source.name() != "hf" {
        return scan.models.first();
    }
    let cache = HuggingFace::at(source.root(), Path::new(""));
    let main = "main".parse().ok();
    let commit = asked.or(main.as_ref()).and_then(|reference| cache.commit(name, reference));
    let is = |model: &&ForeignModel| commit.is_some() && model.revision == commit;
    scan.models.iter().find(is).or_else(|| match asked {
        Some(asked) => scan
            .models
            .iter()
            .find(|model| model.revision.as_ref().is_some_and(|revision| revision.matches(asked))),
        None => scan
            .models
            .iter()
            .max_by_key(|model| fs::metadata(&model.root).and_then(|found| found.modified()).ok()),
    })
}

impl Foreign {
    fn of(model: &ForeignModel, scan: &Scan, origin: Origin) -> Self {
        let contents: HashSet<&Path> =
            model.files.iter().filter_map(|file| file.content.as_deref().ok()).collect();
        let bytes =
            contents.iter().filter_map(|path| scan.payload(path)).map(|found| found.entry.stamp.bytes).sum();
        let sized = model
            .files
            .iter()
            .filter_map(|file| Some((file, scan.payload(file.content.as_deref().ok()?)?.entry.stamp.bytes)));
        let largest =
            sized.max_by_key(|(_, bytes)| *bytes).and_then(|(file, bytes)| match file.expected.checksum? {
                Checksum::Sha256(digest) => Some((digest, bytes)),
                Checksum::GitSha1(_) => None,
            });
        let missing = model.files.iter().find(|file| file.content.is_err());
        let path = match origin {
            // The blobs of all models share a folder.
            Origin::Ollama => {
                let weights = model.files.iter().find(|file| file.path.as_str() == "model.gguf");
                weights
                    .or(model.files.first())
                    .map_or_else(|| model.root.clone(), |file| file.place.to_path_buf())
            }
            _ => model.root.clone(),
        };
        Self {
            name: model.name.clone(),
            revision: model.revision.clone(),
            origin,
            root: model.root.clone(),
            path,
            files: model.files.iter().map(|file| (file.path.clone(), file.place.to_path_buf())).collect(),
            bytes,
            largest,
            fault: missing.map(|file| format!("{} leads to no content", file.place.display())),
        }
    }

    /// Whether there are weights to load. One that the hub could complete is no model yet.
    fn is_whole(&self) -> bool {
        let missing = Layout::find(&self.path).is_err_and(|error| error.code() == Code::FileNotFound);
        self.fault.is_none() && !missing
    }

    /// Makes one of the files what is loaded.
    fn narrow(&mut self, file: &FileChoice, reference: &ModelRef) -> Result<()> {
        let matching: Vec<_> = self.files.iter().filter(|(path, _)| file.matches(path)).collect();
        match (leader(matching.iter().copied(), |(path, _)| path.as_str()), matching.as_slice()) {
            (Some((_, place)), _) => {
                self.path = place.clone();
                Ok(())
            }
            (None, [(first, _), (second, _), ..]) => Err(Error::new(
                Code::ModelAmbiguous,
                format!("{reference} means more than one file: {first} and {second}"),
            )
            .hint("name the file in full, after the colon")),
            (None, _) => Err(Error::new(Code::FileNotFound, format!("{} has no file {file}", self.name))
                .detail("path", self.path.display().to_string())
                .hint("name one of the files in its folder")),
        }
    }
}
