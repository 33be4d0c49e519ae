//! The report of `recommend`, and of `mlx-cache` alone.

use schemars::JsonSchema;
use serde::Serialize;

use super::Data;
use super::status::{SourceStatus, StoreStatus};

/// What is on this machine, and models that fit it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct RecommendReport {
    /// What models would run on.
    pub machine: MachineReport,
    /// Our own store.
    pub store: StoreStatus,
    /// The caches of other tools that exist on this machine.
    pub sources: Vec<SourceStatus>,
    /// Disk space that `dedupe` would give back, as `status` estimates it.
    pub reclaimable_bytes: u64,
    /// Well-known models: those that fit, or all if asked; by use, the better ones last.
    pub models: Vec<RecommendedReport>,
    /// Commands that are worth typing next, in this order.
    pub next: Vec<String>,
}

/// What models run on.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct MachineReport {
    /// Where models compute.
    pub device: Device,
    /// Its name, if it tells one.
    pub device_name: Option<String>,
    /// Bytes of memory that a model can take, no more than the limit in the settings.
    pub free_memory_bytes: u64,
    /// Bytes of memory in all.
    pub total_memory_bytes: u64,
    /// Bytes free on the filesystem that holds the store.
    pub free_disk_bytes: u64,
}

/// Where models compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Device {
    Gpu,
    Cpu,
}

/// A well-known model.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct RecommendedReport {
    /// Its short name, which every command takes.
    pub name: String,
    /// Its repository.
    pub reference: String,
    /// What it is for.
    #[serde(rename = "use")]
    pub purpose: Use,
    /// Number of parameters.
    pub parameters: u64,
    /// Bytes to fetch, about.
    pub bytes: u64,
    /// Bytes of memory with a context of 4096 tokens, about.
    pub memory_bytes: u64,
    /// Whether that is at most 70 % of the free memory.
    pub fits: bool,
    /// Whether it would answer slower than one reads, since a CPU computes.
    pub slow: bool,
}

/// What a model is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Use {
    /// A first try, or answers at once.
    Quick,
    /// Conversation and general questions.
    Chat,
    /// Programming.
    Code,
    /// Vectors of texts.
    Embed,
}

impl Data for RecommendReport {}
