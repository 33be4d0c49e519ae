//! What was cut short is finished or rolled back: the journal says what was going on, the disk how far
//! it came.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::swap::{is_ours, is_same_file, stage_of, swap};
use crate::error::{Code, Error, Result};
use crate::fs::{Entry, EntryKind, FileStamp, Place};
use crate::registry::{Link, LinkState, LinkStrategy, Registry};
use crate::store::{Store, StoreLock};

/// What became of links that were not finished.
#[derive(Debug, Default)]
pub struct Settled {
    pub finished: u64,
    pub rolled_back: u64,
    /// Links that could not be settled now, and why: a disk that is not there, say.
    pub open: Vec<Error>,
}

/// How one link was settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Finished,
    RolledBack,
}

/// Finishes or rolls back what a process that is gone has left unfinished. Every command that changes the
/// store does this first.
pub fn settle(store: &Store, registry: &mut Registry) -> Result<Settled> {
    let mut settled = Settled::default();
    let staging = store.staging();
    let leftover = || fs::read_dir(&staging).is_ok_and(|mut found| found.next().is_some());
    if registry.unfinished_links()?.is_empty() && !leftover() {
        return Ok(settled);
    }
    // Whoever works on a link holds the lock from its beginning to its end: what is unfinished now
    // has nobody.
    let lock = store.lock()?;
    for link in registry.unfinished_links()? {
        match settle_one(store, registry, &lock, &link) {
            Ok(Way::Finished) => settled.finished += 1,
            Ok(Way::RolledBack) => settled.rolled_back += 1,
            Err(error) => settled.open.push(error),
        }
    }
    sweep(store, registry)?;
    Ok(settled)
}

/// Settles one link. The caller holds the store's lock.
pub(super) fn settle_one(
    store: &Store,
    registry: &mut Registry,
    lock: &StoreLock,
    link: &Link,
) -> Result<Way> {
    let work = Work { store, lock, link };
    let place = match Place::find(&link.new.root, &link.new.path) {
        Ok(place) => Some(place),
        // Its folder is gone with everything in it; a root that is gone may come back.
        Err(error) if error.code() == Code::FileNotFound && link.new.root.exists() => None,
        Err(error) => return Err(error),
    };
    let at_place = match &place {
        Some(place) => place.entry()?.map(|entry| (place, entry)),
        None => None,
    };
    match link.state {
        LinkState::Planned => work.planned(registry, at_place),
        LinkState::Staged => work.staged(registry, at_place),
        LinkState::Undoing => work.undoing(registry, at_place),
        LinkState::Done | LinkState::Undone => Ok(Way::Finished),
    }
}

struct Work<'a> {
    store: &'a Store,
    lock: &'a StoreLock,
    link: &'a Link,
}

