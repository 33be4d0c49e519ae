//! What is to be made in another tool's folder.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::{Code, Error, Result};
use crate::fs::own_user;
use crate::ids::Digest;

/// Names to be made, in this order: one that others need comes before them.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// The word for the kind of cache.
    pub source: &'static str,
    /// The tool's folder; absolute, without links.
    pub root: PathBuf,
    /// The name by which the tool will know the model.
    pub name: String,
    pub steps: Vec<Step>,
    /// What the user should know.
    pub notes: Vec<String>,
}

/// One name.
#[derive(Debug, Clone)]
pub(super) struct Step {
    /// Absolute, below the root.
    pub path: PathBuf,
    pub what: What,
}

/// What a name stands for.
#[derive(Debug, Clone)]
pub(super) enum What {
    /// Content of the store.
    Content { digest: Digest, bytes: u64 },
    /// A symlink that holds this.
    Inner(PathBuf),
    /// A small file with this content.
    Record(Vec<u8>),
}

impl Plan {
    /// A plan without steps for the folder of a tool, which belongs to the user. A folder that does not
    /// exist is made with the rest.
    pub fn new(source: &'static str, folder: &Path, name: String) -> Result<Self> {
        let there = folder.ancestors().find(|above| above.exists()).unwrap_or(folder);
        let real = there.canonicalize().map_err(|error| Error::io("find", there, error))?;
        let root = match folder.strip_prefix(there) {
            Ok(rest) if rest.as_os_str().is_empty() => real.clone(),
            Ok(rest) => real.join(rest),
            Err(_) => real.clone(),
        };
        let metadata = fs::metadata(&real).map_err(|error| Error::io("read", &real, error))?;
        if !metadata.is_dir() {
            let message = format!("{} is no folder", real.display());
            return Err(Error::new(Code::InvalidRequest, message).detail("path", real.display().to_string()));
        }
        if metadata.uid() != own_user() {
            let message = format!("{} belongs to another user", real.display());
            return Err(Error::new(Code::BoundaryViolation, message)
                .detail("path", real.display().to_string())
                .hint("the caches of other users are never changed"));
        }
        Ok(Self { source, root, name, steps: Vec::new(), notes: Vec::new() })
    }

    /// Adds a name below the root.
    pub fn add(&mut self, below: impl AsRef<Path>, what: What) {
        let path = self.root.join(below);
        // Files of the same content are one blob.
        if !self.steps.iter().any(|step| step.path == path) {
            self.steps.push(Step { path, what });
        }
    }
}
