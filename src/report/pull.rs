//! The report of `pull`, and the events of `pull --progress-json`.

use schemars::JsonSchema;
use serde::Serialize;

use super::Data;

/// The models that were pulled.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct PullReport {
    /// Whether this is what would be done: nothing was fetched.
    pub dry_run: bool,
    /// In the order of the arguments.
    pub models: Vec<PulledReport>,
}

/// One model.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct PulledReport {
    /// The name to use in other commands.
    pub reference: String,
    /// The commit.
    pub revision: String,
    /// The branch, tag or commit that was asked for.
    pub requested_revision: String,
    /// The hub that it comes from.
    pub endpoint: String,
    /// The folder in which programs find its files.
    pub snapshot_path: String,
    /// Number of the files that were chosen.
    pub files: u64,
    /// Size of the files that were chosen, each content counted once.
    pub bytes_total: u64,
    /// Content that came over the network, in a dry run what would have to.
    pub bytes_downloaded: u64,
    /// Content that was on this machine, whole: in the store, or in another tool's cache.
    pub bytes_reused: u64,
    /// Content that an earlier, interrupted pull had fetched.
    pub bytes_resumed: u64,
    /// From the first look at the hub to the end.
    pub seconds: f64,
    /// Whether everything was here already, so that nothing was fetched or copied.
    pub already_present: bool,
    /// What was done for each file, in order of their paths.
    pub actions: Vec<ActionReport>,
}

/// What is done for one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ActionReport {
    /// Path in the repository.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// Where the content comes from.
    pub action: Action,
    /// Where the copy is made from, if one is made.
    pub from: Option<String>,
}

/// Where the content of a file comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It is in the store.
    Present,
    /// It is copied, or cloned, from another place on this machine.
    Reuse,
    /// The rest of it comes over the network.
    Resume,
    /// All of it comes over the network.
    Download,
}

/// One line of `--progress-json`; the envelope is the last line.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum PullEvent {
    /// What a model takes, before anything is fetched.
    Plan {
        /// The model.
        reference: String,
        /// The commit.
        revision: String,
        /// Number of its files.
        files: u64,
        /// Size of its files.
        bytes_total: u64,
        /// What has to come over the network.
        bytes_to_download: u64,
    },
    /// Something happens to a file.
    File {
        /// The model.
        reference: String,
        /// Path in the repository.
        path: String,
        /// What happens.
        state: FileState,
    },
    /// How far it is, a few times in a second.
    Progress {
        /// The model.
        reference: String,
        /// Bytes that are here, whether fetched, copied or here before.
        bytes_done: u64,
        /// Size of the model.
        bytes_total: u64,
        /// Of the network, lately.
        bytes_per_second: u64,
    },
    /// Something failed and is tried again.
    Retry {
        /// The model.
        reference: String,
        /// Path in the repository.
        path: String,
        /// What failed.
        reason: String,
        /// Until the next try.
        seconds: f64,
    },
}

/// What happens to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FileState {
    /// Another process fetches it; this one waits.
    Waiting,
    /// It is being fetched or copied.
    Started,
    /// It is whole and checked.
    Done,
}

impl Data for PullReport {}
