//! Advisory locks between processes.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Code, Error, Result};

/// Between two looks at a lock that is held.
const PAUSE: Duration = Duration::from_millis(15);

/// An exclusive lock, held until it is dropped. Its file goes with it, so that locks of things that
/// are gone leave nothing behind.
#[derive(Debug)]
pub struct FileLock {
    path: PathBuf,
    /// Closing it releases the lock.
    _file: File,
}

impl FileLock {
    /// Waits for the lock at most as long as `timeout`, then it is LOCKED.
    pub fn acquire(path: &Path, timeout: Duration) -> Result<Self> {
        let fail = |error| Error::io("lock", path, error);
        let deadline = Instant::now() + timeout;
        loop {
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(path)
                .map_err(fail)?;
            match file.try_lock() {
                Ok(()) if is_named(&file, path) => return Ok(Self { path: path.to_owned(), _file: file }),
                // Its last holder removed the file after it was opened here: the lock is on nothing.
                Ok(()) => continue,
                Err(TryLockError::Error(error)) => return Err(fail(error)),
                Err(TryLockError::WouldBlock) => {}
            }
            if Instant::now() >= deadline {
                let message = format!("another process holds the lock {}", path.display());
                return Err(Error::new(Code::Locked, message)
                    .detail("path", path.display().to_string())
                    .hint("wait until the other mlx-cache is done, then try again"));
            }
            thread::sleep(PAUSE);
        }
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // Before the lock is released: who opens the name afterwards makes a new file, and who had it
        // open already sees that the name is gone.
        let _ = fs::remove_file(&self.path);
    }
}

/// Whether the open file is the one that has this name now.
pub(super) fn is_named(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(own), Ok(named)) => (own.dev(), own.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn a_held_lock_is_locked_and_a_released_one_leaves_nothing() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("lock");
        let lock = FileLock::acquire(&path, Duration::ZERO).expect("free");
        let error = FileLock::acquire(&path, Duration::from_millis(40)).expect_err("held");
        assert_eq!(error.code(), Code::Locked);
        drop(lock);
        assert!(!path.exists());
        FileLock::acquire(&path, Duration::ZERO).expect("free again");
    }

    #[test]
    fn only_one_holds_it_at_a_time() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("lock");
        let inside = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let lock = FileLock::acquire(&path, Duration::from_mins(1)).expect("lock");
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        inside.fetch_sub(1, Ordering::SeqCst);
                        drop(lock);
                    }
                });
            }
        });
    }
}
