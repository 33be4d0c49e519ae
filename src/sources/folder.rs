//! Any folder that the user names.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::bounds::Bounds;
use super::plain::{self, Found};
use super::scan::Scan;
use super::walk::{Answer, Walked, What, walk};
use super::{ANOTHER_USERS, HuggingFace, Ollama, Source};
use crate::cancel::Cancel;
use crate::error::{Code, Error, Result};
use crate::ids::ModelName;

const IN_HUB: &str = "a file of a Hugging Face cache: name the cache's own folder";

/// A folder with models in it and below it.
#[derive(Debug, Clone)]
pub struct Folder {
    root: PathBuf,
    store: PathBuf,
}

/// The source in a folder that the user names: of the kind it looks like, since a Hugging Face cache or
/// Ollama's models have rules wherever they lie.
pub fn folder(root: &Path, store: &Path) -> Box<dyn Source> {
    let is_folder = |name: &str| root.join(name).symlink_metadata().is_ok_and(|found| found.is_dir());
    if is_folder("blobs") && is_folder("manifests") {
        return Box::new(Ollama::at(root, store));
    }
    let mut names = root.read_dir().into_iter().flatten().flatten().map(|entry| entry.file_name());
    if names.any(|name| is_repository(&name)) {
        return Box::new(HuggingFace::at(root, store));
    }
    Box::new(Folder { root: root.to_owned(), store: store.to_owned() })
}

impl Folder {
    fn bounds(&self) -> Result<Bounds> {
        let bounds = Bounds::new(&self.root, &self.store);
        if bounds.is_store() {
            let message = format!("{} is in the store of mlx-cache itself", self.root.display());
            return Err(Error::new(Code::InvalidRequest, message)
                .detail("path", self.root.display().to_string())
                .hint("name a folder outside the store"));
        }
        Ok(bounds)
    }

    fn walk(&self, bounds: &Bounds, cancel: &Cancel) -> Result<Walked<Found>> {
        let is_in_hub = bounds.real_root().iter().any(is_repository);
        let refused = match (self.is_own(), is_in_hub) {
            (false, _) => Some(ANOTHER_USERS),
            (_, true) => Some(IN_HUB),
            _ => None,
        };
        walk(&self.root, &self.store, (), cancel, |(), seen| match &seen.what {
            What::Folder if is_repository(seen.name) => Answer::pass("a repository of a Hugging Face cache"),
            What::Folder if seen.name.as_encoded_bytes().starts_with(b".") => Answer::pass("a hidden folder"),
            What::Folder => Answer::Enter(()),
            _ => plain::judge(seen, bounds, refused),
        })
    }
}

impl Source for Folder {
    fn name(&self) -> &'static str {
        "folder"
    }

    fn root(&self) -> &Path {
        &self.root
    }

    fn scan(&self, cancel: &Cancel) -> Result<Scan> {
        let bounds = self.bounds()?;
        let walked = self.walk(&bounds, cancel)?;
        Ok(plain::assemble(&self.root, walked, |folder| name_of(folder, bounds.real_root())))
    }

    fn files(&self, cancel: &Cancel) -> Result<Scan> {
        self.walk(&self.bounds()?, cancel).map(plain::files)
    }

    fn find(&self, name: &ModelName, cancel: &Cancel) -> Result<Scan> {
        // Names do not tell folders here.
        let mut scan = self.scan(cancel)?;
        scan.models.retain(|model| model.name.is_same(name));
        Ok(scan)
    }
}

/// Whether a folder's name is that of a repository in a Hugging Face cache.
fn is_repository(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    [b"models--" as &[u8], b"datasets--", b"spaces--"].iter().any(|kind| name.starts_with(kind))
}

/// The folder's own name, in letters that a name may have.
fn name_of(folder: &Path, real_root: &Path) -> Option<ModelName> {
    let name = folder.file_name().or_else(|| real_root.file_name())?.to_string_lossy();
    ModelName::of_local(&name)
}
