//! Foreign caches: folders of models that other tools own. Everything here only reads.

mod bounds;
mod folder;
mod hf;
mod lmstudio;
mod ollama;
mod plain;
mod record;
mod scan;
mod walk;

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::cancel::Cancel;
use crate::error::Result;
use crate::fs::own_user;
use crate::ids::ModelName;

pub use folder::{Folder, folder};
pub use hf::HuggingFace;
pub use lmstudio::LmStudio;
pub use ollama::{Instructions, Ollama};
pub use scan::{Checksum, Expected, Fault, ForeignFile, ForeignModel, PassedOver, Payload, Scan};

/// Why files of others stay as they are.
const ANOTHER_USERS: &str = "it belongs to another user";

/// Where the caches of this user lie, whether they exist or not.
#[derive(Debug, Clone)]
pub struct Locations {
    /// Hugging Face's `hub` folder.
    pub hugging_face: PathBuf,
    /// Ollama's `models` folder.
    pub ollama: PathBuf,
    /// LM Studio's `models` folder.
    pub lm_studio: PathBuf,
    /// The store of this program: a link into it is one that dedupe made.
    pub store: PathBuf,
}

/// One foreign cache.
pub trait Source: fmt::Debug {
    /// The word by which commands and reports call this kind of cache.
    fn name(&self) -> &'static str;

    /// Its folder.
    fn root(&self) -> &Path;

    /// Looks at every name in it. Reads manifests and listings, which are small, but no content; follows
    /// links only to see where they lead.
    ///
    /// What cannot be read or understood is told in the scan. INTERRUPTED once `cancel` is set.
    fn scan(&self, cancel: &Cancel) -> Result<Scan>;

    /// A scan for those who only ask which files there are, in no order: models may be missing from it.
    fn files(&self, cancel: &Cancel) -> Result<Scan> {
        self.scan(cancel)
    }

    /// Looks only at the model with this name: a scan without any other. Quick, however much the cache holds.
    fn find(&self, name: &ModelName, cancel: &Cancel) -> Result<Scan>;

    /// Whether the folder belongs to the user who runs this program: others' are not to be changed.
    fn is_own(&self) -> bool {
        fs::metadata(self.root()).is_ok_and(|found| found.uid() == own_user())
    }
}

/// What a foreign cache holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Survey {
    pub models: u64,
    /// Of all whole files, each counted once however many names it has.
    pub bytes: u64,
    /// Folders and files that could not be looked into.
    pub unreadable: u64,
}

/// The caches that exist, in a fixed order.
pub fn present(locations: &Locations) -> Vec<Box<dyn Source>> {
    let store = &locations.store;
    let mut sources: Vec<Box<dyn Source>> = vec![
        Box::new(HuggingFace::at(&locations.hugging_face, store)),
        Box::new(Ollama::at(&locations.ollama, store)),
    ];
    if locations.ollama != Path::new(ollama::SYSTEM_ROOT) {
        sources.push(Box::new(Ollama::at(Path::new(ollama::SYSTEM_ROOT), store)));
    }
    sources.push(Box::new(LmStudio::at(&locations.lm_studio, store)));
    sources.retain(|source| source.root().is_dir());
    sources
}

/// A fault in words.
fn reason_of(fault: &Fault) -> String {
    match fault {
        Fault::Missing => "nothing is there".to_owned(),
        Fault::Dangling(held) => format!("a link to nothing: {}", held.display()),
        Fault::Escaping(held) => format!("a link that leads out of the cache: {}", held.display()),
        Fault::NotAFile => "a link to what is no regular file".to_owned(),
        Fault::Unreadable(reason) => format!("cannot be read: {reason}"),
    }
}

#[cfg(test)]
mod tests;
