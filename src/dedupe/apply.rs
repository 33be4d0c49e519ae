//! Doing what the plan says, file by file.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::content::Verified;
use super::settle::{seal, settle_one};
use super::swap::{Stop, identity, is_same_file, staged, swap};
use super::{File, Group, Keep, Plan, Replacement, STORE, Skipped, Watch};
use crate::error::{Error, Result};
use crate::fs::{
    Copy, FileLock, FileStamp, Place, attributes, copy_hashed, create_private_dir, entry_at, entry_of_file,
    set_attributes, set_modified,
};
use crate::ids::{Bytes, Digest};
use crate::registry::{Identity, Link, LinkState, LinkStrategy, NewLink, Original, Registry, Remembered};
use crate::store::{Store, StoreLock};

/// What was done.
#[derive(Debug, Default)]
pub struct Applied {
    /// Of each group of the plan, in its order.
    pub groups: Vec<AppliedGroup>,
    /// Files that were not replaced after all.
    pub skipped: Vec<Skipped>,
}

/// What was done in one group.
#[derive(Debug, Default)]
pub struct AppliedGroup {
    pub replaced: Vec<Arc<Path>>,
    /// Disk space that came back.
    pub reclaimed: Bytes,
}

impl Applied {
    pub fn reclaimed(&self) -> Bytes {
        self.groups.iter().map(|group| group.reclaimed).sum()
    }
}

/// Replaces files as planned. One that is not what it was is skipped; so is everything of a group whose
/// copy that stays is not what it was.
pub fn apply(plan: &Plan, store: &Store, registry: &mut Registry, watch: &dyn Watch) -> Result<Applied> {
    create_private_dir(&store.staging())?;
    watch.expect(plan.groups.iter().map(bytes_to_read).sum());
    let mut work = Work { store, registry, watch, skipped: Vec::new() };
    let mut groups = Vec::new();
    for group in &plan.groups {
        groups.push(work.group(group)?);
    }
    Ok(Applied { groups, skipped: work.skipped })
}

fn bytes_to_read(group: &Group) -> u64 {
    let kept = match group.keep {
        Keep::Stored(_) | Keep::Stays(_) | Keep::Copies(_) => 1,
        Keep::Moves(_) => 0,
    };
    group.bytes.saturating_mul(group.replace.len() as u64 + kept)
}

struct Work<'a> {
    store: &'a Store,
    registry: &'a mut Registry,
    watch: &'a dyn Watch,
    skipped: Vec<Skipped>,
}

/// What the files of a group are replaced with.
struct Kept {
    digest: Digest,
    bytes: u64,
    /// The copy that stays, or content of the store that was compared.
    verified: Option<Verified>,
    /// Content of the store that came from a file that was compared.
    blob: Option<(u64, u64)>,
}

/// The store's lock, and for symlinks that of the content.
type Locks<'a> = (&'a StoreLock, Option<&'a FileLock>);

