//! Sizes of files below a folder.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use walkdir::{DirEntry, WalkDir};

use super::Survey;

/// Adds to `survey` the bytes of the regular files below `folder` that `counts` lets pass. Links are
/// not followed: what they point at is counted where it lies.
pub(super) fn add_below(folder: &Path, survey: &mut Survey, mut counts: impl FnMut(&DirEntry) -> bool) {
    let mut seen = HashSet::new();
    for entry in WalkDir::new(folder) {
        let Ok(entry) = entry else {
            survey.unreadable += 1;
            continue;
        };
        if !entry.file_type().is_file() || !counts(&entry) {
            continue;
        }
        let Ok(metadata) = entry.metadata() else {
            survey.unreadable += 1;
            continue;
        };
        if metadata.nlink() == 1 || seen.insert((metadata.dev(), metadata.ino())) {
            survey.bytes += metadata.len();
        }
    }
}

/// The folders directly in `folder`; none if it cannot be read.
pub(super) fn folders_in(folder: &Path) -> Vec<std::path::PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}
