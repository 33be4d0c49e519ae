//! Where good copies of content may lie on this machine.

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::ids::SnapshotPath;
use crate::registry::FileRecord;
use crate::sources::{Checksum, Scan};
use crate::verify::contents::{Contents, Found};
use crate::verify::problem::Needed;

/// Files by what they hold, or are said to hold. Only hashing while copying proves it.
#[derive(Debug, Default)]
pub struct Copies {
    by_checksum: HashMap<Checksum, Vec<PathBuf>>,
    /// Files of which nobody says what they hold.
    by_size: HashMap<u64, Vec<PathBuf>>,
    /// Files of models by their paths there: where not even a size is on record, these may be it.
    by_path: HashMap<SnapshotPath, Vec<PathBuf>>,
    /// What this run has read and found to be something else.
    other: HashSet<(u64, u64)>,
}

impl Copies {
    /// What was read: it holds what it holds.
    pub fn add_contents(&mut self, contents: &Contents) {
        for content in contents.iter() {
            let Found::Sums(sums) = &content.found else {
                if matches!(content.found, Found::Unreadable(_)) {
                    self.other.insert((content.stamp.device, content.stamp.inode));
                }
                continue;
            };
            self.other.insert((content.stamp.device, content.stamp.inode));
            let known = [sums.sha256.map(Checksum::Sha256), sums.git_sha1.map(Checksum::GitSha1)];
            for checksum in known.into_iter().flatten() {
                self.by_checksum.entry(checksum).or_default().push(content.path.clone());
            }
            // It may hold what is asked for by a checksum of the other kind.
            if sums.git_sha1.is_none() || sums.sha256.is_none() {
                self.by_size.entry(sums.stamp.bytes).or_default().push(content.path.clone());
            }
        }
    }

    /// What a foreign cache says that it holds.
    pub fn add_scan(&mut self, scan: &Scan) {
        for payload in &scan.payloads {
            let place = payload.linked_to.as_ref().unwrap_or(&payload.path).to_path_buf();
            if self.other.contains(&(payload.entry.stamp.device, payload.entry.stamp.inode)) {
                continue;
            }
            if let Some(claimed) = payload.claimed {
                self.by_checksum.entry(claimed).or_default().push(place.clone());
            }
            if !matches!(payload.claimed, Some(Checksum::Sha256(_))) {
                self.by_size.entry(payload.entry.stamp.bytes).or_default().push(place);
            }
        }
    }

    /// What the registry says that the file of a model holds, which lies there.
    pub fn add_known(&mut self, file: &FileRecord, path: PathBuf) {
        let FileRecord { digest, bytes, .. } = *file;
        let identity = std::fs::metadata(&path).map(|found| (found.dev(), found.ino()));
        if identity.is_ok_and(|identity| !self.other.contains(&identity)) {
            self.by_path.entry(file.path.clone()).or_default().push(path.clone());
            self.by_checksum.entry(Checksum::Sha256(digest)).or_default().push(path.clone());
            self.by_size.entry(bytes).or_default().push(path);
        }
    }

    /// Files that may hold what is needed, the likeliest first; not the place where it is needed.
    pub fn of(&self, needed: &Needed, place: &Path) -> Vec<PathBuf> {
        let said = self.by_checksum.get(&needed.checksum).into_iter().flatten();
        let fitting = needed.bytes.and_then(|bytes| self.by_size.get(&bytes)).into_iter().flatten();
        let same_path = needed.hub.as_ref().filter(|_| needed.bytes.is_none());
        let same_path = same_path.and_then(|file| self.by_path.get(&file.path)).into_iter().flatten();
        let mut seen = HashSet::new();
        said.chain(fitting)
            .chain(same_path)
            .filter(|path| *path != place && seen.insert(path.as_path()))
            .cloned()
            .collect()
    }
}
