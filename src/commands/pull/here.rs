//! Models for which nobody needs to be asked.

use std::time::Instant;

use super::request::{Choice, Wanted};
use super::whole_files;
use crate::context::Context;
use crate::error::Result;
use crate::ids::{Checksum, RevisionSpec};
use crate::registry::{Registry, Snapshot};
use crate::report::pull::{Action, ActionReport, PulledReport};
use crate::store::Store;

/// The model, if it is here whole and the network cannot tell anything new about it: a commit is what it
/// is, and offline what is here has to do.
pub fn find(
    wanted: &Wanted,
    store: &Store,
    registry: Option<&Registry>,
    context: &Context,
    started: Instant,
) -> Result<Option<PulledReport>> {
    let Some(registry) = registry else { return Ok(None) };
    let asked = wanted.revision.as_ref().map_or("main", RevisionSpec::as_str);
    let is_commit = asked.len() == 40 && matches!(asked.parse(), Ok(Checksum::GitSha1(_)));
    if !is_commit && !context.settings.offline.value {
        return Ok(None);
    }
    let is_meant = |snapshot: &&Snapshot| match &wanted.revision {
        Some(revision) => {
            snapshot.revision.matches(revision) || snapshot.branches.iter().any(|branch| branch == asked)
        }
        None => true,
    };
    for snapshot in registry.snapshots_of(&wanted.name)?.iter().filter(is_meant) {
        // A model that was not pulled is what it is.
        let is_whole = registry.has_choice(snapshot.id, &wanted.choice.key())?
            || (wanted.choice == Choice::default() && !snapshot.origin.is_stored());
        if is_whole && let Some(files) = whole_files(snapshot, store, registry)? {
            let actions = files.iter().map(|file| ActionReport {
                path: file.path.to_string(),
                bytes: file.bytes,
                action: Action::Present,
                from: None,
            });
            return Ok(Some(PulledReport {
                reference: snapshot.name.to_string(),
                revision: snapshot.revision.to_string(),
                requested_revision: asked.to_owned(),
                endpoint: context.settings.hf_endpoint.value.clone(),
                snapshot_path: snapshot.root.display().to_string(),
                files: snapshot.file_count,
                bytes_total: snapshot.bytes.0,
                bytes_downloaded: 0,
                bytes_reused: snapshot.bytes.0,
                bytes_resumed: 0,
                seconds: started.elapsed().as_secs_f64(),
                already_present: true,
                actions: actions.collect(),
            }));
        }
    }
    Ok(None)
}
