//! `verify`: select, look, read, compare, tell; with `--repair`, make good and look again.

mod fetch;
mod repair;
mod report;
mod select;

use std::time::Instant;

use crate::cli::verify::VerifyArgs;
use crate::context::Context;
use crate::error::{Code, Error, Result};
use crate::fs::default_threads;
use crate::output::progress::Unit;
use crate::registry::Registry;
use crate::report::verify::VerifyReport;
use crate::store::Store;
use crate::verify::{Contents, Findings, Judged};

use self::select::Selection;

pub fn run(args: &VerifyArgs, context: &Context) -> Result<VerifyReport> {
    let started = Instant::now();
    let store = Store::at(&context.settings.home.value);
    let mut registry = store.registry()?;
    let selection = Selection::new(args, context)?;
    let (findings, read) = check(args, &selection, &store, registry.as_ref(), None, context)?;
    if let Some(registry) = &mut registry {
        findings.record(registry)?;
    }
    read?;
    refuse_nothing(args, &findings, context)?;
    let elapsed = started.elapsed();
    let is_sound = findings.judged.iter().all(Judged::is_sound);
    if !args.repair || is_sound {
        return Ok(report::of(&findings, args.quick, Vec::new(), elapsed));
    }
    let mut registry = match registry {
        Some(registry) => registry,
        None => store.create()?,
    };
    let bytes_read = findings.bytes_hashed();
    let repairs = repair::run(args, &findings, &store, &mut registry, context)?;
    let (after, read) = check(args, &selection, &store, Some(&registry), Some(&findings.contents), context)?;
    after.record(&mut registry)?;
    read?;
    let mut report = report::of(&after, args.quick, repairs, started.elapsed());
    report.bytes_hashed += bytes_read;
    Ok(report)
}

/// One pass over everything that is selected; what `earlier` read is not read again. If the reading is cut
/// short, the findings are those of what was read, to be written down but not told.
fn check(
    args: &VerifyArgs,
    selection: &Selection,
    store: &Store,
    registry: Option<&Registry>,
    earlier: Option<&Contents>,
    context: &Context,
) -> Result<(Findings, Result<()>)> {
    let mut verification = selection.subjects(store, registry, context)?;
    verification.inspect(&context.cancel)?;
    if let Some(earlier) = earlier {
        verification.contents.recall(earlier);
    }
    let mut read = Ok(());
    if !args.quick {
        let total = verification.contents.unread_bytes();
        let bar = context.output.progress("verifying", Some(total), Unit::Bytes);
        let threads = args.jobs.map_or_else(default_threads, usize::from);
        read = verification.measure(threads, &|bytes| {
            bar.advance(bytes);
            context.cancel.check()
        });
    }
    Ok((verification.judge(), read))
}

/// That nothing was checked is no success.
fn refuse_nothing(args: &VerifyArgs, findings: &Findings, context: &Context) -> Result<()> {
    let all = &findings.judged;
    if all.is_empty() {
        let hint = if args.source.is_empty() && args.path.is_empty() {
            "add or pull a model first, or check other tools' caches with --source all"
        } else {
            "mlx-cache status shows where models are looked for"
        };
        let message = "nothing was checked: there is no model";
        return Err(Error::new(Code::ModelNotFound, message).hint(hint));
    }
    let compared = |it: &Judged| if args.quick { it.files_compared } else { it.files_ok };
    if all.iter().any(|it| compared(it) > 0 || !it.problems.is_empty()) {
        return Ok(());
    }
    let names: Vec<&str> = all.iter().map(|it| it.reference.as_str()).take(8).collect();
    context.output.detail("no size and no digest of these files is on record");
    Err(Error::new(
        Code::IntegrityFailed,
        format!("nothing was checked: no digest is on record for {}", names.join(", ")),
    )
    .hint("mlx-cache add PATH puts digests on record; the next verify compares with them"))
}
