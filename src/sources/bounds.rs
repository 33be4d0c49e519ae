//! Where links in a foreign cache may lead.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::scan::Fault;
use crate::fs::Entry;

/// A cache's folder and our store: links that lead elsewhere are not followed.
#[derive(Debug)]
pub(super) struct Bounds {
    /// As it was named.
    root: PathBuf,
    /// The same without links.
    real_root: PathBuf,
    store: PathBuf,
    real_store: PathBuf,
}

/// Where a link leads.
pub(super) enum Destination {
    /// To this file of the cache, which has this path below the root as it was named.
    Inside(PathBuf),
    /// Into the store.
    Store(Arc<Path>, Entry),
}

impl Bounds {
    pub fn new(root: &Path, store: &Path) -> Self {
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        Self {
            real_root: real(root),
            real_store: real(store),
            root: root.to_owned(),
            store: store.to_owned(),
        }
    }

    pub fn real_root(&self) -> &Path {
        &self.real_root
    }

    /// Whether the cache's folder is in the store.
    pub fn is_store(&self) -> bool {
        self.real_root.starts_with(&self.real_store)
    }

    /// Follows the link that holds `text` to the regular file at its end.
    pub fn follow(&self, link: &Path, text: &Path) -> Result<Destination, Fault> {
        if let Some(found) = self.own_link(text) {
            return Ok(found);
        }
        let fault = |error: &io::Error| match error.kind() {
            io::ErrorKind::NotFound => Fault::Dangling(text.to_owned()),
            _ if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
                Fault::Unreadable("the link goes round in a circle".to_owned())
            }
            _ => Fault::Unreadable(error.to_string()),
        };
        let real = link.canonicalize().map_err(|error| fault(&error))?;
        let metadata = fs::symlink_metadata(&real).map_err(|error| fault(&error))?;
        if real.starts_with(&self.real_store) && metadata.is_file() {
            return Ok(Destination::Store(real.into(), Entry::of(&metadata)));
        }
        match real.strip_prefix(&self.real_root) {
            Err(_) => Err(Fault::Escaping(text.to_owned())),
            Ok(_) if !metadata.is_file() => Err(Fault::NotAFile),
            Ok(below) => Ok(Destination::Inside(self.root.join(below))),
        }
    }

    /// A link that dedupe made holds the plain path of a name in the store's `links/`: one look instead
    /// of one at each folder on the way.
    fn own_link(&self, text: &Path) -> Option<Destination> {
        let below = text.strip_prefix(&self.store).or_else(|_| text.strip_prefix(&self.real_store)).ok()?;
        let is_plain = below.components().all(|part| matches!(part, Component::Normal(_)));
        if !is_plain || !below.starts_with("links") {
            return None;
        }
        let metadata = fs::symlink_metadata(text).ok().filter(fs::Metadata::is_file)?;
        Some(Destination::Store(text.into(), Entry::of(&metadata)))
    }
}