impl Work<'_> {
    fn group(&mut self, group: &Group) -> Result<AppliedGroup> {
        let mut done = AppliedGroup::default();
        let mut kept = Kept { digest: group.digest, bytes: group.bytes, verified: None, blob: None };
        if let Keep::Stored(file) | Keep::Stays(file) = &group.keep {
            match Verified::open(file, &group.digest, self.watch) {
                Ok(verified) => kept.verified = Some(verified),
                Err(Stop::Fatal(error)) => return Err(error),
                Err(Stop::Skip(reason)) => {
                    let reason = format!("the copy that was to stay, {}: {reason}", file.path.display());
                    for replacement in &group.replace {
                        self.skipped.push(Skipped::new(&replacement.file.path, reason.clone()));
                    }
                    return Ok(done);
                }
            }
        }
        for replacement in &group.replace {
            self.watch.check()?;
            match self.replace(replacement, &mut kept) {
                Ok(freed) => {
                    done.replaced.push(Arc::clone(&replacement.file.path));
                    done.reclaimed += freed;
                }
                Err(Stop::Skip(reason)) => {
                    self.skipped.push(Skipped::new(&replacement.file.path, reason));
                }
                Err(Stop::Fatal(error)) => return Err(error),
            }
        }
        Ok(done)
    }

    /// Replaces one file; the disk space that comes back.
    fn replace(&mut self, replacement: &Replacement, kept: &mut Kept) -> Result<Bytes, Stop> {
        let Replacement { file, how } = replacement;
        let mut old = Verified::open(file, &kept.digest, self.watch)?;
        let mut copied = 0;
        if *how == LinkStrategy::Symlink {
            copied = self.bring_content(&old, kept)?;
        }
        let attributes = attributes(&old.file).map_err(|error| Error::io("read", &file.path, error))?;
        if *how != LinkStrategy::Reflink {
            check_attributes(&old, &attributes, kept)?;
        }
        let blob_lock = match how {
            LinkStrategy::Symlink => Some(self.store.lock_blob(&kept.digest)?),
            _ => None,
        };
        let lock = self.store.lock().map_err(Stop::Fatal)?;
        old.check()?;
        if let Some(verified) = &mut kept.verified {
            verified.check().map_err(|stop| in_the_copy_that_stays(stop, verified))?;
        }
        // A name of what has become content of the store shows that content's mode by now.
        let became_content = kept.blob == Some(old.identity());
        let mode = if became_content { file.entry.mode } else { old.entry.mode };
        let original = Original { stamp: old.entry.stamp, mode, attributes };
        let new = NewLink {
            source: file.source.to_owned(),
            root: file.root.to_path_buf(),
            path: file.path.to_path_buf(),
            digest: kept.digest,
            bytes: kept.bytes,
            strategy: *how,
            original: Some(original),
            kept: match how {
                LinkStrategy::Reflink => {
                    kept.verified.as_ref().map(|verified| Identity::of(&verified.entry.stamp))
                }
                _ => None,
            },
        };
        let link = self.plan_link(&lock, new, &old.place)?;
        self.watch.step("planned", &file.path);
        match self.perform((&lock, blob_lock.as_ref()), &link, &mut old, kept) {
            Ok(()) => {
                let gone = entry_of_file(&old.file).is_ok_and(|entry| entry.names == 0);
                Ok(Bytes(if gone { kept.bytes.saturating_sub(copied) } else { 0 }))
            }
            Err(stop) => {
                // The journal has what is needed if this fails too: the next command tries again.
                if let Ok(Some(link)) = self.registry.link_at(&link.new.path) {
                    let _ = settle_one(self.store, self.registry, &lock, &link);
                }
                if matches!((&stop, old.place.entry()), (Stop::Skip(_), Ok(None))) {
                    return Err(Stop::skip("it was deleted meanwhile"));
                }
                Err(stop)
            }
        }
    }

    /// Writes the intention down, with the names that will be used.
    fn plan_link(&mut self, lock: &StoreLock, new: NewLink, place: &Place) -> Result<Link, Stop> {
        // Links that are there no more gave way to the file that is replaced now.
        if let Some(old) = self.registry.link_at(&new.path).map_err(Stop::Fatal)? {
            if old.state != LinkState::Done {
                return Err(Stop::skip(
                    "an earlier change of it is not settled: run `mlx-cache doctor --fix`",
                ));
            }
            if let Some(name) = &old.name {
                self.store.free_link_name(lock, name)?;
            }
            self.registry.forget_link(old.id).map_err(Stop::Fatal)?;
        }
        let at_home = place.dir.device()? == device_of(&self.store.staging())?;
        let folder = place.dir.path().to_owned();
        let store = self.store;
        let (source, digest, strategy) = (new.source.clone(), new.digest, new.strategy);
        let names = move |id: i64| -> (Option<PathBuf>, Option<PathBuf>) {
            let name = (strategy == LinkStrategy::Symlink).then(|| store.link_name(&source, id, &digest));
            let stage = if at_home {
                store.staging().join(id.to_string())
            } else {
                folder.join(format!(".mlx-cache-{id}.tmp"))
            };
            (name, Some(stage))
        };
        self.registry.plan_link(new, names).map_err(Stop::Fatal)
    }

    /// Sees to it that the content is in the store and was compared; the bytes that were written for it.
    /// Content on the store's own filesystem comes in later, as the file itself.
    fn bring_content(&self, old: &Verified, kept: &mut Kept) -> Result<u64, Stop> {
        let Kept { digest, bytes, .. } = *kept;
        if kept.verified.is_some() || kept.blob.is_some() {
            return Ok(0);
        }
        if !self.store.has_blob(&digest, bytes) {
            if old.identity().0 == device_of(&self.store.staging())? {
                return Ok(0);
            }
            let copy =
                Copy { source: &old.place.path(), temp_dir: &self.store.incomplete(), still_needed: bytes };
            let progress = |read| {
                self.watch.read(read);
                self.watch.check()
            };
            let copied = copy_hashed(copy, &progress)?;
            if copied.digest != digest {
                return Err(Stop::skip("it changed while it was copied"));
            }
            let stamp = self.store.publish(copied)?;
            kept.blob = stamp.map(|stamp| (stamp.device, stamp.inode));
            if kept.blob.is_some() {
                return Ok(bytes);
            }
        }
        // Somebody else brought it: it is compared as everything is.
        let path: Arc<Path> = self.store.blob(&digest).into();
        let entry = entry_at(&path).map_err(|error| Error::io("read", &path, error))?;
        let root: Arc<Path> = self.store.blobs().into();
        let blob = File { source: STORE, root, path, entry, claimed: None, replaceable: Ok(()) };
        kept.verified = Some(Verified::open(&blob, &digest, self.watch)?);
        Ok(0)
    }

    /// The steps, in the order that makes each state on disk one that can be finished or rolled back.
    fn perform(
        &mut self,
        locks: Locks<'_>,
        link: &Link,
        old: &mut Verified,
        kept: &mut Kept,
    ) -> Result<(), Stop> {
        let path = &link.new.path;
        let Some(stage_path) = &link.stage else { return Err(Stop::skip("it has no stage")) };
        let at_home = stage_path.parent() == Some(&self.store.staging());
        let stage =
            if at_home { staged(self.store, stage_path)? } else { Place::find(&link.new.root, stage_path)? };
        // What an earlier process left under this name was never ours to keep.
        stage.dir.remove(&stage.name)?;
        let placed = match link.new.strategy {
            LinkStrategy::Symlink => {
                self.stage_symlink(locks, link, old, kept, &stage)?;
                None
            }
            LinkStrategy::Hardlink => Some(stage_hard_link(kept, &stage)?),
            LinkStrategy::Reflink => Some(stage_clone(link, kept, &stage)?),
        };
        stage.dir.sync()?;
        self.watch.step("staged file", path);
        self.registry.set_link_state(link.id, LinkState::Staged, placed).map_err(Stop::Fatal)?;
        self.watch.step("staged", path);

        let expected = old.entry.stamp;
        let unwritten = &*old;
        let swapped =
            swap(&old.place, &stage, |out| is_same_file(out, &expected) && unwritten.is_unwritten())?;
        if !swapped {
            return Err(Stop::skip("it changed in the last moment"));
        }
        self.watch.step("changed places", path);
        let blob = self.store.blob(&kept.digest);
        let sealed = match link.new.strategy {
            LinkStrategy::Symlink => Some(seal(&blob)?),
            _ => None,
        };
        stage.dir.remove(&stage.name)?;
        self.watch.step("removed", path);
        let placed = match (&placed, old.place.entry()?) {
            (Some(_), Some(now)) => Some(now.stamp),
            _ => None,
        };
        let journal = |registry: &mut Registry| {
            if let Some(stamp) = &sealed {
                registry.record_blob(&link.new.digest, stamp)?;
            }
            registry.set_link_state(link.id, LinkState::Done, placed)?;
            // What was compared a moment ago need not be read again for the next plan.
            let known = Remembered { ends: None, digest: Some(link.new.digest) };
            let stamps: Vec<_> = placed.iter().map(|stamp| (*stamp, known)).collect();
            registry.remember(&stamps)
        };
        journal(self.registry).map_err(Stop::Fatal)?;
        self.watch.step("done", path);
        // The names and the mode of these changed by what was done here.
        if let Some(verified) = &mut kept.verified {
            verified.look_again()?;
        }
        Ok(())
    }

    fn stage_symlink(
        &self,
        (lock, blob_lock): Locks<'_>,
        link: &Link,
        old: &mut Verified,
        kept: &mut Kept,
        stage: &Place,
    ) -> Result<(), Stop> {
        let Kept { digest, bytes, .. } = *kept;
        let Some(name) = &link.name else { return Err(Stop::skip("it has no name")) };
        if !self.store.has_blob(&digest, bytes) {
            // The file itself becomes the content: another name for it, and then only that one.
            let content = self.store.staging().join(format!("{}.content", link.id));
            let content_place = staged(self.store, &content)?;
            content_place.dir.remove(&content_place.name)?;
            content_place.dir.hard_link(&content_place.name, &old.place.dir, &old.place.name)?;
            let linked = content_place.entry()?;
            if linked.is_none_or(|linked| !is_same_file(&linked, &old.entry.stamp)) {
                content_place.dir.remove(&content_place.name)?;
                return Err(Stop::skip("it changed in the last moment"));
            }
            old.file.sync_all().map_err(|error| Error::io("sync", &old.place.path(), error))?;
            let Some(blob_lock) = blob_lock else { return Err(Stop::skip("its content is not locked")) };
            if self.store.adopt_staged(blob_lock, &content, &digest, bytes)? {
                kept.blob = Some(old.identity());
            }
            self.watch.step("content", &link.new.path);
        }
        let blob = self.store.blob(&digest);
        let found = entry_at(&blob).map_err(|error| Error::io("read", &blob, error))?;
        let compared = kept.blob.or_else(|| kept.verified.as_ref().map(Verified::identity));
        if compared != Some(identity(&found)) {
            return Err(Stop::skip("its equal in the store changed meanwhile"));
        }
        self.store.make_link_name(lock, name, &digest)?;
        self.watch.step("named", &link.new.path);
        if let Some(verified) = &mut kept.verified {
            verified.look_again()?;
        }
        stage.dir.symlink(name, &stage.name, old.entry.stamp.modified_ns)?;
        Ok(())
    }
}

