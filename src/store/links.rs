//! Names that other tools' symlinks point at.
//!
//! Each is a hard link to content, in a folder of its own: a tool that deletes through its symlink takes
//! away this one name, and neither the content nor what other tools see of it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::used::Writers;
use super::{Store, StoreLock};
use crate::error::{Error, Result};
use crate::fs::{FileLock, create_private_dir, sync_dir};
use crate::ids::Digest;
use crate::registry::Registry;

impl Store {
    pub fn links(&self) -> PathBuf {
        self.home.join("links")
    }

    /// Where files wait that change places with other tools' files.
    pub fn staging(&self) -> PathBuf {
        self.links().join("staged")
    }

    /// The name that one symlink of a kind of cache points at; `id` is the link's row.
    pub fn link_name(&self, source: &str, id: i64, digest: &Digest) -> PathBuf {
        self.links().join(source).join(id.to_string()).join(digest.to_string())
    }

    /// Makes the name that a symlink is to point at. The caller holds the store's lock, and the content
    /// is there.
    pub fn make_link_name(&self, _lock: &StoreLock, name: &Path, digest: &Digest) -> Result<()> {
        let folder = name.parent().unwrap_or(&self.home);
        create_private_dir(folder)?;
        match fs::hard_link(self.blob(digest), name) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(Error::io("link", name, error));
            }
            _ => {}
        }
        sync_dir(folder)
    }

    /// Takes such a name away, and its folder. The caller holds the store's lock.
    pub fn free_link_name(&self, _lock: &StoreLock, name: &Path) -> Result<()> {
        match fs::remove_file(name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io("remove", name, error));
            }
            _ => {}
        }
        // The folder is not empty if somebody put something there; then it stays.
        let _ = name.parent().map(fs::remove_dir);
        Ok(())
    }

    /// The right to give a blob its name; taken before the store's lock.
    pub fn lock_blob(&self, digest: &Digest) -> Result<FileLock> {
        FileLock::acquire(&self.locks().join(format!("{digest}.lock")), super::PATIENCE)
    }

    /// Makes a staged file the content of this digest; whether there was none before. It has been hashed
    /// and is on disk.
    pub fn adopt_staged(&self, _lock: &FileLock, staged: &Path, digest: &Digest, bytes: u64) -> Result<bool> {
        let path = self.blob(digest);
        if self.has_blob(digest, bytes) {
            fs::remove_file(staged).map_err(|error| Error::io("remove", staged, error))?;
            return Ok(false);
        }
        let folder = path.parent().unwrap_or(&self.home);
        create_private_dir(folder)?;
        fs::rename(staged, &path).map_err(|error| Error::io("write", &path, error))?;
        sync_dir(folder)?;
        Ok(true)
    }

    /// Removes content that no stored snapshot and no link uses; whether it did. As long as others bring
    /// content in, which they may count on, it stays for the next collection.
    pub fn remove_unused_blob(
        &self,
        _lock: &StoreLock,
        registry: &mut Registry,
        digest: &Digest,
    ) -> Result<bool> {
        let Writers::None(_guard) = self.hold_writers()? else { return Ok(false) };
        if registry.unused(&[*digest])?.is_empty() {
            return Ok(false);
        }
        registry.forget_blob(digest)?;
        self.remove_blob(digest)
    }
}
