//! Content on its way in from elsewhere, which outlives the process that brings it.
//!
//! ```text
//! incomplete/<64 hex>          a file that has this SHA-256 when it is whole
//! incomplete/git-<40 hex>      a file that git names so
//! ```
//!
//! Large ones are filled piece by piece ([`crate::fs::Part`]). Small ones are written at once and stay
//! until all of a model's are there: a thousand of them reach the disk together faster than one by one.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Store;
use super::blobs::BLOB_MODE;
use crate::error::{Code, Error, Result};
use crate::fs::{
    Copy, FileLock, FileStamp, Part, Progress, copy_hashed, create_private_dir, hash_contents, sync_dir,
    try_map,
};
use crate::ids::{Checksum, Digest};

/// Between two looks at content that another process fetches.
const PAUSE: Duration = Duration::from_millis(100);

/// Small content that waits under incomplete/ for the rest of its model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeptPart {
    /// What it is waiting under.
    pub checksum: Checksum,
    pub digest: Digest,
    pub bytes: u64,
}

impl Store {
    /// Where content waits until it is whole.
    pub fn part_path(&self, checksum: &Checksum) -> PathBuf {
        self.incomplete().join(part_name(checksum))
    }

    /// The right to bring this content, held by one process at a time. As long as another has it, this
    /// calls `waiting` now and then; its error ends the wait.
    pub fn lock_content(
        &self,
        checksum: &Checksum,
        waiting: &mut dyn FnMut() -> Result<()>,
    ) -> Result<FileLock> {
        let path = self.locks().join(format!("{}.lock", part_name(checksum)));
        loop {
            match FileLock::acquire(&path, PAUSE) {
                Err(error) if error.code() == Code::Locked => waiting()?,
                result => return result,
            }
        }
    }

    /// Makes whole content visible as a blob; returns its identity.
    pub fn publish_part(&self, part: Part, digest: &Digest) -> Result<FileStamp> {
        let path = self.blob(digest);
        if let Some(folder) = path.parent() {
            create_private_dir(folder)?;
        }
        part.publish(&path, BLOB_MODE)?;
        stamp(&path)
    }

    /// Puts small content aside until [`Store::publish_kept`]. The caller has the right to bring it.
    pub fn keep(&self, checksum: &Checksum, content: &[u8]) -> Result<()> {
        let path = self.part_path(checksum);
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32)
            .open(&path)
            .and_then(|mut file| file.write_all(content))
            .map_err(|error| Error::io("write", &path, error))
    }

    /// Small content that was put aside, by this process or one before, if it is what it should be.
    pub fn kept(&self, checksum: &Checksum, bytes: u64) -> Result<Option<KeptPart>> {
        let path = self.part_path(checksum);
        if !fs::symlink_metadata(&path).is_ok_and(|found| found.is_file() && found.len() == bytes) {
            return Ok(None);
        }
        let hashes = match hash_contents(&path, checksum, &|_| Ok(())) {
            Ok(hashes) => hashes,
            // Another process has just made it a blob.
            Err(error) if error.code() == Code::FileNotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(hashes.are(checksum).then_some(KeptPart { checksum: *checksum, digest: hashes.digest, bytes }))
    }

    /// Makes small content visible as blobs; returns their identities, in order.
    pub fn publish_kept(&self, kept: &[KeptPart]) -> Result<Vec<FileStamp>> {
        let mut folders = BTreeSet::new();
        for one in kept {
            if let Some(folder) = self.blob(&one.digest).parent() {
                folders.insert(folder.to_owned());
            }
        }
        folders.iter().try_for_each(|folder| create_private_dir(folder))?;
        let stamps = try_map(kept, |one| self.publish_one(one))?;
        let folders: Vec<PathBuf> = folders.into_iter().collect();
        try_map(&folders, |folder| sync_dir(folder))?;
        Ok(stamps)
    }

    fn publish_one(&self, kept: &KeptPart) -> Result<FileStamp> {
        let (path, target) = (self.part_path(&kept.checksum), self.blob(&kept.digest));
        let published = File::open(&path)
            .and_then(|file| {
                file.set_permissions(Permissions::from_mode(BLOB_MODE))?;
                file.sync_all()
            })
            .and_then(|()| fs::rename(&path, &target));
        match published {
            Ok(()) => stamp(&target),
            // Another process that wanted the same was quicker.
            Err(error)
                if error.kind() == io::ErrorKind::NotFound && self.has_blob(&kept.digest, kept.bytes) =>
            {
                stamp(&target)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(Error::new(Code::Locked, format!("{} was removed by another process", path.display()))
                    .detail("path", path.display().to_string())
                    .hint("try again"))
            }
            Err(error) => Err(Error::io("write", &target, error)),
        }
    }

    /// Copies content that lies elsewhere on this machine into the store, by cloning where the
    /// filesystem can, if it is what the checksum says; nothing if it is not. The caller has the right to
    /// bring it.
    pub fn take_copy(
        &self,
        source: &Path,
        checksum: &Checksum,
        bytes: u64,
        progress: Progress<'_>,
    ) -> Result<Option<(Digest, FileStamp)>> {
        let copy = Copy { source, temp_dir: &self.incomplete(), still_needed: bytes };
        let copied = copy_hashed(copy, progress)?;
        let digest = copied.digest;
        let is_right = match checksum {
            Checksum::Sha256(wanted) => digest == *wanted,
            Checksum::GitSha1(_) => hash_contents(copied.temp.path(), checksum, &|_| Ok(()))?.are(checksum),
        };
        if !is_right || copied.source.bytes != bytes {
            return Ok(None);
        }
        match checksum {
            Checksum::Sha256(_) => self.publish_locked(copied)?,
            Checksum::GitSha1(_) => self.publish(copied)?,
        };
        Ok(Some((digest, stamp(&self.blob(&digest))?)))
    }
}

