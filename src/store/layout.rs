//! Where things lie.

use std::path::{Path, PathBuf};

use super::Store;
use crate::ids::{Digest, ModelName, Revision};

impl Store {
    /// The store's folder.
    pub fn home(&self) -> &Path {
        &self.home
    }

    pub fn blobs(&self) -> PathBuf {
        self.home.join("blobs/sha256")
    }

    pub fn models(&self) -> PathBuf {
        self.home.join("models")
    }

    pub fn incomplete(&self) -> PathBuf {
        self.home.join("incomplete")
    }

    pub fn locks(&self) -> PathBuf {
        self.home.join("locks")
    }

    /// A blob's place: two digits fan out, since folders with many thousand entries are slow to list.
    pub fn blob(&self, digest: &Digest) -> PathBuf {
        let name = digest.to_string();
        self.blobs().join(name.get(..2).unwrap_or_default()).join(name)
    }

    /// The folder of links that shows one revision of a model.
    pub fn snapshot(&self, name: &ModelName, revision: &Revision) -> PathBuf {
        self.models().join(name.host().as_str()).join(name.org()).join(name.name()).join(revision.as_str())
    }
}
