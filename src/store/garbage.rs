//! What nobody needs any more: a plan, and what is done by it.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use walkdir::WalkDir;

use super::used::Writers;
use super::{Store, StoreLock};
use crate::error::{Error, Result};
use crate::fs::{FileLock, is_abandoned, is_temporary, unique_path};
use crate::ids::{Bytes, Digest};
use crate::registry::Registry;

/// Where nobody can tell whether content is on its way in, it is left alone for this long.
const GRACE: Duration = Duration::from_hours(24);

/// What can go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Garbage {
    pub kind: GarbageKind,
    pub path: PathBuf,
    /// Disk space that it gives back: nothing if the content has other names.
    pub bytes: Bytes,
}

/// Kinds of garbage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GarbageKind {
    /// Content that nobody uses.
    Blob(Digest),
    /// A file that a process which is gone has left unfinished.
    Unfinished,
    /// A download that could be resumed, but that nobody did for long.
    Download,
    /// A folder under models/ that is empty or shows no whole model.
    Folder,
    /// A lock that nobody holds.
    Lock,
}

/// What stays, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub path: PathBuf,
    pub reason: String,
}

/// What a collection would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GarbagePlan {
    pub garbage: Vec<Garbage>,
    pub kept: Vec<Kept>,
}

impl GarbagePlan {
    /// What it frees.
    pub fn bytes(&self) -> Bytes {
        self.garbage.iter().map(|garbage| garbage.bytes).sum()
    }
}

impl Store {
    /// The plan: downloads that were not touched for `older_than` can go too. Without a registry nobody can
    /// tell what content is in use, and all of it stays.
    pub fn garbage(&self, registry: Option<&Registry>, older_than: Duration) -> Result<GarbagePlan> {
        let lock = self.lock()?;
        self.find_garbage(&lock, registry, older_than).map(|(plan, _)| plan)
    }

    /// Removes what the plan names, as far as it is still garbage; gives back what went.
    pub fn collect(
        &self,
        registry: Option<&mut Registry>,
        plan: &GarbagePlan,
        older_than: Duration,
    ) -> Result<Vec<Garbage>> {
        let lock = self.lock()?;
        let (now, writers) = self.find_garbage(&lock, registry.as_deref(), older_than)?;
        let mut gone = Vec::new();
        for garbage in now.garbage {
            let planned = plan.garbage.iter().any(|it| it.kind == garbage.kind && it.path == garbage.path);
            if planned && remove(&garbage)? {
                if garbage.kind == GarbageKind::Folder {
                    self.remove_empty_above(&garbage.path);
                }
                gone.push(garbage);
            }
        }
        drop(writers);
        if let Some(registry) = registry {
            self.forget_gone(registry)?;
        }
        Ok(gone)
    }

    /// Rows of content that is gone and that nobody uses go too.
    fn forget_gone(&self, registry: &mut Registry) -> Result<()> {
        let used = self.digests_in_use(registry)?;
        let mut rows = registry.blob_rows()?;
        rows.retain(|digest| !used.contains(digest) && !self.blob(digest).exists());
        registry.forget_blobs(&rows)
    }

    fn find_garbage(
        &self,
        _lock: &StoreLock,
        registry: Option<&Registry>,
        older_than: Duration,
    ) -> Result<(GarbagePlan, Writers)> {
        let mut plan = GarbagePlan::default();
        // Before the look at what is in use: what was registered until now is seen, and nothing comes in after.
        let writers = self.hold_writers()?;
        if let Some(registry) = registry {
            self.unused_blobs(registry, &writers, &mut plan)?;
            self.useless_folders(registry, &mut plan)?;
        }
        self.unfinished(older_than, &writers, &mut plan)?;
        self.dangling_locks(&mut plan)?;
        Ok((plan, writers))
    }

    fn unused_blobs(&self, registry: &Registry, writers: &Writers, plan: &mut GarbagePlan) -> Result<()> {
        let used = self.digests_in_use(registry)?;
        for (path, metadata) in files_below(&self.blobs(), 2)? {
            let digest = path.file_name().and_then(|name| name.to_str()?.parse::<Digest>().ok());
            let Some(digest) = digest.filter(|digest| self.blob(digest) == path) else {
                let reason = "its name is not that of content: nobody knows whose it is".to_owned();
                plan.kept.push(Kept { path, reason });
                continue;
            };
            if used.contains(&digest) {
                continue;
            }
            let coming = match writers {
                Writers::None(_) => false,
                Writers::Some => true,
                Writers::Unknown => age(&metadata) < GRACE,
            };
            if coming {
                let reason = "no model uses it, but a process that is running may be about to".to_owned();
                plan.kept.push(Kept { path, reason });
            } else {
                let bytes = freed(&metadata);
                plan.garbage.push(Garbage { kind: GarbageKind::Blob(digest), path, bytes });
            }
        }
        Ok(())
    }

