//! `rm`: plan, show, ask, remove.

use super::resolve::registered;
use crate::cli::rm::RmArgs;
use crate::context::Context;
use crate::error::{Code, Error, Result};
use crate::registry::Snapshot;
use crate::report::rm::{RemovedReport, RmReport};
use crate::store::{RemovalPlan, Store};

pub fn run(args: &RmArgs, context: &Context) -> Result<RmReport> {
    let store = Store::at(&context.settings.home.value);
    let mut snapshots: Vec<Snapshot> = Vec::new();
    for reference in &args.model {
        let snapshot = registered(reference, context)?;
        if !snapshots.iter().any(|known| known.id == snapshot.id) {
            snapshots.push(snapshot);
        }
    }
    if args.dry_run {
        let Some(registry) = store.registry()? else { return Ok(report(true, &[], 0)) };
        let plan = RemovalPlan::new(&registry, snapshots)?;
        return Ok(report(true, &plan.snapshots, plan.bytes().0));
    }
    let mut registry = store.create()?;
    let plan = RemovalPlan::new(&registry, snapshots)?;
    if !args.yes {
        context.output.plan(&report(true, &plan.snapshots, plan.bytes().0));
        let question = if plan.snapshots.len() == 1 { "remove this model?" } else { "remove these models?" };
        if !context.cancel.while_waiting(|| context.output.confirm(question))? {
            return Err(Error::new(Code::Interrupted, "nothing was removed"));
        }
    }
    let freed = store.remove(&mut registry, &plan)?;
    Ok(report(false, &plan.snapshots, freed.0))
}

fn report(dry_run: bool, snapshots: &[Snapshot], bytes_freed: u64) -> RmReport {
    let removed = snapshots
        .iter()
        .map(|snapshot| RemovedReport {
            reference: snapshot.name.to_string(),
            revision: snapshot.revision.to_string(),
            origin: snapshot.origin.as_str().to_owned(),
            path: snapshot.path().display().to_string(),
        })
        .collect();
    RmReport { dry_run, removed, bytes_freed }
}