/// A second name for the copy that stays, in the stage.
fn stage_hard_link(kept: &Kept, stage: &Place) -> Result<FileStamp, Stop> {
    let Some(verified) = &kept.verified else { return Err(Stop::skip("it has no equal that stays")) };
    verified.file.sync_all().map_err(|error| Error::io("sync", &verified.place.path(), error))?;
    stage.dir.hard_link(&stage.name, &verified.place.dir, &verified.place.name)?;
    match stage.entry()? {
        Some(linked) if is_same_file(&linked, &verified.entry.stamp) => Ok(linked.stamp),
        _ => Err(Stop::skip("its equal changed in the last moment")),
    }
}

/// A clone of the copy that stays, which looks as the file that it replaces.
fn stage_clone(link: &Link, kept: &Kept, stage: &Place) -> Result<FileStamp, Stop> {
    let Some(verified) = &kept.verified else { return Err(Stop::skip("it has no equal that stays")) };
    let path = stage.path();
    let fail = |action: &'static str| {
        let path = path.clone();
        move |error| Error::io(action, &path, error)
    };
    let clone = stage.dir.clone_file(&verified.file, &stage.name).map_err(fail("clone"))?;
    dress(&clone, link).map_err(fail("write"))?;
    clone.sync_all().map_err(fail("sync"))?;
    if !verified.is_unwritten() {
        return Err(Stop::skip("its equal is being opened by a program that may write to it"));
    }
    let entry = entry_of_file(&clone).map_err(fail("read"))?;
    Ok(entry.stamp)
}

