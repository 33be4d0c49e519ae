//! Folders of links that show content as models.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::Store;
use crate::error::{Code, Error, Result};
use crate::fs::{create_private_dir, place_symlink, relative_target, sync_dir, unique_path};
use crate::ids::{ModelName, Revision};
use crate::registry::FileRecord;

impl Store {
    /// Makes the folder of links of a snapshot, or adds to the one there is. The caller holds the
    /// store's lock, and the blobs are there.
    pub(super) fn place_links(
        &self,
        name: &ModelName,
        revision: &Revision,
        files: &[FileRecord],
    ) -> Result<PathBuf> {
        check_paths(files)?;
        let folder = self.snapshot(name, revision);
        self.check_inside(&folder, files)?;
        if folder.is_dir() {
            self.fill(&folder, &folder, files)?;
            return Ok(folder);
        }
        let parent = folder.parent().unwrap_or(&self.home).to_owned();
        create_private_dir(&parent)?;
        let unfinished = unique_path(&parent);
        let made = create_private_dir(&unfinished)
            .and_then(|()| self.fill(&unfinished, &folder, files))
            .and_then(|()| {
                fs::rename(&unfinished, &folder).map_err(|error| Error::io("write", &folder, error))
            })
            .and_then(|()| sync_dir(&parent));
        if made.is_err() {
            // What is left is hidden and counts as nothing.
            let _ = fs::remove_dir_all(&unfinished);
        }
        made.map(|()| folder)
    }

    /// Refuses to write where a link leads out of models/. What only this user can change does not
    /// change between this look and the writing.
    fn check_inside(&self, folder: &Path, files: &[FileRecord]) -> Result<()> {
        let models = self.models();
        let mut seen = BTreeSet::new();
        for file in files {
            let path = folder.join(&file.path);
            for above in path.ancestors().skip(1).take_while(|above| *above != models) {
                if !seen.insert(above.to_owned()) {
                    break;
                }
                if fs::symlink_metadata(above).is_ok_and(|found| found.is_symlink()) {
                    let message =
                        format!("{} is a link where the store has folders of its own", above.display());
                    return Err(Error::new(Code::BoundaryViolation, message)
                        .detail("path", above.display().to_string())
                        .hint("remove the link and try again"));
                }
            }
        }
        Ok(())
    }

    /// Makes the links in `folder`, which will have the name `place`.
    fn fill(&self, folder: &Path, place: &Path, files: &[FileRecord]) -> Result<()> {
        let mut folders = vec![folder.to_owned()];
        for file in files {
            let link = folder.join(&file.path);
            let (Some(parent), Some(final_parent)) =
                (link.parent(), place.join(&file.path).parent().map(Path::to_owned))
            else {
                continue;
            };
            create_private_dir(parent)?;
            place_symlink(&relative_target(&final_parent, &self.blob(&file.digest)), &link)?;
            if !folders.iter().any(|known| known == parent) {
                folders.push(parent.to_owned());
            }
        }
        folders.iter().try_for_each(|folder| sync_dir(folder))
    }

    /// Removes a snapshot's folder, and the folders above that are empty then. The caller holds the
    /// store's lock.
    pub(super) fn remove_links(&self, name: &ModelName, revision: &Revision) -> Result<()> {
        let folder = self.snapshot(name, revision);
        let Some(parent) = folder.parent() else { return Ok(()) };
        // First out of sight, as a whole.
        let hidden = unique_path(parent);
        match fs::rename(&folder, &hidden) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(Error::io("remove", &folder, error)),
        }
        fs::remove_dir_all(&hidden).map_err(|error| Error::io("remove", &hidden, error))?;
        self.remove_empty_above(&folder);
        Ok(())
    }

    /// Removes the folders above one that is gone, as far as they are empty.
    pub(super) fn remove_empty_above(&self, folder: &Path) {
        let models = self.models();
        for above in folder.ancestors().skip(1).take_while(|above| *above != models) {
            // A folder that is not empty stays, and so do those above it.
            if fs::remove_dir(above).is_err() {
                break;
            }
        }
    }
}

/// One path cannot be a file and a folder.
fn check_paths(files: &[FileRecord]) -> Result<()> {
    let mut paths: Vec<Vec<&str>> = files.iter().map(|file| file.path.components().collect()).collect();
    paths.sort_unstable();
    for pair in paths.windows(2) {
        if let [first, second] = pair
            && second.starts_with(first)
        {
            let path = first.join("/");
            return Err(Error::new(Code::IntegrityFailed, format!("the list of files names {path} twice"))
                .detail("path", path)
                .hint("do not use this model: its list of files is not an honest one"));
        }
    }
    Ok(())
}
