//! Distinct contents: each is read once, however many names and links it has.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::inspect;
use crate::error::{Code, Result};
use crate::fs::{Checksums, FileStamp, Progress, Wanted, checksums, try_map_on};
use crate::ids::Digest;
use crate::sources::Checksum;

/// The contents of all subjects.
#[derive(Debug, Default)]
pub struct Contents {
    list: Vec<Content>,
    by_inode: HashMap<(u64, u64), usize>,
}

/// One content.
#[derive(Debug)]
pub struct Content {
    /// One of its names.
    pub path: PathBuf,
    pub stamp: FileStamp,
    wanted: Wanted,
    /// Its digest when it was last hashed, if it has not changed since.
    pub remembered: Option<Digest>,
    pub found: Found,
    /// Whether it was read before, by an earlier pass over the same file.
    pub is_recalled: bool,
    header: Header,
    /// Whether it is a pointer of git-lfs.
    pub is_pointer: bool,
}

/// What looking at a content's header gave.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Header {
    Unread,
    Sound,
    /// What is wrong with it.
    Broken(String),
}

/// What reading a content gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// It was not read.
    Nothing,
    Sums(Checksums),
    /// Why it could not be read.
    Unreadable(String),
}

impl Contents {
    /// Takes note of a content and of the checksums that will be compared; gives back its number.
    pub fn add(
        &mut self,
        path: &Path,
        stamp: FileStamp,
        claims: &[Checksum],
        remembered: Option<Digest>,
    ) -> usize {
        let number = *self.by_inode.entry((stamp.device, stamp.inode)).or_insert_with(|| {
            self.list.push(Content {
                path: path.to_owned(),
                stamp,
                wanted: Wanted::default(),
                remembered: None,
                found: Found::Nothing,
                is_recalled: false,
                header: Header::Unread,
                is_pointer: inspect::is_lfs_pointer(path, stamp.bytes),
            });
            self.list.len() - 1
        });
        if let Some(content) = self.list.get_mut(number) {
            content.remembered = content.remembered.or(remembered);
            content.wanted = claims.iter().fold(content.wanted, |wanted, claim| wanted.and(wanted_by(claim)));
        }
        number
    }

    pub fn get(&self, number: usize) -> Option<&Content> {
        self.list.get(number)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Content> {
        self.list.iter()
    }

    /// Looks at the header of a content, by the name of the file that it is in.
    pub fn look_at_header(&mut self, number: usize, name: &str) {
        if let Some(content) = self.list.get_mut(number)
            && content.header == Header::Unread
        {
            content.header = inspect::header(&content.path, name).map_or(Header::Sound, Header::Broken);
        }
    }

    /// What looking at the header of a content gave.
    pub fn header_fault(&self, number: usize) -> Option<&str> {
        match &self.get(number)?.header {
            Header::Broken(what) => Some(what),
            Header::Unread | Header::Sound => None,
        }
    }

    /// Takes over what an earlier pass read of files that have not changed since.
    pub fn recall(&mut self, earlier: &Self) {
        let read: HashMap<(u64, u64), &Checksums> = earlier
            .list
            .iter()
            .filter_map(|content| match &content.found {
                Found::Sums(sums) => Some(((sums.stamp.device, sums.stamp.inode), sums)),
                _ => None,
            })
            .collect();
        for content in &mut self.list {
            let Some(sums) = read.get(&(content.stamp.device, content.stamp.inode)) else { continue };
            let covers = (sums.sha256.is_some() || !content.wanted.sha256)
                && (sums.git_sha1.is_some() || !content.wanted.git_sha1);
            if sums.stamp == content.stamp && covers {
                content.found = Found::Sums(**sums);
                content.is_recalled = true;
            }
        }
    }

    /// How much [`Contents::measure`] will read.
    pub fn unread_bytes(&self) -> u64 {
        self.list.iter().filter(|content| content.is_unread()).map(|content| content.stamp.bytes).sum()
    }

    /// Reads what was not read yet, the largest first, on this many threads. What cannot be read is a
    /// finding, not an error; the only error is that of `progress`, and what was read before it is kept.
    pub fn measure(&mut self, threads: usize, progress: Progress<'_>) -> Result<()> {
        let mut order: Vec<usize> =
            (0..self.list.len()).filter(|number| self.list[*number].is_unread()).collect();
        order.sort_by_key(|number| Reverse(self.list[*number].stamp.bytes));
        let (list, measured) = (&self.list, Mutex::new(Vec::with_capacity(order.len())));
        let read = try_map_on(threads, &order, |number| {
            let content = &list[*number];
            // A pipe's end or a signal's arrival is no property of the file.
            let found = match checksums(&content.path, content.wanted, progress) {
                Ok(sums) => Found::Sums(sums),
                Err(error) if error.code() == Code::Interrupted => return Err(error),
                Err(error) => Found::Unreadable(error.message().to_owned()),
            };
            measured.lock().unwrap_or_else(PoisonError::into_inner).push((*number, found));
            Ok(())
        });
        for (number, found) in measured.into_inner().unwrap_or_else(PoisonError::into_inner) {
            if let Some(content) = self.list.get_mut(number) {
                content.found = found;
            }
        }
        read.map(|_| ())
    }
}

impl Content {
    fn is_unread(&self) -> bool {
        self.wanted.any() && self.found == Found::Nothing
    }

    /// Its SHA-256, if it was read or is remembered.
    pub fn sha256(&self) -> Option<Digest> {
        match &self.found {
            Found::Sums(sums) => sums.sha256,
            Found::Nothing => self.remembered,
            Found::Unreadable(_) => None,
        }
    }
}

fn wanted_by(claim: &Checksum) -> Wanted {
    match claim {
        Checksum::Sha256(_) => Wanted { sha256: true, git_sha1: false },
        Checksum::GitSha1(_) => Wanted { sha256: false, git_sha1: true },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::error::Error;

    #[test]
    fn what_was_read_before_the_user_stops_it_is_kept() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut contents = Contents::default();
        for (name, bytes) in [("small", 3), ("large", 300_000)] {
            let path = dir.path().join(name);
            std::fs::write(&path, vec![7; bytes]).expect("a file");
            let stamp = FileStamp::of(&std::fs::metadata(&path).expect("a file"));
            let claim = Checksum::Sha256(Digest::from_bytes([0; 32]));
            contents.add(&path, stamp, &[claim], None);
        }
        let seen = AtomicU64::new(0);
        let read = contents.measure(1, &|bytes| {
            if seen.fetch_add(bytes, Ordering::Relaxed) + bytes > 300_000 {
                return Err(Error::new(Code::Interrupted, "stopped"));
            }
            Ok(())
        });
        assert_eq!(read.expect_err("it was stopped").code(), Code::Interrupted);
        let found: Vec<bool> = contents.iter().map(|content| content.found == Found::Nothing).collect();
        assert_eq!(found, [true, false], "the largest is read first");
    }
}
