//! `--repair`: plan, show, ask, do.

use std::collections::HashSet;

use super::fetch::Fetcher;
use crate::cli::verify::VerifyArgs;
use crate::commands::status::present_sources;
use crate::context::Context;
use crate::error::{Code, Error, Result};
use crate::fs::Progress;
use crate::output::progress::Unit;
use crate::registry::Registry;
use crate::report::verify::{RepairAction, RepairPlan, RepairReport};
use crate::store::Store;
use crate::verify::repair::{Action, Copies, Plan, Step};
use crate::verify::{Findings, HubFile};

/// Makes good what can be; what was done, and nothing if there was nothing to do.
pub(super) fn run(
    args: &VerifyArgs,
    findings: &Findings,
    store: &Store,
    registry: &mut Registry,
    context: &Context,
) -> Result<Vec<RepairReport>> {
    let copies = copies(findings, registry, context)?;
    let plan = Plan::new(findings, &copies, store, !context.settings.offline.value);
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
    let mut fetcher = Fetcher::new(store, context);
    for (step, report) in plan.steps.iter().zip(&mut reports) {
        if report.reason.is_some() {
            continue;
        }
        match carry_out(step, report, &mut fetcher, store, registry, &progress) {
            Ok(()) => report.done = true,
            // What was done stays done; the rest is as it was.
            Err(error) if error.code() == Code::Interrupted => return Err(error),
            Err(error) => report.reason = Some(error.message().to_owned()),
        }
    }
    Ok(reports)
}

/// Takes the step; where no copy holds what is needed, the hub may have it.
fn carry_out(
    step: &Step,
    report: &mut RepairReport,
    fetcher: &mut Fetcher<'_>,
    store: &Store,
    registry: &mut Registry,
    progress: Progress<'_>,
) -> Result<()> {
    let (needed, file) = match &step.action {
        Action::Fetch { needed, file } => (needed, file),
        _ => match (step.apply(store, registry, progress), &step.action) {
            (Ok(from), _) => {
                report.from = from.map(|from| from.display().to_string()).or(report.from.take());
                return Ok(());
            }
            (Err(error), Action::Copy { needed, .. }) if is_no_copy(&error) => match &needed.hub {
                Some(file) if fetcher.may_ask() => (needed, file),
                _ => return Err(error),
            },
            (Err(error), _) => return Err(error),
        },
    };
    let fetched = fetcher.fetch(file)?;
    needed.take(&[fetched.path().to_owned()], store, registry, progress)?;
    report.action = RepairAction::Fetch;
    report.from = Some(hub_name(file));
    Ok(())
}

/// Whether a failure only says that a copy was not what is needed.
fn is_no_copy(error: &Error) -> bool {
    matches!(error.code(), Code::IntegrityFailed | Code::FileNotFound)
}

fn hub_name(file: &HubFile) -> String {
    format!("{}@{}", file.name, file.revision)
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
        Action::Fetch { file, .. } => (RepairAction::Fetch, Some(hub_name(file))),
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
