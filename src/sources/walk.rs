//! Walking a foreign folder: every name once, several folders at a time, one look at each file, and no
//! link followed.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fs::{self, DirEntry};
use std::io;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::scan::PassedOver;
use crate::cancel::Cancel;
use crate::error::Result;
use crate::fs::{Entry, default_threads};

/// Names of a large folder that one thread looks at in one go.
const PORTION: usize = 512;

/// What has a name.
pub(super) enum What {
    Folder,
    File(Entry),
    /// A symbolic link; what it holds.
    Link(PathBuf),
    /// A device, pipe or socket.
    Special,
}

/// A name in a folder.
pub(super) struct Seen<'a> {
    pub folder: &'a Path,
    pub name: &'a OsStr,
    pub what: What,
}

impl Seen<'_> {
    pub fn path(&self) -> Arc<Path> {
        // As long as is needed from the start: there may be very many.
        let mut path = PathBuf::with_capacity(self.folder.as_os_str().len() + self.name.len() + 1);
        path.push(self.folder);
        path.push(self.name);
        path.into()
    }
}

/// What is to be done about a name.
pub(super) enum Answer<A, T> {
    /// Look into the folder; its names come with this mark.
    Enter(A),
    Keep(T),
    /// Tell that it was left alone, and why.
    Pass(Cow<'static, str>),
    Ignore,
}

impl<A, T> Answer<A, T> {
    pub fn pass(reason: &'static str) -> Self {
        Self::Pass(Cow::Borrowed(reason))
    }
}

/// What a walk brings, in no order.
pub(super) struct Walked<T> {
    pub kept: Vec<T>,
    pub passed_over: Vec<PassedOver>,
}

/// A folder to look into, or some names of one.
enum Job<A> {
    Folder(PathBuf, A),
    Names(Arc<Path>, Vec<DirEntry>, A),
}

struct Queue<A> {
    jobs: Vec<Job<A>>,
    /// Jobs in work: they may bring more.
    running: usize,
}

struct Walk<'a, A, F> {
    judge: F,
    /// The filesystem that the walk stays on.
    device: u64,
    /// Device and inode of a folder never to be entered.
    barred: Option<(u64, u64)>,
    cancel: &'a Cancel,
    queue: Mutex<Queue<A>>,
    more: Condvar,
}

/// Asks `judge` about every name below `root`, which is a folder, perhaps by a link. Folders on other
/// filesystems and the one called `barred` are not entered.
pub(super) fn walk<A: Copy + Send, T: Send>(
    root: &Path,
    barred: &Path,
    mark: A,
    cancel: &Cancel,
    judge: impl Fn(A, &Seen<'_>) -> Answer<A, T> + Sync,
) -> Result<Walked<T>> {
    let identity = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino()));
    let device = match identity(root) {
        Ok((device, _)) => device,
        Err(error) => return Ok(Walked { kept: Vec::new(), passed_over: vec![unreadable(root, &error)] }),
    };
    let walk = Walk {
        judge,
        device,
        barred: identity(barred).ok(),
        cancel,
        queue: Mutex::new(Queue { jobs: vec![Job::Folder(root.to_owned(), mark)], running: 0 }),
        more: Condvar::new(),
    };
    let threads = default_threads();
    let parts = thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(|| walk.work())).collect();
        let mut parts = vec![walk.work()];
        // A thread that panicked brings nothing: the panic is told where the command was called.
        parts.extend(
            others
                .into_iter()
                .map(|other| other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))),
        );
        parts
    });
    cancel.check()?;
    // There may be very many: no room is taken for more.
    let mut parts = parts.into_iter();
    let mut whole = parts.next().unwrap_or(Walked { kept: Vec::new(), passed_over: Vec::new() });
    whole.kept.reserve_exact(parts.as_slice().iter().map(|part| part.kept.len()).sum());
    for mut part in parts {
        whole.kept.append(&mut part.kept);
        whole.passed_over.append(&mut part.passed_over);
    }
    Ok(whole)
}

