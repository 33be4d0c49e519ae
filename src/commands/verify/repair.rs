//! `--repair`: plan, show, ask, do.

use std::collections::HashSet;

use crate::cli::verify::VerifyArgs;
use crate::commands::status::present_sources;
use crate::context::Context;
use crate::error::{Code, Error, Result};
use crate::output::progress::Unit;
use crate::registry::Registry;
use crate::report::verify::{RepairAction, RepairPlan, RepairReport};
use crate::store::Store;
use crate::verify::Findings;
use crate::verify::repair::{Action, Copies, Plan, Step};

/// Makes good what can be; what was done, and nothing if there was nothing to do.
pub(super) fn run(
    args: &VerifyArgs,
    findings: &Findings,
    store: &Store,
    registry: &mut Registry,
    context: &Context,
) -> Result<Vec<RepairReport>> {
    let copies = copies(findings, registry, context)?;
    let plan = Plan::new(findings, &copies, store, false);
    let mut reports: Vec<RepairReport> = plan.steps.iter().map(planned).collect();
    if plan.is_empty() {
        return Ok(reports);
    }
    if !args.yes {
        context.output.plan(&RepairPlan(reports.clone()));
        if !context.cancel.while_waiting(|| context.output.confirm("repair this?"))? {
            context.output.note("nothing was repaired");
            return Err(Error::new(Code::Interrupted, "not confirmed"));
        }
    }
    let bar = context.output.progress("repairing", Some(plan.bytes()), Unit::Bytes);
    let progress = |bytes| {
        bar.advance(bytes);
        context.cancel.check()
    };
    for (step, report) in plan.steps.iter().zip(&mut reports) {
        if report.reason.is_some() {
            continue;
        }
        match step.apply(store, registry, &progress) {
            Ok(from) => {
                report.done = true;
                report.from = from.map(|from| from.display().to_string()).or(report.from.take());
            }
            // What was done stays done; the rest is as it was.
            Err(error) if error.code() == Code::Interrupted => return Err(error),
            Err(error) => report.reason = Some(error.message().to_owned()),
        }
    }
    Ok(reports)
}

/// Every file on this machine that may hold what is needed.
fn copies(findings: &Findings, registry: &Registry, context: &Context) -> Result<Copies> {
    let mut copies = Copies::default();
    copies.add_contents(&findings.contents);
    for source in present_sources(&context.settings) {
        copies.add_scan(&source.scan(&context.cancel)?);
    }
    let store = Store::at(&context.settings.home.value);
    let mut seen = HashSet::new();
    for snapshot in registry.snapshots()? {
        for file in registry.files(snapshot.id)? {
            let path = if snapshot.origin.is_stored() {
                store.blob(&file.digest)
            } else {
                snapshot.root.join(&file.path)
            };
            if seen.insert(path.clone()) {
                copies.add_known(&file, path);
            }
        }
    }
    Ok(copies)
}

fn planned(step: &Step) -> RepairReport {
    let (action, from) = match &step.action {
        Action::Copy { from, .. } => {
            (RepairAction::Copy, from.first().map(|from| from.display().to_string()))
        }
        Action::Fetch { file, .. } => (RepairAction::Fetch, Some(format!("{}@{}", file.name, file.revision))),
        Action::Nothing { .. } => (RepairAction::Copy, None),
        Action::Link { .. } => (RepairAction::Link, None),
        Action::Mode(_) => (RepairAction::Mode, None),
    };
    let is_hopeless = matches!(step.action, Action::Nothing { .. });
    RepairReport {
        file: step.place.display().to_string(),
        action,
        from,
        bytes: step.bytes(),
        done: false,
        reason: is_hopeless.then(|| "there is no good copy on this machine".to_owned()),
    }
}