    fn unfinished(&self, older_than: Duration, writers: &Writers, plan: &mut GarbagePlan) -> Result<()> {
        for (path, metadata) in files_below(&self.incomplete(), 1)? {
            let bytes = freed(&metadata);
            let is_coming = matches!(writers, Writers::Some) && !is_temporary(&path);
            if is_coming || !is_abandoned(&path) {
                let reason = "a process that is running writes it".to_owned();
                plan.kept.push(Kept { path, reason });
            } else if is_temporary(&path) {
                plan.garbage.push(Garbage { kind: GarbageKind::Unfinished, path, bytes });
            } else if age(&metadata) >= older_than {
                plan.garbage.push(Garbage { kind: GarbageKind::Download, path, bytes });
            } else {
                let reason =
                    format!("{bytes} of a download that the next pull resumes; --older-than 0s removes it");
                plan.kept.push(Kept { path, reason });
            }
        }
        Ok(())
    }

    /// Under the store's lock nobody is making or removing a folder: what is hidden is left over.
    fn useless_folders(&self, registry: &Registry, plan: &mut GarbagePlan) -> Result<()> {
        let useless = |path| Garbage { kind: GarbageKind::Folder, path, bytes: Bytes::default() };
        for unregistered in self.unregistered(registry)? {
            let path = unregistered.folder;
            match unregistered.files {
                Ok(_) => plan.kept.push(Kept {
                    path,
                    reason:
                        "a whole model that the registry does not know: mlx-cache doctor --fix registers it"
                            .to_owned(),
                }),
                Err(_) if holds_only_links(&path) => plan.garbage.push(useless(path)),
                Err(reason) => plan.kept.push(Kept { path, reason }),
            }
        }
        let models = self.models();
        if !models.is_dir() {
            return Ok(());
        }
        for entry in WalkDir::new(&models).min_depth(1).max_depth(4).sort_by_file_name().into_iter().flatten()
        {
            let is_leftover = entry.file_type().is_dir()
                && if entry.file_name().as_encoded_bytes().starts_with(b".") {
                    is_temporary(entry.path()) && holds_only_links(entry.path())
                } else {
                    entry.depth() < 4 && holds_nothing(entry.path())
                };
            if is_leftover {
                plan.garbage.push(useless(entry.into_path()));
            }
        }
        // A folder goes with all that is in it.
        let folders: Vec<PathBuf> = plan.garbage.iter().map(|known| known.path.clone()).collect();
        plan.garbage.retain(|known| {
            known.kind != GarbageKind::Folder
                || !folders.iter().any(|other| *other != known.path && known.path.starts_with(other))
        });
        Ok(())
    }

    fn dangling_locks(&self, plan: &mut GarbagePlan) -> Result<()> {
        for (path, _) in files_below(&self.locks(), 1)? {
            let is_lock = path.extension().is_some_and(|end| end == "lock");
            if is_lock && is_abandoned(&path) {
                plan.garbage.push(Garbage { kind: GarbageKind::Lock, path, bytes: Bytes::default() });
            }
        }
        Ok(())
    }
}

/// Removes it; whether it was there.
fn remove(garbage: &Garbage) -> Result<bool> {
    let path = &garbage.path;
    let removed = match garbage.kind {
        GarbageKind::Lock => {
            // Taking a lock and giving it back removes its file, and nobody else's.
            return Ok(FileLock::acquire(path, Duration::ZERO).is_ok());
        }
        GarbageKind::Folder => {
            // First out of sight, as a whole.
            let hidden = unique_path(path.parent().unwrap_or(path));
            fs::rename(path, &hidden).and_then(|()| fs::remove_dir_all(&hidden))
        }
        GarbageKind::Blob(_) | GarbageKind::Unfinished | GarbageKind::Download => fs::remove_file(path),
    };
    match removed {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io("remove", path, error)),
    }
}

/// The regular files this deep below a folder, in order; none if there is no such folder.
fn files_below(folder: &Path, depth: usize) -> Result<Vec<(PathBuf, Metadata)>> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut files = Vec::new();
    for entry in WalkDir::new(folder).min_depth(1).max_depth(depth).sort_by_file_name() {
        let fail = |error: walkdir::Error| Error::io("read", folder, error.into());
        let entry = entry.map_err(fail)?;
        if entry.file_type().is_file() {
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                // Another process was done with it.
                Err(error) if error.io_error().is_some_and(|it| it.kind() == io::ErrorKind::NotFound) => {
                    continue;
                }
                Err(error) => return Err(fail(error)),
            };
            files.push((entry.into_path(), metadata));
        }
    }
    Ok(files)
}

/// Whether nothing but links and folders is below a folder: what we make, and what can be made again.
fn holds_only_links(folder: &Path) -> bool {
    WalkDir::new(folder)
        .into_iter()
        .all(|entry| entry.is_ok_and(|entry| entry.file_type().is_dir() || entry.path_is_symlink()))
}

/// Whether there is nothing but empty folders below a folder.
fn holds_nothing(folder: &Path) -> bool {
    WalkDir::new(folder).into_iter().all(|entry| entry.is_ok_and(|entry| entry.file_type().is_dir()))
}

/// Time since a file was last changed in any way.
fn age(metadata: &Metadata) -> Duration {
    let changed = u64::try_from(metadata.ctime()).unwrap_or_default();
    let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(changed);
    let newest = metadata.modified().map_or(changed, |modified| modified.max(changed));
    // A time to come is that of a wrong clock.
    newest.elapsed().unwrap_or_default()
}

/// What removing one name of a file gives back.
fn freed(metadata: &Metadata) -> Bytes {
    Bytes(if metadata.nlink() == 1 { metadata.len() } else { 0 })
}
