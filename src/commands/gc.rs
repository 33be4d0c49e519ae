//! `gc`: plan, show, ask, remove.

use crate::cli::gc::GcArgs;
use crate::context::Context;
use crate::error::{Code, Error, Result};
use crate::report::gc::{CollectedKind, CollectedReport, GcReport};
use crate::report::rm::KeptReport;
use crate::store::{Garbage, GarbageKind, Kept, Store};

pub fn run(args: &GcArgs, context: &Context) -> Result<GcReport> {
    let store = Store::at(&context.settings.home.value);
    if !store.home().exists() {
        return Ok(report(args.dry_run, &[], &[]));
    }
    // A store with models that has lost its registry is an error: everything would seem unused.
    let mut registry = store.registry()?;
    let plan = store.garbage(registry.as_ref(), args.older_than)?;
    let planned = report(true, &plan.garbage, &plan.kept);
    if args.dry_run {
        return Ok(planned);
    }
    if plan.garbage.is_empty() {
        return Ok(report(false, &[], &plan.kept));
    }
    if !args.yes {
        context.output.plan(&planned);
        if !context.cancel.while_waiting(|| context.output.confirm("remove all this?"))? {
            context.output.note("nothing was removed");
            return Err(Error::new(Code::Interrupted, "not confirmed"));
        }
    }
    let gone = store.collect(registry.as_mut(), &plan, args.older_than)?;
    Ok(report(false, &gone, &plan.kept))
}

fn report(dry_run: bool, garbage: &[Garbage], kept: &[Kept]) -> GcReport {
    let removed = garbage.iter().map(|garbage| CollectedReport {
        kind: match garbage.kind {
            GarbageKind::Blob(_) => CollectedKind::Blob,
            GarbageKind::Unfinished => CollectedKind::Unfinished,
            GarbageKind::Download => CollectedKind::Download,
            GarbageKind::Folder => CollectedKind::Folder,
            GarbageKind::Lock => CollectedKind::Lock,
        },
        path: garbage.path.display().to_string(),
        bytes: garbage.bytes.0,
    });
    let kept = kept
        .iter()
        .map(|kept| KeptReport { reference: kept.path.display().to_string(), reason: kept.reason.clone() });
    GcReport {
        dry_run,
        removed: removed.collect(),
        bytes_freed: garbage.iter().map(|garbage| garbage.bytes.0).sum(),
        kept: kept.collect(),
    }
}
