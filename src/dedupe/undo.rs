//! A file of its own again for each tool.

use std::collections::BTreeMap;
use std::fs::File as OpenFile;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::Watch;
use super::apply::{NEW_MODE, dress};
use super::settle::settle_one;
use super::state::{Condition, look_at};
use super::swap::{Stop, identity, staged, swap};
use crate::error::{Code, Error, Result};
use crate::fs::{
    Copied, Copy, Dir, Entry, Place, copy_open, create_private_dir, entry_at, hash_open, open_regular, space,
};
use crate::ids::{Bytes, Digest};
use crate::registry::{Link, LinkState, LinkStrategy, Registry};
use crate::store::{Store, StoreLock};

/// Which links are to be undone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    All,
    /// Those of one content, by the beginning of its digest.
    Group(String),
    /// The one at this path, or all below it.
    Below(PathBuf),
    /// Those of these contents, which are about to go: a link where nothing was becomes a file too.
    Contents(Vec<Digest>),
}

/// What undoing would do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UndoPlan {
    pub links: Vec<Link>,
    /// Disk space that it needs at most; where the filesystem shares blocks it is less.
    pub bytes_needed: Bytes,
    /// The same by filesystem, each with a folder in it.
    needed: BTreeMap<u64, (u64, PathBuf)>,
    /// Whether a file takes the place of a link where nothing was, which else is only removed.
    fills: bool,
}

/// A link and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UndoneLink {
    pub link: Link,
    pub outcome: Undone,
}

/// What became of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Undone {
    /// Its tool has a file of its own again.
    Restored,
    /// A link to what was not there before: it is removed.
    Removed,
    /// Its tool had deleted or replaced it already: it is forgotten.
    Forgotten,
    /// It stays a link; why.
    Kept(String),
}

/// The plan for these links.
pub fn plan_undo(store: &Store, registry: &Registry, selection: &Selection) -> Result<UndoPlan> {
    let chosen = |link: &Link| match selection {
        Selection::All => true,
        Selection::Group(start) => link.new.digest.to_string().starts_with(&start.to_lowercase()),
        Selection::Below(path) => link.new.path.starts_with(path),
        Selection::Contents(digests) => digests.contains(&link.new.digest),
    };
    let done = registry.links()?.into_iter().filter(|link| link.state == LinkState::Done);
    let links: Vec<Link> = done.filter(chosen).collect();
    let fills = matches!(selection, Selection::Contents(_));
    let mut needed: BTreeMap<u64, (u64, PathBuf)> = BTreeMap::new();
    for link in &links {
        if let Ok((place, entry, Condition::Whole | Condition::Dangling)) = look_at(link)
            && link.new.strategy != LinkStrategy::Reflink
            && (fills || link.new.original.is_some())
        {
            let device = place.dir.device().unwrap_or(entry.stamp.device);
            let one = needed.entry(device).or_insert_with(|| (0, place.dir.path().to_owned()));
            one.0 = one.0.saturating_add(link.new.bytes);
        }
    }
    // Content that nothing else needs goes back as it is.
    let mut last: BTreeMap<Digest, &Link> = BTreeMap::new();
    for link in links.iter().filter(|link| link.new.strategy == LinkStrategy::Symlink) {
        last.insert(link.new.digest, link);
    }
    let home = entry_at(&store.blobs()).map(|entry| entry.stamp.device).ok();
    for (digest, link) in last {
        let live = registry.links_of(&[digest])?;
        let all = live.iter().all(|live| links.iter().any(|link| link.id == live.id));
        if all
            && !registry.is_stored(&digest)?
            && let Some(one) = home.and_then(|home| needed.get_mut(&home))
        {
            one.0 = one.0.saturating_sub(link.new.bytes);
        }
    }
    let bytes_needed = Bytes(needed.values().map(|(bytes, _)| *bytes).sum());
    Ok(UndoPlan { links, bytes_needed, needed, fills })
}

/// Undoes links. Too little space is INSUFFICIENT_DISK before anything is done.
pub fn undo(
    store: &Store,
    registry: &mut Registry,
    plan: &UndoPlan,
    watch: &dyn Watch,
) -> Result<Vec<UndoneLink>> {
    for (bytes, folder) in plan.needed.values() {
        let free = space(folder)?.free;
        if *bytes > free && !can_clone(store, folder) {
            let message = format!(
                "{} has too little free space: {} needed, {} free",
                folder.display(),
                Bytes(*bytes),
                Bytes(free)
            );
            return Err(Error::new(Code::InsufficientDisk, message)
                .detail("bytes_needed", *bytes)
                .detail("bytes_free", free)
                .hint("free some disk space, or undo one group or folder at a time"));
        }
    }
    create_private_dir(&store.staging())?;
    watch.expect(plan.links.iter().map(|link| link.new.bytes).sum());
    let mut undone = Vec::new();
    for link in &plan.links {
        watch.check()?;
        let mut work = Work { store, registry, watch, link, fills: plan.fills };
        let outcome = match work.undo() {
            Ok(outcome) => outcome,
            Err(Stop::Skip(reason)) => Undone::Kept(reason),
            Err(Stop::Fatal(error)) => return Err(error),
        };
        undone.push(UndoneLink { link: link.clone(), outcome });
    }
    Ok(undone)
}

