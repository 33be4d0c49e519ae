//! Bringing a model's content into the store, several files at a time.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::plan::{Found, Item, Plan, SMALL, in_store};
use super::tracker::Tracker;
use crate::error::{Code, Error, Result};
use crate::fs::{FileStamp, Part};
use crate::hub::{Hub, Remote};
use crate::ids::{Checksum, Digest};
use crate::registry::{FileRecord, Registry};
use crate::report::pull::FileState;
use crate::store::{KeptPart, Store};

/// What bringing a model's content takes.
pub struct Fetch<'a> {
    pub plan: &'a Plan,
    pub hub: &'a Hub,
    pub store: &'a Store,
    pub tracker: &'a Tracker<'a>,
    /// Files at the same time.
    pub jobs: usize,
    /// Whether what is in the store is fetched all the same.
    pub force: bool,
}

/// Content that is here.
#[derive(Debug, Clone, Copy)]
enum Brought {
    Blob(Digest, Option<FileStamp>),
    Kept(KeptPart),
}

/// What several threads share.
struct Shared {
    next: AtomicUsize,
    brought: Mutex<Vec<(usize, Brought)>>,
    /// The failure that ended the work.
    failure: Mutex<Option<Error>>,
}

impl Fetch<'_> {
    /// Brings everything; returns what each file is, by path. After an error what came whole is kept,
    /// and so is the beginning of the rest.
    pub fn run(&self) -> Result<Vec<FileRecord>> {
        let shared =
            Shared { next: AtomicUsize::new(0), brought: Mutex::default(), failure: Mutex::new(None) };
        let threads = self.jobs.min(self.plan.items.len());
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| self.work(&shared));
            }
        });
        if let Some(error) = shared.failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        let brought = shared.brought.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.publish(brought)
    }

    fn work(&self, shared: &Shared) {
        let check = || {
            self.tracker.check()?;
            match &*shared.failure.lock().unwrap_or_else(PoisonError::into_inner) {
                Some(_) => Err(Error::new(Code::Interrupted, "another file failed")),
                None => Ok(()),
            }
        };
        loop {
            let at = shared.next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = self.plan.items.get(at) else { return };
            match check().and_then(|()| self.bring(item, &check)) {
                Ok(brought) => {
                    shared.brought.lock().unwrap_or_else(PoisonError::into_inner).push((at, brought));
                }
                Err(error) => {
                    shared.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    return;
                }
            }
        }
    }

    fn bring(&self, item: &Item, check: &(dyn Fn() -> Result<()> + Sync)) -> Result<Brought> {
        let (file, tracker) = (&item.file, self.tracker);
        match &item.found {
            Found::InStore(digest) => {
                tracker.was_there(file.bytes, false);
                return Ok(Brought::Blob(*digest, None));
            }
            Found::Kept(kept) => {
                tracker.was_there(file.bytes, true);
                return Ok(Brought::Kept(*kept));
            }
            Found::Elsewhere(_) | Found::Partly(_) | Found::Nowhere => {}
        }
        let mut waited = false;
        let _right = self.store.lock_content(&file.checksum, &mut || {
            if !waited {
                waited = true;
                tracker.file(file.path.as_str(), FileState::Waiting);
                tracker.note(&format!("waiting for another mlx-cache that fetches {}", file.path));
            }
            check()
        })?;
        if !self.force
            && let Some(brought) = self.brought_meanwhile(item)?
        {
            tracker.was_there(file.bytes, false);
            return Ok(brought);
        }
        tracker.file(file.path.as_str(), FileState::Started);
        let brought = match self.copy(item, check)? {
            Some(brought) => brought,
            None => self.download(item, check)?,
        };
        tracker.file(file.path.as_str(), FileState::Done);
        Ok(brought)
    }

    /// What another process brought since the plan was made.
    fn brought_meanwhile(&self, item: &Item) -> Result<Option<Brought>> {
        let file = &item.file;
        if let Some(digest) = in_store(file, self.store, None)? {
            return Ok(Some(Brought::Blob(digest, None)));
        }
        if file.bytes <= SMALL
            && let Some(kept) = self.store.kept(&file.checksum, file.bytes)?
        {
            return Ok(Some(Brought::Kept(kept)));
        }
        // By git's name it is found only once it is registered.
        match (&file.checksum, Registry::open(self.store.home())) {
            (Checksum::GitSha1(_), Ok(Some(registry))) => {
                let digest = in_store(file, self.store, Some(&registry))?;
                Ok(digest.map(|digest| Brought::Blob(digest, None)))
            }
            _ => Ok(None),
        }
    }

    fn copy(&self, item: &Item, check: &(dyn Fn() -> Result<()> + Sync)) -> Result<Option<Brought>> {
        let Found::Elsewhere(places) = &item.found else { return Ok(None) };
        for place in places {
            match self.store.take_copy(place, &item.file.checksum, item.file.bytes, &|_| check()) {
                Ok(Some((digest, stamp))) => {
                    self.tracker.copied(item.file.bytes);
                    return Ok(Some(Brought::Blob(digest, Some(stamp))));
                }
                // Not what its name says, or gone meanwhile: there are other ways.
                Ok(None) => {}
                Err(error) => {
                    check()?;
                    if error.code() == Code::InsufficientDisk {
                        return Err(error);
                    }
                }
            }
        }
        Ok(None)
    }

    fn download(&self, item: &Item, check: &(dyn Fn() -> Result<()> + Sync)) -> Result<Brought> {
        let file = &item.file;
        let remote = Remote { model: &self.plan.name, commit: &self.plan.commit, file };
        let watch = self.tracker.watch(file.path.as_str(), file.bytes);
        if file.bytes <= SMALL {
            // It is nearly here: it is brought to its end although another file failed.
            let (content, hashes) = self.hub.bring_small(&remote, &watch, &|| self.tracker.check())?;
            self.store.keep(&file.checksum, &content)?;
            return Ok(Brought::Kept(KeptPart {
                checksum: file.checksum,
                digest: hashes.digest,
                bytes: file.bytes,
            }));
        }
        let part = Part::open(&self.store.part_path(&file.checksum), file.bytes)?;
        if self.force {
            part.reset()?;
        }
        let present = part.present();
        watch.begin_at(present);
        self.tracker.was_there(present, true);
        let hashes = self.hub.bring_large(&remote, &part, &watch, check)?;
        let stamp = self.store.publish_part(part, &hashes.digest)?;
        Ok(Brought::Blob(hashes.digest, Some(stamp)))
    }

    /// Makes the small content visible, and tells what each file is.
    fn publish(&self, brought: Vec<(usize, Brought)>) -> Result<Vec<FileRecord>> {
        let kept: Vec<KeptPart> = brought
            .iter()
            .filter_map(|(_, brought)| match brought {
                Brought::Kept(kept) => Some(*kept),
                Brought::Blob(..) => None,
            })
            .collect();
        let stamps: HashMap<Digest, FileStamp> =
            kept.iter().map(|kept| kept.digest).zip(self.store.publish_kept(&kept)?).collect();
        let mut files = Vec::with_capacity(self.plan.files.len());
        for (at, brought) in brought {
            let Some(item) = self.plan.items.get(at) else { continue };
            let (digest, stamp) = match brought {
                Brought::Blob(digest, stamp) => (digest, stamp),
                Brought::Kept(kept) => (kept.digest, stamps.get(&kept.digest).copied()),
            };
            let record = |path: &crate::ids::SnapshotPath| FileRecord {
                path: path.clone(),
                digest,
                bytes: item.file.bytes,
                stamp,
            };
            files.extend(item.paths.iter().map(record));
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(files)
    }
}
