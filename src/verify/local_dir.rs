//! What `hf download --local-dir` wrote down beside the files that it fetched.
//!
//! ```text
//! <folder>/.cache/huggingface/download/<path>.metadata   commit, etag and time, a line each
//! ```
//!
//! Checked against `_local_folder.py` of `huggingface_hub` 2.4. The etag is a checksum as it is in the names
//! of blobs.

use std::path::Path;

use crate::engine::format::file::read_small;
use crate::ids::SnapshotPath;
use crate::sources::Checksum;

/// Three short lines; anything longer is something else.
const LONGEST: u64 = 1024;

/// The checksum that a file of this folder had when it was fetched, if that is on record.
pub fn checksum(folder: &Path, path: &SnapshotPath) -> Option<Checksum> {
    let record = folder.join(".cache/huggingface/download").join(format!("{path}.metadata"));
    // Most folders have none, which costs one look.
    let content = read_small(&record, LONGEST).ok()?;
    let etag = std::str::from_utf8(&content).ok()?.lines().nth(1)?.trim().trim_matches('"');
    Checksum::of_name(etag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_line_is_a_checksum_or_nothing() {
        let dir = tempfile::tempdir().expect("a folder");
        let path: SnapshotPath = "sub/config.json".parse().expect("a path");
        let record = dir.path().join(".cache/huggingface/download/sub/config.json.metadata");
        std::fs::create_dir_all(record.parent().expect("a parent")).expect("folders");
        assert_eq!(checksum(dir.path(), &path), None);
        let etag = "a16a55fda99d2f2e7b69cce5cf93ff4ad3049930";
        std::fs::write(&record, format!("{etag}\n{etag}\n1712656091.1\n")).expect("written");
        assert!(matches!(checksum(dir.path(), &path), Some(Checksum::GitSha1([0xa1, ..]))));
        for other in ["", "one line", "commit\nW/weak\n1\n", &"x".repeat(2000)] {
            std::fs::write(&record, other).expect("written");
            assert_eq!(checksum(dir.path(), &path), None, "{other:?}");
        }
    }
}