impl Work<'_> {
    /// Nothing of the other tool was touched, except that a link may have been made where nothing was.
    fn planned(&self, registry: &mut Registry, at_place: Option<(&Place, Entry)>) -> Result<Way> {
        if let (None, Some((place, entry))) = (&self.link.new.original, at_place)
            && is_ours(self.link, place, &entry)?
        {
            return self.finish(registry);
        }
        self.roll_back(registry)
    }

    /// What comes and what goes may have changed places.
    fn staged(&self, registry: &mut Registry, at_place: Option<(&Place, Entry)>) -> Result<Way> {
        let stage = self.stage()?;
        let in_stage = match &stage {
            Some(stage) => stage.entry()?.map(|entry| (stage, entry)),
            None => None,
        };
        let Some((place, entry)) = at_place else {
            // Its owner has deleted it since: whatever is in the stage is older than that.
            return self.roll_back(registry);
        };
        if !is_ours(self.link, place, &entry)? {
            // Not changed yet, or changed and then replaced by its owner, or on the way back.
            if let Some((stage, out)) = in_stage
                && !is_ours(self.link, stage, &out)?
                && !self.is_original(&out)
                && out.stamp.modified_ns > entry.stamp.modified_ns
            {
                swap(place, stage, |_| true)?;
            }
            return self.roll_back(registry);
        }
        match in_stage {
            Some((stage, out)) if !self.is_original(&out) => {
                // A file that appeared in the last moment came out: it goes back.
                swap(place, stage, |_| true)?;
                self.roll_back(registry)
            }
            _ => self.finish(registry),
        }
    }

    /// The other tool's own file may have come back.
    fn undoing(&self, registry: &mut Registry, at_place: Option<(&Place, Entry)>) -> Result<Way> {
        if let Some((place, entry)) = at_place
            && is_ours(self.link, place, &entry)?
        {
            self.clear_stage()?;
            if self.link.new.strategy == LinkStrategy::Symlink
                && self.store.has_blob(&self.link.new.digest, self.link.new.bytes)
            {
                self.seal_content()?;
            }
            registry.set_link_state(self.link.id, LinkState::Done, None)?;
            return Ok(Way::RolledBack);
        }
        if let (Some((place, entry)), Some(stage)) = (at_place, self.stage()?)
            && let Some(out) = stage.entry()?
            && self.is_restored(&entry)
            && !self.is_restored(&out)
            && !is_ours(self.link, &stage, &out)?
        {
            // What its owner wrote in the last moment came out: it goes back.
            swap(place, &stage, |_| true)?;
        }
        self.clear_stage()?;
        self.free_name()?;
        registry.set_link_state(self.link.id, LinkState::Undone, None)?;
        self.collect(registry)?;
        Ok(Way::Finished)
    }

    fn finish(&self, registry: &mut Registry) -> Result<Way> {
        self.clear_stage()?;
        if self.link.new.strategy == LinkStrategy::Symlink {
            let stamp = self.seal_content()?;
            registry.record_blob(&self.link.new.digest, &stamp)?;
        }
        registry.set_link_state(self.link.id, LinkState::Done, None)?;
        Ok(Way::Finished)
    }

    fn roll_back(&self, registry: &mut Registry) -> Result<Way> {
        self.clear_stage()?;
        self.free_name()?;
        registry.forget_link(self.link.id)?;
        self.collect(registry)?;
        Ok(Way::RolledBack)
    }

    fn free_name(&self) -> Result<()> {
        self.link.name.as_ref().map_or(Ok(()), |name| self.store.free_link_name(self.lock, name))
    }

    /// Removes the content if it came in for this link only.
    fn collect(&self, registry: &mut Registry) -> Result<()> {
        if self.link.name.is_some() {
            self.store.remove_unused_blob(self.lock, registry, &self.link.new.digest)?;
        }
        Ok(())
    }

    /// Content of the store is never written again.
    fn seal_content(&self) -> Result<FileStamp> {
        seal(&self.store.blob(&self.link.new.digest))
    }

    fn is_original(&self, entry: &Entry) -> bool {
        self.link.new.original.as_ref().is_some_and(|original| is_same_file(entry, &original.stamp))
    }

    /// Whether it looks like the file that undoing makes.
    fn is_restored(&self, entry: &Entry) -> bool {
        self.link.new.original.as_ref().is_some_and(|original| {
            entry.kind == EntryKind::File
                && (entry.stamp.bytes, entry.stamp.modified_ns)
                    == (self.link.new.bytes, original.stamp.modified_ns)
        })
    }

    fn stage(&self) -> Result<Option<Place>> {
        let Some(stage) = &self.link.stage else { return Ok(None) };
        match stage_of(self.store, self.link, stage) {
            Ok(place) => Ok(Some(place)),
            Err(error) if error.code() == Code::FileNotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn clear_stage(&self) -> Result<()> {
        match self.stage()? {
            Some(stage) => stage.dir.remove(&stage.name).map(|_| ()),
            None => Ok(()),
        }
    }
}

/// Takes the right to write content away from everybody; its identity then.
pub(super) fn seal(path: &Path) -> Result<FileStamp> {
    let fail = |error| Error::io("read", path, error);
    let metadata = fs::symlink_metadata(path).map_err(fail)?;
    if metadata.is_file() && metadata.permissions().mode() & 0o777 != 0o444 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o444))
            .map_err(|error| Error::io("change the mode of", path, error))?;
    }
    fs::symlink_metadata(path).map(|metadata| FileStamp::of(&metadata)).map_err(fail)
}

/// Removes files from the staging folder that belong to no unfinished link: names of content that was
/// on its way in. The caller holds the store's lock.
fn sweep(store: &Store, registry: &Registry) -> Result<()> {
    let staging = store.staging();
    let kept: Vec<OsString> = registry
        .unfinished_links()?
        .iter()
        .filter_map(|link| link.stage.as_deref()?.file_name().map(ToOwned::to_owned))
        .collect();
    let fail = |error| Error::io("read", &staging, error);
    let entries = match fs::read_dir(&staging) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(fail(error)),
    };
    for entry in entries {
        let entry = entry.map_err(fail)?;
        if !kept.contains(&entry.file_name()) {
            let path = entry.path();
            fs::remove_file(&path).map_err(|error| Error::io("remove", &path, error))?;
        }
    }
    Ok(())
}