/// Whether content of the store can be given back without taking space.
fn can_clone(store: &Store, folder: &Path) -> bool {
    let probe = || -> Result<bool> {
        let (source, _) = open_regular(&store.home().join(crate::registry::FILE_NAME))?;
        Ok(Dir::open(folder)?.can_clone(&source))
    };
    probe().unwrap_or(false)
}

struct Work<'a> {
    store: &'a Store,
    registry: &'a mut Registry,
    watch: &'a dyn Watch,
    link: &'a Link,
    fills: bool,
}

/// The file that is to come back, before it has its place.
enum Ready {
    /// A copy under a temporary name in the store.
    Copy(Box<Copied>),
    /// The content itself, since nothing else needs it.
    Content,
    /// The content, open, to be copied into the folder on another filesystem.
    Elsewhere(OpenFile),
}

impl Work<'_> {
    fn undo(&mut self) -> Result<Undone, Stop> {
        let link = self.link;
        let (place, entry) = match look_at(link) {
            Ok((_, _, Condition::Rewritten)) | Err(Condition::Deleted) => return self.forget(),
            Ok((place, entry, _)) => (place, entry),
            Err(Condition::Unreachable(why)) => return Err(Stop::Skip(why)),
            Err(_) => return Err(Stop::skip("it cannot be looked at")),
        };
        if link.new.strategy == LinkStrategy::Reflink {
            // It is a file of its own already.
            let _lock = self.store.lock().map_err(Stop::Fatal)?;
            self.registry.set_link_state(link.id, LinkState::Undone, None).map_err(Stop::Fatal)?;
            return Ok(Undone::Restored);
        }
        if link.new.original.is_none() && !self.fills {
            return self.remove(&place);
        }
        let ready = self.make_ready(&place)?;
        let lock = self.store.lock().map_err(Stop::Fatal)?;
        let now = place.entry()?;
        if now.is_none_or(|now| identity(&now) != identity(&entry)) {
            return Err(Stop::skip("it changed meanwhile"));
        }
        let home = self.device_of_store()?;
        let stage_path = if place.dir.device()? == home {
            self.store.staging().join(link.id.to_string())
        } else {
            place.dir.path().join(format!(".mlx-cache-{}.tmp", link.id))
        };
        self.registry.begin_undo(link.id, &stage_path).map_err(Stop::Fatal)?;
        self.watch.step("undoing", &link.new.path);
        let done = self.restore(&place, &entry, &stage_path, ready);
        let current = self.registry.link_at(&link.new.path);
        if let Err(stop) = done {
            // The journal has what is needed if this fails too: the next command tries again.
            if let Ok(Some(current)) = current {
                let _ = settle_one(self.store, self.registry, &lock, &current);
            }
            return Err(stop);
        }
        self.finish(&lock)?;
        Ok(Undone::Restored)
    }

    /// Copies or clones the content, if it must be; all of it is read and compared.
    fn make_ready(&mut self, place: &Place) -> Result<Ready, Stop> {
        let link = self.link;
        let (file, path) = match &link.name {
            Some(_) => {
                let blob = self.store.blob(&link.new.digest);
                // The name goes when a tool deletes through its link; the content is still there.
                let from = match &link.name {
                    Some(name) if name.exists() => name.clone(),
                    _ => blob,
                };
                (open_regular(&from)?.0, from)
            }
            None => (place.dir.open_file(&place.name)?, place.path()),
        };
        let at_home = place.dir.device()? == self.device_of_store()?;
        let progress = |bytes| {
            self.watch.read(bytes);
            self.watch.check()
        };
        if at_home && !self.can_move()? {
            let copy =
                Copy { source: &path, temp_dir: &self.store.incomplete(), still_needed: link.new.bytes };
            let mut copied = copy_open(&file, copy, &progress)?;
            self.check_content(&copied.digest)?;
            dress(copied.temp.file(), link).map_err(|error| Error::io("write", copied.temp.path(), error))?;
            return Ok(Ready::Copy(Box::new(copied)));
        }
        let hashed = hash_open(&file, &path, &progress)?;
        self.check_content(&hashed.digest)?;
        Ok(if at_home { Ready::Content } else { Ready::Elsewhere(file) })
    }

    fn check_content(&self, digest: &Digest) -> Result<(), Stop> {
        if *digest == self.link.new.digest {
            return Ok(());
        }
        Err(Stop::skip("its content is damaged: `mlx-cache verify` tells more"))
    }

    /// Whether nothing but this link needs the content, so that it need not be copied.
    fn can_move(&self) -> Result<bool> {
        let digest = self.link.new.digest;
        let Some(name) = &self.link.name else { return Ok(false) };
        if self.registry.links_of(&[digest])?.len() > 1 || self.registry.is_stored(&digest)? {
            return Ok(false);
        }
        let one = |path: &Path| entry_at(path).ok();
        let (Some(blob), Some(name)) = (one(&self.store.blob(&digest)), one(name)) else {
            return Ok(false);
        };
        Ok(identity(&blob) == identity(&name) && blob.names == 2)
    }

    /// Puts the file in the stage and lets it change places with the link.
    fn restore(&mut self, place: &Place, entry: &Entry, stage_path: &Path, ready: Ready) -> Result<(), Stop> {
        let link = self.link;
        let stage = match &ready {
            Ready::Elsewhere(_) => Place::find(&link.new.root, stage_path)?,
            _ => staged(self.store, stage_path)?,
        };
        stage.dir.remove(&stage.name)?;
        let fail = |error| Error::io("write", stage_path, error);
        match ready {
            Ready::Copy(copied) => {
                let mode = link.new.original.as_ref().map_or(NEW_MODE, |original| original.mode);
                copied.temp.publish(stage_path, mode)?;
            }
            Ready::Content => {
                // Looked at again, now that nobody else changes the store.
                if !self.can_move()? {
                    return Err(Stop::skip("its content came into use meanwhile: try again"));
                }
                let blob = self.store.blob(&link.new.digest);
                let folder = Dir::open(blob.parent().unwrap_or(Path::new("/")))?;
                let name = blob.file_name().unwrap_or_default();
                stage.dir.hard_link(&stage.name, &folder, name)?;
                let file = stage.dir.open_file(&stage.name)?;
                dress(&file, link).map_err(fail)?;
                file.sync_all().map_err(fail)?;
            }
            Ready::Elsewhere(mut content) => {
                let mut file = stage.dir.create_file(&stage.name)?;
                std::io::Seek::rewind(&mut content).map_err(fail)?;
                std::io::copy(&mut content, &mut file).map_err(fail)?;
                file.flush().map_err(fail)?;
                let hashed = hash_open(&file, stage_path, &|_| self.watch.check())?;
                self.check_content(&hashed.digest)?;
                dress(&file, link).map_err(fail)?;
                file.sync_all().map_err(fail)?;
            }
        }
        stage.dir.sync()?;
        self.watch.step("staged file", &link.new.path);
        if !swap(place, &stage, |out| identity(out) == identity(entry))? {
            return Err(Stop::skip("it changed in the last moment"));
        }
        self.watch.step("changed places", &link.new.path);
        stage.dir.remove(&stage.name)?;
        self.watch.step("removed", &link.new.path);
        Ok(())
    }

    /// Takes away a link to what was not there before.
    fn remove(&mut self, place: &Place) -> Result<Undone, Stop> {
        let lock = self.store.lock().map_err(Stop::Fatal)?;
        match look_at(self.link) {
            Ok((_, _, Condition::Whole | Condition::Dangling)) => {}
            _ => return Err(Stop::skip("it changed meanwhile")),
        }
        place.dir.remove(&place.name)?;
        place.dir.sync()?;
        self.finish(&lock)?;
        Ok(Undone::Removed)
    }

    fn forget(&mut self) -> Result<Undone, Stop> {
        let lock = self.store.lock().map_err(Stop::Fatal)?;
        self.finish(&lock)?;
        Ok(Undone::Forgotten)
    }

    /// Takes away what only this link needed in the store. The row goes last but for the content, which
    /// is collected if this ends in between.
    fn finish(&mut self, lock: &StoreLock) -> Result<(), Stop> {
        if let Some(name) = &self.link.name {
            self.store.free_link_name(lock, name)?;
            self.watch.step("freed", &self.link.new.path);
        }
        self.registry.set_link_state(self.link.id, LinkState::Undone, None).map_err(Stop::Fatal)?;
        self.watch.step("undone", &self.link.new.path);
        if self.link.name.is_some() {
            self.store.remove_unused_blob(lock, self.registry, &self.link.new.digest).map_err(Stop::Fatal)?;
        }
        self.watch.step("collected", &self.link.new.path);
        Ok(())
    }

    fn device_of_store(&self) -> Result<u64> {
        let staging = self.store.staging();
        entry_at(&staging).map(|entry| entry.stamp.device).map_err(|error| Error::io("read", &staging, error))
    }
}
