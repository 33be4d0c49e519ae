//! Removing models: a plan, and what is done by it.

use std::collections::{BTreeMap, BTreeSet};

use super::Store;
use crate::error::Result;
use crate::ids::{Bytes, Digest};
use crate::registry::{Link, Registry, Snapshot};

/// What a removal would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemovalPlan {
    /// Snapshots that are forgotten. Of adopted ones nothing else happens.
    pub snapshots: Vec<Snapshot>,
    /// Blobs that nothing uses afterwards.
    pub blobs: Vec<(Digest, Bytes)>,
    /// Links in other tools' folders to content that only these snapshots have: they must go first.
    pub links: Vec<Link>,
    /// For each of the snapshots, how much of it stays in the store because others use it.
    pub shared: Vec<Bytes>,
}

impl RemovalPlan {
    /// The plan for these snapshots.
    pub fn new(registry: &Registry, snapshots: Vec<Snapshot>) -> Result<Self> {
        let blobs = registry.blobs_only_of(&rows(&snapshots))?;
        let freed: BTreeSet<Digest> = blobs.iter().map(|(digest, _)| *digest).collect();
        let shared = |snapshot: &Snapshot| {
            if !snapshot.origin.is_stored() {
                return Ok(Bytes::default());
            }
            let files = registry.files(snapshot.id)?;
            let staying: BTreeMap<Digest, u64> = files
                .iter()
                .map(|file| (file.digest, file.bytes))
                .filter(|(digest, _)| !freed.contains(digest))
                .collect();
            Ok(Bytes(staying.values().sum()))
        };
        let shared = snapshots.iter().map(shared).collect::<Result<_>>()?;
        let links = registry.links_only_of(&rows(&snapshots))?;
        Ok(Self { snapshots, blobs, links, shared })
    }

    /// What it frees.
    pub fn bytes(&self) -> Bytes {
        self.blobs.iter().map(|(_, bytes)| *bytes).sum()
    }
}

impl Store {
    /// Does what the plan says; returns the bytes freed. A blob that came into use since the plan was
    /// made stays.
    pub fn remove(&self, registry: &mut Registry, plan: &RemovalPlan) -> Result<Bytes> {
        let _lock = self.lock()?;
        let unused = registry.remove(&rows(&plan.snapshots))?;
        for snapshot in plan.snapshots.iter().filter(|snapshot| snapshot.origin.is_stored()) {
            self.remove_links(&snapshot.name, &snapshot.revision)?;
        }
        let mut freed = Bytes::default();
        for (digest, bytes) in unused {
            if self.remove_blob(&digest)? {
                freed += bytes;
            }
        }
        Ok(freed)
    }
}

fn rows(snapshots: &[Snapshot]) -> Vec<i64> {
    snapshots.iter().map(|snapshot| snapshot.id).collect()
}
