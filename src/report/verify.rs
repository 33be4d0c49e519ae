//! The report of `verify`.

use schemars::JsonSchema;
use serde::Serialize;

use super::Data;
use crate::error::Code;

/// What was checked and what was found.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct VerifyReport {
    /// Whether no content was read, only sizes, links, headers and what is remembered.
    pub quick: bool,
    /// Every model, and what caches hold beside their models if there is something to tell.
    pub checked: Vec<CheckedReport>,
    /// How many of them ended how.
    pub summary: VerifySummary,
    /// What `--repair` did; empty without it.
    pub repairs: Vec<RepairReport>,
    /// Bytes that were read; content with several names is read once.
    pub bytes_hashed: u64,
    /// Time that reading and comparing took.
    pub seconds: f64,
}

/// One model that was checked, or what a cache holds beside its models.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct CheckedReport {
    /// The model's name; the cache's folder for what it holds beside its models.
    pub reference: String,
    /// Which of its revisions; null if it has none.
    pub revision: Option<String>,
    /// `store`, `hf`, `ollama`, `lmstudio` or `folder`.
    pub source: String,
    /// Where it lies.
    pub path: String,
    /// How it is, after repairs if there were any.
    pub status: CheckedStatus,
    /// Files whose content is what it should be.
    pub files_ok: u64,
    /// Files without a fault whose content could not be compared: nothing is on record, or `--quick` was
    /// asked for and nothing is remembered.
    pub files_unverified: u64,
    /// Files that the cache's own listing has and that were never fetched; that is no fault.
    pub files_absent: u64,
    /// What is wrong with it.
    pub problems: Vec<ProblemReport>,
}

/// How a model is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CheckedStatus {
    /// All its content is what it should be.
    Ok,
    /// Some of it is not.
    Damaged,
    /// What is there is as it should be, but something is absent.
    Incomplete,
    /// Nothing wrong was found, but not all content could be compared with anything.
    Unknown,
}

/// One thing that is wrong.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ProblemReport {
    /// The file's path in the model, or in the cache.
    pub path: String,
    /// What kind of damage it is.
    pub kind: ProblemKind,
    /// The code of docs/errors.md that an error about it has: `BOUNDARY_VIOLATION` for what leads out of its
    /// folder, else `INTEGRITY_FAILED`.
    pub code: String,
    /// What should be there: `sha256:…`, `git-sha1:…`, a size, a mode, what a link should hold.
    pub expected: Option<String>,
    /// What is there instead; null if nothing is.
    pub actual: Option<String>,
    /// Where the fault lies on disk.
    pub file: String,
    /// What to do about it; null if `--repair` can.
    pub hint: Option<String>,
}

/// Kinds of damage. A file has the first one that fits, besides its mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProblemKind {
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

/// Counts of what was checked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct VerifySummary {
    /// With all content as it should be.
    pub ok: u64,
    /// With content that is not as it should be.
    pub damaged: u64,
    /// With something absent.
    pub incomplete: u64,
    /// Without a fault, but not all content could be compared.
    pub unknown: u64,
}

/// One thing that `--repair` was to make good.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct RepairReport {
    /// Where it lies.
    pub file: String,
    /// What it takes.
    pub action: RepairAction,
    /// Where the content comes from: a path, or the model's name on the hub; null for links and modes.
    pub from: Option<String>,
    /// Size of the content; 0 for links and modes.
    pub bytes: u64,
    /// Whether it was done; in a plan that is shown before, false.
    pub done: bool,
    /// Why it could not be done; null if it was, or was not tried yet.
    pub reason: Option<String>,
}

/// What `--repair` is about to do, as a person reads it before.
#[derive(Debug, Clone)]
pub struct RepairPlan(pub Vec<RepairReport>);

/// What a repair does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RepairAction {
    /// Copies good content from another place on this machine.
    Copy,
    /// Fetches good content from the hub.
    Fetch,
    /// Makes a link anew.
    Link,
    /// Sets a mode.
    Mode,
}

impl VerifySummary {
    pub fn of(checked: &[CheckedReport]) -> Self {
        let count = |status| checked.iter().filter(|it| it.status == status).count() as u64;
        Self {
            ok: count(CheckedStatus::Ok),
            damaged: count(CheckedStatus::Damaged),
            incomplete: count(CheckedStatus::Incomplete),
            unknown: count(CheckedStatus::Unknown),
        }
    }
}

impl Data for VerifyReport {
    /// That of INTEGRITY_FAILED if damage remains.
    fn exit_status(&self) -> u8 {
        match self.summary.damaged + self.summary.incomplete {
            0 => 0,
            _ => Code::IntegrityFailed.exit_status(),
        }
    }
}
