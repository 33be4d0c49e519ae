//! What the registry knows.

use std::path::PathBuf;

use jiff::Timestamp;

use crate::fs::FileStamp;
use crate::ids::{Bytes, Digest, ModelName, Revision, SnapshotPath};

macro_rules! words {
    ($(#[$note:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident $word:literal,)* }) => {
        $(#[$note])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$doc])* $variant,)* }

        impl $name {
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            pub fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

pub(super) use words;

words! {
    /// What a model is for.
    Kind {
        /// Answers with text.
        Generation "generation",
        /// Turns text into vectors.
        Embedding "embedding",
        Other "other",
    }
}

words! {
    /// Where a snapshot's files lie and who owns them.
    Origin {
        /// Copied into the store from a folder or file.
        Copied "copied",
        /// Fetched from the Hugging Face Hub.
        Hub "hub",
        /// Adopted in a Hugging Face cache.
        HuggingFaceCache "hf",
        /// Adopted among Ollama's models.
        Ollama "ollama",
        /// Adopted in a folder of LM Studio.
        LmStudio "lmstudio",
        /// Adopted in any other folder.
        Folder "folder",
    }
}

impl Origin {
    /// Whether the content lies in the store, so that it goes when the model is removed.
    pub fn is_stored(self) -> bool {
        matches!(self, Self::Copied | Self::Hub)
    }
}

/// What reading a model's headers told about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    pub kind: Kind,
    /// `model_type` of config.json or `general.architecture` of a GGUF.
    pub architecture: Option<String>,
    /// Number of weights.
    pub parameters: Option<u64>,
    /// As its format names it, such as `Q4_0`, `4-bit` or `bf16`.
    pub quantization: Option<String>,
    /// In tokens.
    pub context_length: Option<u64>,
}

/// One file of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRecord {
    pub path: SnapshotPath,
    pub digest: Digest,
    pub bytes: u64,
    /// Identity of the content when it was last hashed: of the adopted file, or of the blob. Nothing
    /// if it was not hashed since.
    pub stamp: Option<FileStamp>,
}

/// A snapshot to be registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSnapshot {
    pub name: ModelName,
    pub revision: Revision,
    pub origin: Origin,
    /// The folder that the paths of the files start from; absolute.
    pub root: PathBuf,
    /// The file below `root` that is loaded, if it is no folder: the first one of a model in parts.
    pub entry: Option<SnapshotPath>,
    pub facts: Facts,
    pub files: Vec<FileRecord>,
}

/// A registered snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its row.
    pub id: i64,
    pub name: ModelName,
    pub revision: Revision,
    pub origin: Origin,
    /// The folder that the paths of its files start from; absolute.
    pub root: PathBuf,
    /// The file below `root` that is loaded, if it is no folder: the first one of a model in parts.
    pub entry: Option<SnapshotPath>,
    pub facts: Facts,
    /// Of all files.
    pub bytes: Bytes,
    pub file_count: u64,
    pub added_at: Timestamp,
    pub last_used: Option<Timestamp>,
    /// Branches and tags of its repository that it was when they were last asked for.
    pub branches: Vec<String>,
}

impl Snapshot {
    /// What a program loads: the folder, or the one file or first part.
    pub fn path(&self) -> PathBuf {
        match &self.entry {
            Some(entry) => self.root.join(entry),
            None => self.root.clone(),
        }
    }
}
