//! Removing models: a plan, and what is done by it.

use super::Store;
use crate::error::Result;
use crate::ids::{Bytes, Digest};
use crate::registry::{Registry, Snapshot};

/// What a removal would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemovalPlan {
    /// Snapshots that are forgotten. Of adopted ones nothing else happens.
    pub snapshots: Vec<Snapshot>,
    /// Blobs that nothing uses afterwards.
    pub blobs: Vec<(Digest, Bytes)>,
}

impl RemovalPlan {
    /// The plan for these snapshots.
    pub fn new(registry: &Registry, snapshots: Vec<Snapshot>) -> Result<Self> {
        let blobs = registry.blobs_only_of(&rows(&snapshots))?;
        Ok(Self { snapshots, blobs })
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
