//! Symbolic links.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};

use super::temp::unique_path;
use crate::error::{Error, Result};

/// What a link in the folder `from` must hold to lead to `target`. Both are absolute, without `..`
/// and without links below what they share.
pub fn relative_target(from: &Path, target: &Path) -> PathBuf {
    let shared = from.components().zip(target.components()).take_while(|(a, b)| a == b).count();
    let up = from.components().skip(shared).map(|_| Component::ParentDir);
    up.chain(target.components().skip(shared)).collect()
}

/// Makes a symlink, atomically in place of whatever file or link has its name.
pub fn place_symlink(target: &Path, link: &Path) -> Result<()> {
    if fs::read_link(link).is_ok_and(|present| present == target) {
        return Ok(());
    }
    let fail = |error| Error::io("link", link, error);
    match symlink(target, link) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => return made.map_err(fail),
    }
    let temp = unique_path(link.parent().unwrap_or(Path::new(".")));
    symlink(target, &temp).map_err(fail)?;
    fs::rename(&temp, link).map_err(|error| {
        let _ = fs::remove_file(&temp);
        fail(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_go_up_to_the_shared_folder_and_down_again() {
        let relative = |from: &str, to: &str| relative_target(Path::new(from), Path::new(to));
        assert_eq!(relative("/s/models/h/o/n/r", "/s/blobs/ab/x"), Path::new("../../../../../blobs/ab/x"));
        assert_eq!(relative("/s/a", "/s/a/x"), Path::new("x"));
        assert_eq!(relative("/s/ab", "/s/a/x"), Path::new("../a/x"));
    }

    #[test]
    fn a_link_replaces_what_is_there() {
        let dir = tempfile::tempdir().expect("a folder");
        let link = dir.path().join("link");
        for target in ["one", "one", "two"] {
            place_symlink(Path::new(target), &link).expect("link");
            assert_eq!(fs::read_link(&link).expect("a link"), Path::new(target));
        }
        assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 1);
    }
}
