//! Making a snapshot known.

use super::{Store, StoreLock};
use crate::error::{Code, Error, Result};
use crate::registry::{NewSnapshot, Registry};

impl Store {
    /// Registers a snapshot in place of those in `replaces`. For one whose content is in the store, makes
    /// its folder of links first and sets its root to it.
    ///
    /// LOCKED if another process has removed content meanwhile.
    pub fn register(
        &self,
        lock: &StoreLock,
        registry: &mut Registry,
        new: &mut NewSnapshot,
        replaces: &[i64],
    ) -> Result<()> {
        self.place(lock, registry, new)?;
        registry.register(new, replaces)
    }

    /// Makes a snapshot's content visible under its name and sets its root, without registering it.
    pub fn place(&self, _lock: &StoreLock, registry: &Registry, new: &mut NewSnapshot) -> Result<()> {
        // One model has one folder, however its name was written this time.
        if let Some(known) = registry.known_name(&new.name)? {
            new.name = known;
        }
        if new.origin.is_stored() {
            if let Some(gone) = new.files.iter().find(|file| !self.has_blob(&file.digest, file.bytes)) {
                let message = format!("the content of {} was removed by another process", gone.path);
                return Err(Error::new(Code::Locked, message)
                    .detail("path", gone.path.to_string())
                    .hint("try again"));
            }
            new.root = self.place_links(&new.name, &new.revision, &new.files)?;
        }
        Ok(())
    }
}
