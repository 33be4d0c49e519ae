//! The page cache.

use std::path::Path;

/// Asks the system to drop a file's pages from memory, so that the next reader reads the disk; whether
/// it was asked: not every system can be.
#[cfg(target_os = "linux")]
pub fn forget_pages(path: &Path) -> bool {
    use rustix::fs::{Advice, fadvise};
    std::fs::File::open(path).is_ok_and(|file| fadvise(&file, 0, None, Advice::DontNeed).is_ok())
}

/// Asks the system to drop a file's pages from memory, so that the next reader reads the disk; whether
/// it was asked: not every system can be.
#[cfg(not(target_os = "linux"))]
pub fn forget_pages(_path: &Path) -> bool {
    false
}
