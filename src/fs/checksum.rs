//! Several checksums of a file in one reading.

use std::path::Path;

use sha2::Digest as _;

use super::file::{FileStamp, open_regular};
use super::hash::{Progress, check_unchanged, git_hasher, read_pieces};
use crate::error::Result;
use crate::ids::Digest;

/// Which checksums are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wanted {
    pub sha256: bool,
    pub git_sha1: bool,
}

impl Wanted {
    /// What either asks for.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { sha256: self.sha256 || other.sha256, git_sha1: self.git_sha1 || other.git_sha1 }
    }

    pub fn any(self) -> bool {
        self.sha256 || self.git_sha1
    }
}

/// Checksums of a file and the identity it had while it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checksums {
    pub sha256: Option<Digest>,
    /// SHA-1 of `blob <length>\0` and the content, as git names files.
    pub git_sha1: Option<[u8; 20]>,
    pub stamp: FileStamp,
}

/// Computes checksums of a file. One that changes meanwhile is INTEGRITY_FAILED.
pub fn checksums(path: &Path, wanted: Wanted, progress: Progress<'_>) -> Result<Checksums> {
    let (file, stamp) = open_regular(path)?;
    let mut sha256 = wanted.sha256.then(sha2::Sha256::new);
    let mut git_sha1 = wanted.git_sha1.then(|| git_hasher(stamp.bytes));
    read_pieces(&file, path, &mut |piece| {
        if let Some(hasher) = &mut sha256 {
            hasher.update(piece);
        }
        if let Some(hasher) = &mut git_sha1 {
            hasher.update(piece);
        }
        progress(piece.len() as u64)
    })?;
    check_unchanged(&file, path, &stamp)?;
    Ok(Checksums {
        sha256: sha256.map(|hasher| Digest::from_bytes(hasher.finalize().into())),
        git_sha1: git_sha1.map(|hasher| hasher.finalize().into()),
        stamp,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_are_those_of_the_bytes() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("file");
        let both = Wanted { sha256: true, git_sha1: true };
        let of = |content: &[u8]| {
            std::fs::write(&path, content).expect("write");
            checksums(&path, both, &|_| Ok(())).expect("checksums")
        };
        // `git hash-object` of the same bytes.
        let found = of(b"abc");
        assert!(found.sha256.expect("asked for").to_string().starts_with("ba7816bf"));
        let begins = |checksums: Checksums| checksums.git_sha1.expect("asked for")[..4].to_vec();
        assert_eq!(begins(found), [0xf2, 0xba, 0x8f, 0x84]);
        assert_eq!(begins(of(b"")), [0xe6, 0x9d, 0xe2, 0x9b]);

        let long = vec![7; 400_005];
        let expected: [u8; 32] = sha2::Sha256::digest(&long).into();
        assert_eq!(of(&long).sha256, Some(Digest::from_bytes(expected)));
        let one = checksums(&path, Wanted { sha256: false, git_sha1: true }, &|_| Ok(())).expect("one");
        assert!(one.sha256.is_none() && one.git_sha1.is_some());
    }
}
