//! The Hugging Face hub cache.
//!
//! ```text
//! <hub>/models--<org>--<name>/blobs/<etag>              content; <etag>.incomplete: a download
//! <hub>/models--<org>--<name>/snapshots/<commit>/<path> symlinks into blobs/
//! <hub>/models--<org>--<name>/refs/<branch or tag>      a commit's name
//! ```

use std::path::{Path, PathBuf};

use super::payload::{add_below, folders_in};
use super::{Source, Survey};

/// A `hub` folder.
#[derive(Debug, Clone)]
pub struct HuggingFace(PathBuf);

impl HuggingFace {
    pub fn at(root: &Path) -> Self {
        Self(root.to_owned())
    }
}

impl Source for HuggingFace {
    fn name(&self) -> &'static str {
        "hf"
    }

    fn root(&self) -> &Path {
        &self.0
    }

    fn survey(&self) -> Survey {
        let mut survey = Survey::default();
        if self.0.read_dir().is_err() {
            survey.unreadable = 1;
        }
        for repository in folders_in(&self.0) {
            if repository.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"models--")) {
                survey.models += 1;
                // Where links are not possible the content lies in snapshots/.
                add_below(&repository, &mut survey, |entry| {
                    let inside = entry.path().strip_prefix(&repository).unwrap_or(entry.path());
                    (inside.starts_with("blobs") || inside.starts_with("snapshots"))
                        && entry.path().extension().is_none_or(|extension| extension != "incomplete")
                });
            }
        }
        survey
    }
}