fn stamp(path: &Path) -> Result<FileStamp> {
    let metadata = fs::metadata(path).map_err(|error| Error::io("read", path, error))?;
    Ok(FileStamp::of(&metadata))
}

fn part_name(checksum: &Checksum) -> String {
    match checksum {
        Checksum::Sha256(digest) => digest.to_string(),
        Checksum::GitSha1(_) => format!("git-{checksum}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `git hash-object` and `sha256sum` of `abc`.
    const GIT: &str = "f2ba8f84ab5c1bce84a7b441cb1959cfc7093b7f";
    const SHA256: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::at(&folder.path().join("store"));
        store.create().expect("a store");
        (folder, store)
    }

    #[test]
    fn small_content_waits_and_then_becomes_a_blob() {
        let (_folder, store) = store();
        let checksum = GIT.parse().expect("a checksum");
        assert_eq!(store.kept(&checksum, 3).expect("no error"), None);
        store.keep(&checksum, b"abd").expect("keep");
        assert_eq!(store.kept(&checksum, 3).expect("no error"), None, "it is other content");
        store.keep(&checksum, b"abc").expect("keep");
        let kept = store.kept(&checksum, 3).expect("no error").expect("it is there");
        let digest: Digest = SHA256.parse().expect("a digest");
        assert_eq!(kept.digest, digest);
        for _ in 0..2 {
            // The second time as another process that had seen it, too.
            assert_eq!(store.publish_kept(&[kept]).expect("publish")[0].bytes, 3);
            assert!(store.has_blob(&digest, 3));
        }
        assert_eq!(fs::read_dir(store.incomplete()).expect("list").count(), 0);
        let absent = KeptPart { digest: Digest::from_bytes([1; 32]), ..kept };
        assert_eq!(store.publish_kept(&[absent]).expect_err("gone").code(), Code::Locked);
    }

    #[test]
    fn a_copy_counts_only_if_it_is_what_was_wanted() {
        let (folder, store) = store();
        let source = folder.path().join("source");
        fs::write(&source, "abc").expect("write");
        let take = |checksum: &str| {
            let checksum = checksum.parse().expect("a checksum");
            let _right = store.lock_content(&checksum, &mut || panic!("nobody has it")).expect("free");
            store.take_copy(&source, &checksum, 3, &|_| Ok(())).expect("copy")
        };
        assert!(take(&SHA256.replace('b', "c")).is_none());
        assert!(take(&GIT.replace('f', "e")).is_none());
        assert_eq!(
            walkdir::WalkDir::new(store.blobs())
                .into_iter()
                .flatten()
                .filter(|e| e.file_type().is_file())
                .count(),
            0
        );
        let (digest, _) = take(GIT).expect("the content");
        assert_eq!(digest.to_string(), SHA256);
        assert!(store.has_blob(&digest, 3));
        assert!(take(SHA256).is_some(), "it is there already");
    }

    #[test]
    fn who_waits_may_stop_waiting() {
        let (_folder, store) = store();
        let checksum = GIT.parse().expect("a checksum");
        let lock = store.lock_content(&checksum, &mut || panic!("nobody has it")).expect("free");
        let mut calls = 0;
        let stopped = store.lock_content(&checksum, &mut || {
            calls += 1;
            Err(Error::new(Code::Interrupted, "stop"))
        });
        assert_eq!(stopped.expect_err("stopped").code(), Code::Interrupted);
        assert_eq!(calls, 1);
        drop(lock);
        store.lock_content(&checksum, &mut || panic!("nobody has it")).expect("free again");
    }
}
