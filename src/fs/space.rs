//! Disk space.

use std::path::Path;

use crate::error::{Error, Result};

/// Of the filesystem that holds a path, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// What this user may still write.
    pub free: u64,
    pub total: u64,
}

/// The space where `path` lies, or will lie: the nearest folder that exists counts.
pub fn space(path: &Path) -> Result<Space> {
    let present = path.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    let found = rustix::fs::statvfs(present).map_err(|error| Error::io("measure", present, error.into()))?;
    Ok(Space {
        free: found.f_bavail.saturating_mul(found.f_frsize),
        total: found.f_blocks.saturating_mul(found.f_frsize),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_not_there_yet_has_the_space_of_its_parent() {
        let dir = tempfile::tempdir().expect("a folder");
        let space = space(&dir.path().join("not/yet")).expect("space");
        assert!(space.total > 0 && space.free <= space.total);
    }
}