/// The permissions of a file where nothing was before.
pub(super) const NEW_MODE: u32 = 0o644;

/// Gives a file the mode, attributes and time of the one that a link replaced.
pub(super) fn dress(file: &std::fs::File, link: &Link) -> std::io::Result<()> {
    let Some(original) = &link.new.original else {
        return file.set_permissions(Permissions::from_mode(NEW_MODE));
    };
    if !original.attributes.is_empty() {
        file.set_permissions(Permissions::from_mode(0o600))?;
        set_attributes(file, &original.attributes)?;
    }
    file.set_permissions(Permissions::from_mode(original.mode))?;
    set_modified(file, original.stamp.modified_ns)
}

/// Through a link its owner sees the attributes of the copy that stays.
fn check_attributes(old: &Verified, own: &[(String, Vec<u8>)], kept: &Kept) -> Result<(), Stop> {
    let of_use = |name: &str| !name.starts_with("com.apple.");
    let Some(verified) = &kept.verified else {
        // Its own file, or one that was equal in this too, became the content.
        return Ok(());
    };
    if verified.identity() == old.identity() || own.iter().all(|(name, _)| !of_use(name)) {
        return Ok(());
    }
    let path = verified.place.path();
    let kept = attributes(&verified.file).map_err(|error| Error::io("read", &path, error))?;
    if own.iter().filter(|(name, _)| of_use(name)).all(|attribute| kept.contains(attribute)) {
        return Ok(());
    }
    Err(Stop::skip("it has extended attributes that would no longer be seen"))
}

fn in_the_copy_that_stays(stop: Stop, verified: &Verified) -> Stop {
    match stop {
        Stop::Skip(reason) => {
            Stop::Skip(format!("the copy that was to stay, {}: {reason}", verified.place.path().display()))
        }
        fatal @ Stop::Fatal(_) => fatal,
    }
}

fn device_of(path: &Path) -> Result<u64> {
    entry_at(path).map(|entry| entry.stamp.device).map_err(|error| Error::io("read", path, error))
}
