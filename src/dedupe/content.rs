//! Files that are about to be acted on: held open, watched, and compared byte by byte.

use std::fs::File as OpenFile;
use std::path::Path;

use super::swap::{Stop, identity, is_same_file};
use super::{File, Watch};
use crate::error::Error;
use crate::fs::{Entry, FileStamp, Place, Unwritten, entry_of_file, hash_open};
use crate::ids::Digest;

/// A file whose content was just read and found to be what it should be.
#[derive(Debug)]
pub(super) struct Verified {
    pub place: Place,
    pub file: OpenFile,
    /// What it was after it was read.
    pub entry: Entry,
    unwritten: Unwritten,
}

impl Verified {
    /// Opens a file of the plan and reads all of it.
    pub(super) fn open(file: &File, digest: &Digest, watch: &dyn Watch) -> Result<Self, Stop> {
        let place = Place::find(&file.root, &file.path)?;
        let planned = &file.entry.stamp;
        let present = place.entry()?.ok_or_else(|| Stop::skip("it was deleted meanwhile"))?;
        if !is_same_file(&present, planned) {
            return Err(Stop::skip("it changed since the plan was made"));
        }
        if !present.is_own() {
            return Err(Stop::skip("it belongs to another user"));
        }
        let handle = place.dir.open_file(&place.name)?;
        Self::read(place, handle, &file.path, planned, digest, watch)
    }

    fn read(
        place: Place,
        file: OpenFile,
        path: &Path,
        planned: &FileStamp,
        digest: &Digest,
        watch: &dyn Watch,
    ) -> Result<Self, Stop> {
        let fail = |error| Stop::from(Error::io("read", path, error));
        let Some(unwritten) = Unwritten::watch(&file, path).map_err(fail)? else {
            return Err(Stop::skip("it is open in another program that may write to it"));
        };
        let hashed = hash_open(&file, path, &|bytes| {
            watch.read(bytes);
            watch.check()
        })?;
        let entry = entry_of_file(&file).map_err(fail)?;
        if !is_same_file(&entry, planned) {
            return Err(Stop::skip("it changed while it was read"));
        }
        if hashed.digest != *digest {
            return Err(Stop::skip("it does not hold what it should: its content has another SHA-256"));
        }
        Ok(Self { place, file, entry, unwritten })
    }

    /// Looks again whether the name still means this file and nothing about it has changed.
    pub(super) fn check(&self) -> Result<(), Stop> {
        let now = self.place.entry()?.ok_or_else(|| Stop::skip("it was deleted meanwhile"))?;
        if now != self.entry {
            return Err(Stop::skip("it changed meanwhile"));
        }
        if !self.is_unwritten() {
            return Err(Stop::skip("it is being opened by another program that may write to it"));
        }
        Ok(())
    }

    pub(super) fn is_unwritten(&self) -> bool {
        self.unwritten.is_unbroken()
    }

    /// Takes note that this program itself has changed the number of its names or its mode.
    pub(super) fn look_again(&mut self) -> Result<(), Stop> {
        let now = entry_of_file(&self.file)
            .map_err(|error| Stop::from(Error::io("read", &self.place.path(), error)))?;
        if is_same_file(&now, &self.entry.stamp) {
            self.entry = now;
        }
        Ok(())
    }

    pub(super) fn identity(&self) -> (u64, u64) {
        identity(&self.entry)
    }
}
