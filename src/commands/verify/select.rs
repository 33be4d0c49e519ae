//! What is to be checked.

use std::collections::BTreeSet;

use crate::cli::verify::{SourceChoice, VerifyArgs};
use crate::commands::resolve::registered;
use crate::context::Context;
use crate::error::Result;
use crate::ids::Digest;
use crate::registry::{Registry, Snapshot};
use crate::store::Store;
use crate::verify::{self, Verification};

/// What a command line asks to check.
#[derive(Debug, Default)]
pub(super) struct Selection {
    /// These registered snapshots.
    snapshots: Vec<Snapshot>,
    /// The store's own folder and what no snapshot uses.
    rest_of_store: bool,
}

impl Selection {
    pub fn new(args: &VerifyArgs, context: &Context) -> Result<Self> {
        let store = Store::at(&context.settings.home.value);
        let mut selection = Self::default();
        for reference in &args.model {
            for snapshot in registered(reference, context)? {
                if !selection.snapshots.iter().any(|known| known.id == snapshot.id) {
                    selection.snapshots.push(snapshot);
                }
            }
        }
        if args.model.is_empty() && args.path.is_empty() {
            let wants = |source| args.source.contains(&source) || args.source.contains(&SourceChoice::All);
            let all = args.source.is_empty() || args.source.contains(&SourceChoice::All);
            selection.snapshots = store.snapshots()?;
            selection
                .snapshots
                .retain(|snapshot| all || (wants(SourceChoice::Store) && snapshot.origin.is_stored()));
            selection.rest_of_store = all || wants(SourceChoice::Store);
        }
        Ok(selection)
    }

    /// The subjects as they are now.
    pub fn subjects(
        &self,
        store: &Store,
        registry: Option<&Registry>,
        context: &Context,
    ) -> Result<Verification> {
        let mut verification = Verification::default();
        if let Some(registry) = registry {
            for snapshot in &self.snapshots {
                context.cancel.check()?;
                let subject = if snapshot.origin.is_stored() {
                    verify::stored(store, registry, snapshot, &mut verification.contents)?
                } else {
                    verify::adopted(registry, snapshot, &mut verification.contents)?
                };
                verification.subjects.push(subject);
            }
        }
        if self.rest_of_store {
            let used: BTreeSet<Digest> = match registry {
                Some(registry) => registry.snapshot_digests()?,
                None => BTreeSet::new(),
            };
            let rest = verify::rest_of_store(store, &used, &mut verification.contents)?;
            verification.subjects.extend(rest);
        }
        Ok(verification)
    }
}
