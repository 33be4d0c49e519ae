//! Content of files, and the two checksums by which the hub names it.

use std::sync::Arc;

use sha2::Digest as _;

/// A file's content.
#[derive(Debug, Clone)]
pub enum Content {
    Bytes(Arc<[u8]>),
    /// So many zeros under a checksum that is not theirs: a file too large to hold, which nobody is
    /// expected to fetch.
    Claimed(u64),
}

impl Content {
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Claimed(bytes) => *bytes,
        }
    }

    /// Fills the buffer with what begins at `offset`; the caller stays within the length.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) {
        match self {
            Self::Bytes(bytes) => buffer.copy_from_slice(&bytes[offset as usize..][..buffer.len()]),
            Self::Claimed(_) => buffer.fill(0),
        }
    }

    /// Name of an LFS file: the SHA-256 of its content.
    pub fn sha256(&self) -> String {
        match self {
            Self::Bytes(bytes) => sha256(bytes),
            Self::Claimed(bytes) => sha256(&bytes.to_le_bytes()),
        }
    }

    /// Name of a regular file: git's SHA-1 of its length and its content.
    pub fn git_sha1(&self) -> String {
        match self {
            Self::Bytes(bytes) => git_sha1(bytes),
            Self::Claimed(bytes) => git_sha1(&bytes.to_le_bytes()),
        }
    }
}

impl<T: AsRef<[u8]>> From<T> for Content {
    fn from(bytes: T) -> Self {
        Self::Bytes(bytes.as_ref().into())
    }
}

/// Bytes without a pattern, always the same ones for a seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut bytes = vec![0; length];
    random.fill(&mut bytes);
    bytes
}

pub(super) fn sha256(bytes: &[u8]) -> String {
    hex(&sha2::Sha256::digest(bytes))
}

pub(super) fn git_sha1(bytes: &[u8]) -> String {
    let mut hasher = sha1::Sha1::new_with_prefix(format!("blob {}\0", bytes.len()));
    hasher.update(bytes);
    hex(&hasher.finalize())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn checksums_are_those_of_git_and_sha256() {
    let content = Content::from("abc");
    // FIPS 180-2, appendix B.1, and `printf abc | git hash-object --stdin`.
    assert_eq!(content.sha256(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_eq!(content.git_sha1(), "f2ba8f84ab5c1bce84a7b441cb1959cfc7093b7f");
}