impl<A: Copy + Send, F> Walk<'_, A, F> {
    fn lock(&self) -> MutexGuard<'_, Queue<A>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next job; none once there are none and no thread may bring one.
    fn next(&self) -> Option<Job<A>> {
        let mut queue = self.lock();
        loop {
            if self.cancel.is_set() {
                return None;
            }
            if let Some(job) = queue.jobs.pop() {
                queue.running += 1;
                return Some(job);
            }
            if queue.running == 0 {
                return None;
            }
            queue = self.more.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn add(&self, job: Job<A>) {
        self.lock().jobs.push(job);
        self.more.notify_one();
    }

    /// Does jobs until there are no more.
    fn work<T>(&self) -> Walked<T>
    where
        F: Fn(A, &Seen<'_>) -> Answer<A, T>,
    {
        let mut own = Walked { kept: Vec::new(), passed_over: Vec::new() };
        while let Some(job) = self.next() {
            // Also after a panic the other threads must not wait for this one for ever.
            let _done = Done(self);
            match job {
                Job::Folder(path, mark) => self.folder(path, mark, &mut own),
                Job::Names(folder, names, mark) => self.names(&folder, names, mark, &mut own),
            }
        }
        own
    }

    fn folder<T>(&self, path: PathBuf, mark: A, own: &mut Walked<T>)
    where
        F: Fn(A, &Seen<'_>) -> Answer<A, T>,
    {
        let listed = fs::metadata(&path).and_then(|found| {
            if self.barred == Some((found.dev(), found.ino())) {
                return Ok(Err("the store of mlx-cache"));
            }
            if found.dev() != self.device {
                return Ok(Err("another filesystem is mounted there"));
            }
            Ok(Ok(fs::read_dir(&path)?))
        });
        let entries = match listed {
            Ok(Ok(entries)) => entries,
            Ok(Err(reason)) => {
                own.passed_over.push(PassedOver { path, reason: reason.into(), unreadable: false });
                return;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => {
                own.passed_over.push(unreadable(&path, &error));
                return;
            }
        };
        let mut names = Vec::new();
        for entry in entries {
            match entry {
                Ok(entry) => names.push(entry),
                Err(error) => {
                    own.passed_over.push(unreadable(&path, &error));
                    break;
                }
            }
        }
        // Disks have the inodes of a folder in this order, not in that of its names.
        names.sort_unstable_by_key(DirEntryExt::ino);
        let path: Arc<Path> = path.into();
        while names.len() > PORTION {
            let portion = names.split_off(names.len() - PORTION);
            self.add(Job::Names(Arc::clone(&path), portion, mark));
        }
        self.names(&path, names, mark, own);
    }

    fn names<T>(&self, folder: &Path, names: Vec<DirEntry>, mark: A, own: &mut Walked<T>)
    where
        F: Fn(A, &Seen<'_>) -> Answer<A, T>,
    {
        for entry in names {
            let name = entry.file_name();
            let what = match what_is(&entry) {
                Ok(what) => what,
                // It went meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => {
                    own.passed_over.push(unreadable(&entry.path(), &error));
                    continue;
                }
            };
            let seen = Seen { folder, name: &name, what };
            match (self.judge)(mark, &seen) {
                Answer::Enter(mark) => self.add(Job::Folder(folder.join(&name), mark)),
                Answer::Keep(kept) => own.kept.push(kept),
                Answer::Pass(reason) => {
                    own.passed_over.push(PassedOver { path: entry.path(), reason, unreadable: false });
                }
                Answer::Ignore => {}
            }
        }
    }
}

struct Done<'a, 'b, A: Copy + Send, F>(&'a Walk<'b, A, F>);

impl<A: Copy + Send, F> Drop for Done<'_, '_, A, F> {
    fn drop(&mut self) {
        self.0.lock().running -= 1;
        self.0.more.notify_all();
    }
}

fn what_is(entry: &DirEntry) -> io::Result<What> {
    let kind = entry.file_type()?;
    Ok(if kind.is_dir() {
        What::Folder
    } else if kind.is_symlink() {
        What::Link(fs::read_link(entry.path())?)
    } else if kind.is_file() {
        What::File(Entry::of(&entry.metadata()?))
    } else {
        What::Special
    })
}

/// What a path names; a link is not followed.
pub(super) fn what_is_at(path: &Path) -> io::Result<What> {
    let metadata = fs::symlink_metadata(path)?;
    Ok(if metadata.is_dir() {
        What::Folder
    } else if metadata.is_symlink() {
        What::Link(fs::read_link(path)?)
    } else if metadata.is_file() {
        What::File(Entry::of(&metadata))
    } else {
        What::Special
    })
}

fn unreadable(path: &Path, error: &io::Error) -> PassedOver {
    PassedOver { path: path.to_owned(), reason: format!("cannot be read: {error}").into(), unreadable: true }
}
