//! What can be wrong.

use std::path::PathBuf;

use crate::error::Code;
use crate::fs::FileStamp;
use crate::ids::{Digest, Host, ModelName, Revision, SnapshotPath};
use crate::sources::Checksum;

/// Kinds of damage. The first that fits is told, from the most telling on; a file has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// The file, or the content that its link names, is not there.
    Missing,
    /// A file that an index or a numbered set names is not there.
    MissingShard,
    /// A download that did not come to its end.
    Unfinished,
    /// A link leads to nothing.
    DanglingLink,
    /// A link, or a name in an index, leads out of the folders it may touch.
    EscapingLink,
    /// A link leads to other content than it should.
    WrongLink,
    /// A folder, device or pipe is in the place of a file.
    NotAFile,
    /// It cannot be read.
    Unreadable,
    /// A pointer of git-lfs is in the place of the content.
    LfsPointer,
    /// Shorter than it should be.
    Truncated,
    /// The header of a safetensors or GGUF file, or an index, does not fit the file.
    BrokenHeader,
    /// The content is whole, but it is that of another name.
    WrongName,
    /// The content is not what it was, or what its name says.
    Changed,
    /// A record of the cache itself, such as a manifest, cannot be understood.
    BrokenRecord,
    /// Others may read the store, or content may be written.
    WrongMode,
}

impl Kind {
    /// The code that an error about it has.
    pub fn code(self) -> Code {
        match self {
            Self::EscapingLink => Code::BoundaryViolation,
            _ => Code::IntegrityFailed,
        }
    }

    /// Whether something is only absent, and what there is is as it should be.
    pub fn is_absence(self) -> bool {
        matches!(self, Self::Missing | Self::MissingShard | Self::Unfinished | Self::DanglingLink)
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file's path in its model, or in the cache.
    pub path: String,
    /// Where the fault lies on disk; absolute.
    pub place: PathBuf,
    pub kind: Kind,
    pub expected: Option<String>,
    pub actual: Option<String>,
    pub remedy: Remedy,
}

/// What would make it good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remedy {
    /// This content at this place, in place of what is there.
    Content(Needed),
    /// A link that holds this.
    Link { link: PathBuf, target: PathBuf },
    /// This mode.
    Mode { path: PathBuf, mode: u32 },
    /// What to do by hand.
    Advice(String),
}

/// Content that is needed again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needed {
    pub target: Target,
    pub checksum: Checksum,
    pub bytes: Option<u64>,
    /// The file on the hub that has this content.
    pub hub: Option<HubFile>,
}

/// A file of a commit on the hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubFile {
    pub name: ModelName,
    /// The commit.
    pub revision: Revision,
    pub path: SnapshotPath,
}

impl HubFile {
    /// The file, if the model is one of the hub's and its revision a commit.
    pub fn new(name: &ModelName, revision: &Revision, path: &SnapshotPath) -> Option<Self> {
        (name.host() == Host::HuggingFace && revision.is_commit()).then(|| Self {
            name: name.clone(),
            revision: revision.clone(),
            path: path.clone(),
        })
    }
}

/// Where content belongs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// A blob of the store.
    Blob(Digest),
    /// A file of another tool's cache whose name is the checksum of its content. With the identity of what
    /// is there now; nothing if nothing is.
    Foreign {
        /// The tool's folder, which the path does not leave.
        root: PathBuf,
        path: PathBuf,
        present: Option<StampKey>,
    },
}

/// A file's identity as part of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StampKey(pub u64, pub u64, pub u64, pub i64);

impl From<&FileStamp> for StampKey {
    fn from(stamp: &FileStamp) -> Self {
        Self(stamp.device, stamp.inode, stamp.bytes, stamp.modified_ns)
    }
}
