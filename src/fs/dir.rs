//! Folders.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use crate::error::{Error, Result};

/// Makes a folder that only its owner may enter, whatever the umask, and its missing parents too.
/// Folders that exist stay as they are.
pub fn create_private_dir(path: &Path) -> Result<()> {
    let fail = |error| Error::io("create", path, error);
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        create_private_dir(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {
            // The umask may have taken away even the owner's rights.
            fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(fail)?;
            path.parent().map_or(Ok(()), sync_dir)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(fail(error)),
    }
}

/// Makes the names in a folder survive a power failure. The empty path, which is the parent of a bare
/// file name, stands for the current folder.
pub fn sync_dir(path: &Path) -> Result<()> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    File::open(path).and_then(|dir| dir.sync_all()).map_err(|error| Error::io("sync", path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_of_a_bare_name_is_the_current_folder() {
        assert!(sync_dir(Path::new("name").parent().expect("a parent")).is_ok());
        assert!(sync_dir(Path::new("absent folder")).is_err());
    }

    #[test]
    fn a_private_folder_is_private_and_a_present_one_stays() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("a/b");
        create_private_dir(&path).expect("create");
        let mode = |path: &Path| fs::metadata(path).expect("stat").permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o700);
        fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("chmod");
        create_private_dir(&path).expect("present");
        assert_eq!(mode(&path), 0o755);

        let file = dir.path().join("file");
        fs::write(&file, "").expect("write");
        assert!(create_private_dir(&file).is_err());
        assert!(create_private_dir(&file.join("x")).is_err());
    }
}
