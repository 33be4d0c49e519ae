//! `trees/<commit>.json`: what the hub said of each file of a commit.

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;

use crate::sources::record;
use crate::sources::scan::{Checksum, Expected};

/// The only version there is; others are ignored, as `huggingface_hub` does.
const FORMAT_VERSION: u64 = 1;
/// A listing of 100,000 files has about half of this.
const LONGEST: u64 = 32 << 20;

#[derive(Deserialize)]
struct Listing {
    format_version: u64,
    files: HashMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    size: u64,
    blob_id: String,
    lfs_sha256: Option<String>,
    lfs_size: Option<u64>,
}

/// What each file of the commit is expected to be, by its path; nothing if there is no listing that can be
/// read, since it is only a help.
pub(super) fn read(repository: &Path, commit: &str) -> HashMap<String, Expected> {
    record::read(&repository.join("trees").join(format!("{commit}.json")), LONGEST)
        .ok()
        .and_then(|text| serde_json::from_slice::<Listing>(&text).ok())
        .filter(|listing| listing.format_version == FORMAT_VERSION)
        .map(|listing| listing.files.into_iter().map(|(path, entry)| (path, entry.expected())).collect())
        .unwrap_or_default()
}

impl Entry {
    fn expected(&self) -> Expected {
        let of_git = || match Checksum::of_name(&self.blob_id) {
            Some(checksum @ Checksum::GitSha1(_)) => Some(checksum),
            _ => None,
        };
        match &self.lfs_sha256 {
            // For a file in LFS the blob of git is only a pointer.
            Some(sha256) => Expected {
                checksum: Checksum::of_name(sha256).filter(|it| matches!(it, Checksum::Sha256(_))),
                bytes: Some(self.lfs_size.unwrap_or(self.size)),
            },
            None => Expected { checksum: of_git(), bytes: Some(self.size) },
        }
    }
}
