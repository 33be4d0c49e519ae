//! Ollama's models.
//!
//! ```text
//! <models>/manifests/<host>/<namespace>/<name>/<tag>    JSON: the layers of one model
//! <models>/blobs/sha256-<64 hex>                        a layer; …-partial…: a download
//! ```

use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use super::payload::add_below;
use super::{Source, Survey};

/// Where Ollama's installer for Linux lets its system service keep the models.
pub(super) const SYSTEM_ROOT: &str = "/usr/share/ollama/.ollama/models";

/// A `models` folder.
#[derive(Debug, Clone)]
pub struct Ollama(PathBuf);

impl Ollama {
    pub fn at(root: &Path) -> Self {
        Self(root.to_owned())
    }
}

impl Source for Ollama {
    fn name(&self) -> &'static str {
        "ollama"
    }

    fn root(&self) -> &Path {
        &self.0
    }

    fn survey(&self) -> Survey {
        let mut survey = Survey::default();
        let manifests = self.0.join("manifests");
        if manifests.is_dir() {
            for entry in WalkDir::new(&manifests).min_depth(4).max_depth(4) {
                match entry {
                    Ok(entry) if entry.file_type().is_file() => survey.models += 1,
                    Ok(_) => {}
                    Err(_) => survey.unreadable += 1,
                }
            }
        }
        if self.0.join("blobs").is_dir() {
            add_below(&self.0.join("blobs"), &mut survey, |entry| {
                let name = entry.file_name().to_string_lossy();
                name.starts_with("sha256-") && !name.contains("-partial")
            });
        }
        survey
    }
}
