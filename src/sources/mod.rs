//! Foreign caches: folders of models that other tools own. Everything here only reads.

mod hf;
mod lmstudio;
mod ollama;
mod payload;
mod scan;

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

pub use hf::HuggingFace;
pub use lmstudio::LmStudio;
pub use ollama::Ollama;
pub use scan::{Checksum, Expected, Fault, ForeignFile, ForeignModel, PassedOver, Payload, Scan};

/// Where the caches of this user lie, whether they exist or not.
#[derive(Debug, Clone)]
pub struct Locations {
    /// Hugging Face's `hub` folder.
    pub hugging_face: PathBuf,
    /// Ollama's `models` folder.
    pub ollama: PathBuf,
    /// LM Studio's `models` folder.
    pub lm_studio: PathBuf,
}

/// One foreign cache.
pub trait Source: fmt::Debug {
    /// The word by which commands and reports call this kind of cache.
    fn name(&self) -> &'static str;

    /// Its folder.
    fn root(&self) -> &Path;

    /// Counts what it holds, without opening a file.
    fn survey(&self) -> Survey;

    /// Whether the folder belongs to the user who runs this program: others' are not to be changed.
    fn is_own(&self) -> bool {
        let user = rustix::process::geteuid().as_raw();
        fs::metadata(self.root()).is_ok_and(|found| found.uid() == user)
    }
}

/// What a foreign cache holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Survey {
    pub models: u64,
    /// Of all whole files, each counted once however many names it has.
    pub bytes: u64,
    /// Folders that could not be read.
    pub unreadable: u64,
}

/// The caches that exist, in a fixed order.
pub fn present(locations: &Locations) -> Vec<Box<dyn Source>> {
    let mut sources: Vec<Box<dyn Source>> =
        vec![Box::new(HuggingFace::at(&locations.hugging_face)), Box::new(Ollama::at(&locations.ollama))];
    if locations.ollama != Path::new(ollama::SYSTEM_ROOT) {
        sources.push(Box::new(Ollama::at(Path::new(ollama::SYSTEM_ROOT))));
    }
    sources.push(Box::new(LmStudio::at(&locations.lm_studio)));
    sources.retain(|source| source.root().is_dir());
    sources
}

#[cfg(test)]
mod tests;
