//! `rm`: plan, show, ask, remove.

use std::path::Path;

use super::resolve::registered;
use crate::cli::rm::RmArgs;
use crate::context::Context;
use crate::dedupe::{self, Selection, Undone, Watch};
use crate::error::{Code, Error, Result};
use crate::ids::Bytes;
use crate::registry::{Link, Registry, Snapshot};
use crate::report::rm::{KeptReport, RemovedReport, RmReport};
use crate::store::{RemovalPlan, Store};

pub fn run(args: &RmArgs, context: &Context) -> Result<RmReport> {
    let store = Store::at(&context.settings.home.value);
    let mut snapshots: Vec<Snapshot> = Vec::new();
    for reference in &args.model {
        for snapshot in registered(reference, context)? {
            if !snapshots.iter().any(|known| known.id == snapshot.id) {
                snapshots.push(snapshot);
            }
        }
    }
    let Some(mut registry) = store.registry()? else {
        return Err(Error::internal("a model of a registry that is not there"));
    };
    let mut plan = RemovalPlan::new(&registry, snapshots)?;
    if !args.restore_links {
        refuse_linked(&plan)?;
    }
    let planned = report(true, &plan, plan.bytes());
    if args.dry_run {
        return Ok(planned);
    }
    if !args.yes {
        context.output.plan(&planned);
        let question = if plan.snapshots.len() == 1 { "remove this model?" } else { "remove these models?" };
        if !context.cancel.while_waiting(|| context.output.confirm(question))? {
            context.output.note("nothing was removed");
            return Err(Error::new(Code::Interrupted, "not confirmed"));
        }
    }
    let links = std::mem::take(&mut plan.links);
    if !links.is_empty() {
        restore(&links, &store, &mut registry, context)?;
        plan = RemovalPlan::new(&registry, plan.snapshots)?;
        // Somebody may have linked more meanwhile.
        refuse_linked(&plan)?;
    }
    let freed = store.remove(&mut registry, &plan)?;
    plan.links = links;
    Ok(report(false, &plan, freed))
}

/// Gives other tools files of their own in place of links.
fn restore(links: &[Link], store: &Store, registry: &mut Registry, context: &Context) -> Result<()> {
    let contents = links.iter().map(|link| link.new.digest).collect();
    let plan = dedupe::plan_undo(store, registry, &Selection::Contents(contents))?;
    for undone in dedupe::undo(store, registry, &plan, &Watcher(context))? {
        if let Undone::Kept(reason) = undone.outcome {
            let path = undone.link.new.path;
            return Err(Error::new(Code::Locked, format!("{} stays a link: {reason}", path.display()))
                .detail("path", path.display().to_string())
                .hint("nothing was removed; see to the file, then try again"));
        }
    }
    Ok(())
}

/// Tells `--verbose` what is done, and ends the work when the user asks for it.
struct Watcher<'a>(&'a Context);

impl Watch for Watcher<'_> {
    fn check(&self) -> Result<()> {
        self.0.cancel.check()
    }

    fn step(&self, step: &'static str, path: &Path) {
        self.0.output.detail(format!("{step}: {}", path.display()));
    }
}

/// Other tools' files may lead to what is to be removed.
fn refuse_linked(plan: &RemovalPlan) -> Result<()> {
    let Some(first) = plan.links.first() else { return Ok(()) };
    let more = match plan.links.len() - 1 {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let message =
        format!("{}{more} would lose their content: they are links to it", first.new.path.display());
    let paths: Vec<String> = plan.links.iter().map(|link| link.new.path.display().to_string()).collect();
    Err(Error::new(Code::Locked, message)
        .detail("links", paths)
        .hint("give these tools files of their own first, with --restore-links"))
}

fn report(dry_run: bool, plan: &RemovalPlan, freed: Bytes) -> RmReport {
    let removed = plan.snapshots.iter().map(|snapshot| RemovedReport {
        reference: snapshot.name.to_string(),
        revision: snapshot.revision.to_string(),
        origin: snapshot.origin.as_str().to_owned(),
        path: snapshot.path().display().to_string(),
    });
    let kept = plan.snapshots.iter().zip(&plan.shared).filter_map(|(snapshot, shared)| {
        let reason = if !snapshot.origin.is_stored() {
            format!("its files stay at {}, where they were adopted", snapshot.path().display())
        } else if shared.0 > 0 {
            format!("{shared} of its content stay, since other models use them")
        } else {
            return None;
        };
        Some(KeptReport { reference: snapshot.name.to_string(), reason })
    });
    let restored = plan.links.iter().map(|link| link.new.path.display().to_string()).collect();
    RmReport { dry_run, removed: removed.collect(), bytes_freed: freed.0, kept: kept.collect(), restored }
}
