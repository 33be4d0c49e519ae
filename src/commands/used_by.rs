//! Which tools have the content of a model.

use std::collections::BTreeSet;

use super::foreign::Foreign;
use super::status::present_sources;
use crate::context::Context;
use crate::error::Result;
use crate::ids::Digest;
use crate::registry::{FileRecord, Registry};
use crate::sources::{Checksum, Scan};

/// The largest file of a model: who has it has the model.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bulk {
    digest: Digest,
    bytes: u64,
}

impl Bulk {
    /// Of a registered model.
    pub fn of_files(files: &[FileRecord]) -> Option<Self> {
        let largest = files.iter().max_by_key(|file| file.bytes)?;
        Some(Self { digest: largest.digest, bytes: largest.bytes })
    }

    /// Of a model of another tool, as far as that tool's records claim it.
    pub fn of_foreign(model: &Foreign) -> Option<Self> {
        let (digest, bytes) = model.largest?;
        Some(Self { digest, bytes })
    }
}

/// The tools that have this content, by what their caches claim now, by what is remembered of files
/// without a name that tells, and by what the registry knows of links and of the last look.
pub(super) fn used_by(bulk: Option<Bulk>, context: &Context) -> Result<Vec<String>> {
    let Some(bulk) = bulk else { return Ok(Vec::new()) };
    let registry = Registry::open(&context.settings.home.value)?;
    let mut tools: BTreeSet<String> = match &registry {
        Some(registry) => registry.apps_using(&[bulk.digest])?,
        None => BTreeSet::new(),
    };
    for source in present_sources(&context.settings) {
        if !tools.contains(source.name()) && has(&source.scan(&context.cancel)?, bulk, registry.as_ref())? {
            tools.insert(source.name().to_owned());
        }
    }
    Ok(tools.into_iter().collect())
}

fn has(scan: &Scan, bulk: Bulk, registry: Option<&Registry>) -> Result<bool> {
    for payload in scan.payloads.iter().filter(|payload| payload.entry.stamp.bytes == bulk.bytes) {
        let digest = match (payload.claimed, registry) {
            (Some(Checksum::Sha256(digest)), _) => Some(digest),
            (_, Some(registry)) => registry.remembered_digest(&payload.entry.stamp)?,
            (_, None) => None,
        };
        if digest == Some(bulk.digest) {
            return Ok(true);
        }
    }
    Ok(false)
}
