//! A new registry from what lies in the store.

use std::fs;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use super::Store;
use crate::error::{Code, Error, Result};
use crate::fs::relative_target;
use crate::ids::{Host, ModelName, Revision, SnapshotPath, leader};
use crate::registry::{self, Facts, FileRecord, NewSnapshot, Origin, Registry, Salvaged};

/// What a rebuild did.
#[derive(Debug)]
pub struct Rebuilt {
    /// Where the old registry is kept; nothing if there was none.
    pub kept: Option<PathBuf>,
    /// Snapshots found in the store.
    pub stored: usize,
    /// Adopted snapshots that the old registry still told of.
    pub adopted: usize,
    /// Whether the old registry told of all adopted ones; if not, they have to be added again.
    pub adopted_complete: bool,
    /// Folders under models/ that are no whole snapshot, and why. They stay where they are.
    pub skipped: Vec<(PathBuf, String)>,
}

impl Store {
    /// Makes a new registry from models/ and blobs/ and from what the old one still tells of adopted
    /// models. `facts` looks at a model's headers. Content is taken by its name, not hashed.
    pub fn rebuild(&self, facts: &dyn Fn(&Path) -> Facts) -> Result<Rebuilt> {
        let _lock = self.lock()?;
        let Salvaged { adopted, links, complete } = Salvaged::read(&self.home);
        let mut snapshots = Vec::new();
        let mut skipped = Vec::new();
        for folder in self.snapshot_folders() {
            match self.read_snapshot(&folder, facts) {
                Ok(snapshot) => snapshots.push(snapshot),
                Err(error) => skipped.push((folder, error.message().to_owned())),
            }
        }
        let (stored, adopted_count) = (snapshots.len(), adopted.len());
        snapshots.extend(adopted);
        let kept = registry::replace(&self.home, &snapshots, &links)?;
        Ok(Rebuilt { kept, stored, adopted: adopted_count, adopted_complete: complete, skipped })
    }

    /// Registers the folders of links that are whole although the registry does not know them; how many.
    pub fn register_found(&self, registry: &mut Registry, facts: &dyn Fn(&Path) -> Facts) -> Result<usize> {
        let _lock = self.lock()?;
        let mut found = 0;
        for unregistered in self.unregistered(registry)? {
            if unregistered.files.is_ok() {
                registry.register(&self.read_snapshot(&unregistered.folder, facts)?, &[])?;
                found += 1;
            }
        }
        Ok(found)
    }

    /// `models/<host>/<org>/<name>/<revision>`, whatever is in them; unfinished ones are hidden.
    pub(super) fn snapshot_folders(&self) -> Vec<PathBuf> {
        WalkDir::new(self.models())
            .min_depth(4)
            .max_depth(4)
            .sort_by_file_name()
            .into_iter()
            .filter_entry(|entry| {
                !entry.file_name().as_encoded_bytes().starts_with(b".") || entry.depth() == 0
            })
            .filter_map(|entry| entry.ok().filter(|entry| entry.file_type().is_dir()))
            .map(walkdir::DirEntry::into_path)
            .collect()
    }

    fn read_snapshot(&self, folder: &Path, facts: &dyn Fn(&Path) -> Facts) -> Result<NewSnapshot> {
        let (name, revision) = self.name_of(folder)?;
        let files = self.read_links(folder)?;
        let first = leader(&files, |file| file.path.as_str());
        let entry = first.filter(|first| first.path.has_extension("gguf")).map(|first| first.path.clone());
        let path = entry.as_ref().map_or_else(|| folder.to_owned(), |entry| folder.join(entry));
        let facts = facts(&path);
        // A commit of a repository is what the hub has, whoever brought it.
        let origin = if name.host() == Host::HuggingFace && revision.is_commit() {
            Origin::Hub
        } else {
            Origin::Copied
        };
        Ok(NewSnapshot { name, revision, origin, root: folder.to_owned(), entry, facts, files })
    }

    /// The files of a snapshot's folder: links to content that is there, at least one.
    pub(super) fn read_links(&self, folder: &Path) -> Result<Vec<FileRecord>> {
        let mut files = Vec::new();
        for entry in WalkDir::new(folder).sort_by_file_name() {
            let entry = entry.map_err(|error| Error::io("read", folder, error.into()))?;
            if !entry.file_type().is_dir() {
                files.push(self.read_link(folder, entry.path())?);
            }
        }
        if files.is_empty() {
            return Err(damaged(folder, "is empty"));
        }
        Ok(files)
    }

    pub(super) fn name_of(&self, folder: &Path) -> Result<(ModelName, Revision)> {
        let wrong = || damaged(folder, "is not named as a snapshot");
        let below = folder.strip_prefix(self.models()).ok().and_then(Path::to_str).ok_or_else(wrong)?;
        let [host, org, name, revision] = below.split('/').collect::<Vec<_>>()[..] else {
            return Err(wrong());
        };
        let host = Host::from_folder(host).ok_or_else(wrong)?;
        Ok((ModelName::new(host, org, name)?, revision.parse()?))
    }

    /// A file of a snapshot: a link to a blob that is there, written as we write it.
    fn read_link(&self, folder: &Path, link: &Path) -> Result<FileRecord> {
        let wrong = |why| damaged(link, why);
        let below = link.strip_prefix(folder).ok().and_then(Path::to_str);
        let path: SnapshotPath = below.ok_or_else(|| wrong("is not named in UTF-8"))?.parse()?;
        let target = fs::read_link(link).map_err(|_| wrong("is not a link to content"))?;
        let digest = target
            .file_name()
            .and_then(|name| name.to_str()?.parse().ok())
            .filter(|digest| {
                link.parent().is_some_and(|from| relative_target(from, &self.blob(digest)) == target)
            })
            .ok_or_else(|| wrong("leads to something that is not content of this store"))?;
        let blob = fs::symlink_metadata(self.blob(&digest)).ok().filter(fs::Metadata::is_file);
        let bytes = blob.ok_or_else(|| wrong("leads to content that is gone"))?.len();
        Ok(FileRecord { path, digest, bytes, stamp: None })
    }
}

fn damaged(path: &Path, why: &str) -> Error {
    Error::new(Code::IntegrityFailed, format!("{} {why}", path.display()))
}
