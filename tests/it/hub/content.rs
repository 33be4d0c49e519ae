//! Content of files, and the two checksums by which the hub names it.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use sha2::Digest as _;

/// A file's content. Copies share it and its checksums.
#[derive(Debug, Clone)]
pub struct Content(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Nothing for a file too large to hold, which nobody is expected to fetch.
    bytes: Option<Vec<u8>>,
    length: u64,
    sha256: OnceLock<String>,
    git_sha1: OnceLock<String>,
}

impl Content {
    /// So many zeros under checksums that are not theirs.
    pub fn claimed(length: u64) -> Self {
        Self::new(None, length)
    }

    fn new(bytes: Option<Vec<u8>>, length: u64) -> Self {
        Self(Arc::new(Inner { bytes, length, sha256: OnceLock::new(), git_sha1: OnceLock::new() }))
    }

    pub fn len(&self) -> u64 {
        self.0.length
    }

    /// Fills the buffer with what begins at `offset`; the caller stays within the length.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) {
        match &self.0.bytes {
            Some(bytes) => buffer.copy_from_slice(&bytes[offset as usize..][..buffer.len()]),
            None => buffer.fill(0),
        }
    }

    /// Name of an LFS file: the SHA-256 of its content.
    pub fn sha256(&self) -> String {
        self.0.sha256.get_or_init(|| sha256(&self.named())).clone()
    }

    /// Name of a regular file: git's SHA-1 of its length and its content.
    pub fn git_sha1(&self) -> String {
        self.0.git_sha1.get_or_init(|| git_sha1(&self.named())).clone()
    }

    fn named(&self) -> Cow<'_, [u8]> {
        match &self.0.bytes {
            Some(bytes) => bytes.into(),
            None => self.0.length.to_le_bytes().to_vec().into(),
        }
    }
}

impl<T: AsRef<[u8]>> From<T> for Content {
    fn from(bytes: T) -> Self {
        let bytes = bytes.as_ref().to_vec();
        let length = bytes.len() as u64;
        Self::new(Some(bytes), length)
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
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[test]
fn checksums_are_those_of_git_and_sha256() {
    let content = Content::from("abc");
    // FIPS 180-2, appendix B.1, and `printf abc | git hash-object --stdin`.
    assert_eq!(content.sha256(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_eq!(content.git_sha1(), "f2ba8f84ab5c1bce84a7b441cb1959cfc7093b7f");
}
