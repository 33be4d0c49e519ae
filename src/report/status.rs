//! The report of `status`.

use schemars::JsonSchema;
use serde::Serialize;

use super::Data;

/// What there is and how much room is left.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct StatusReport {
    /// Our own store.
    pub store: StoreStatus,
    /// The caches of other tools that exist on this machine.
    pub sources: Vec<SourceStatus>,
    /// Disk space that `dedupe` would give back, as far as names and what was read before tell: an
    /// estimate, since nothing is read for it.
    pub reclaimable_bytes: u64,
    /// The filesystem that holds the store.
    pub disk: DiskStatus,
}

/// The store.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct StoreStatus {
    /// Its folder, whether it exists yet or not.
    pub path: String,
    /// Bytes of content in the store; adopted models lie elsewhere and do not count.
    pub bytes: u64,
    /// Registered models, adopted ones included.
    pub models: u64,
    /// Distinct contents in the store.
    pub blobs: u64,
}

/// A cache of another tool.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct SourceStatus {
    /// `hf`, `ollama` or `lmstudio`.
    pub name: String,
    /// Its folder.
    pub path: String,
    /// Models in it.
    pub models: u64,
    /// Bytes of its whole files, each counted once; unfinished downloads do not count.
    pub bytes: u64,
    /// Folders in it that could not be read, so that the figures are too small.
    pub unreadable: u64,
    /// Whether it belongs to this user; others' caches are never changed.
    pub own: bool,
}

/// Space on a filesystem.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct DiskStatus {
    /// Bytes that this user may still write.
    pub free: u64,
    /// Bytes in all.
    pub total: u64,
}

impl Data for StatusReport {}
