//! `doctor`: looks at everything that can be wrong, and repairs what can be repaired safely.

mod foreign;
mod machine;
mod repair;
mod store;
mod surroundings;

use std::cell::OnceCell;

use crate::cli::doctor::DoctorArgs;
use crate::commands::status::present_sources;
use crate::context::Context;
use crate::engine::device::{self, Facts};
use crate::error::Result;
use crate::report::doctor::{CheckReport, CheckStatus, DoctorReport};
use crate::sources::{Scan, Source};
use crate::store::Store;

use self::repair::Repair;

/// Looks at one thing.
type Look = fn(&Subject<'_>) -> Verdict;

/// Every check, in the order of the report.
const CHECKS: &[(&str, Look)] = &[
    ("platform", machine::platform),
    ("device", machine::device),
    ("mlx", machine::mlx),
    ("blas", machine::blas),
    ("memory", machine::memory),
    ("settings", surroundings::settings),
    ("disk", store::disk),
    ("store", store::folder),
    ("registry", store::registry),
    ("links", store::links),
    ("incomplete", store::incomplete),
    ("caches", surroundings::caches),
    ("boundaries", foreign::boundaries),
    ("linked files", foreign::links),
    ("token", surroundings::token),
    ("hub", surroundings::hub),
];

/// What is looked at.
struct Subject<'a> {
    context: &'a Context,
    engine: Facts,
    store: Store,
    /// Several checks look at them, and there may be very many files in them.
    caches: OnceCell<Vec<Cache>>,
}

/// A cache of another tool, and what is in it if it can be looked at.
struct Cache {
    source: Box<dyn Source>,
    scan: Option<Scan>,
}

impl Subject<'_> {
    fn caches(&self) -> &[Cache] {
        self.caches.get_or_init(|| {
            let sources = present_sources(&self.context.settings).into_iter();
            sources.map(|source| Cache { scan: source.scan(&self.context.cancel).ok(), source }).collect()
        })
    }
}

/// What a check found.
struct Verdict {
    status: CheckStatus,
    detail: String,
    fix: Option<String>,
    /// What `--fix` may do about it.
    repair: Option<Repair>,
}

impl Verdict {
    fn ok(detail: impl Into<String>) -> Self {
        Self { status: CheckStatus::Ok, detail: detail.into(), fix: None, repair: None }
    }

    fn warn(detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { status: CheckStatus::Warn, detail: detail.into(), fix: Some(fix.into()), repair: None }
    }

    fn fail(detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { status: CheckStatus::Fail, ..Self::warn(detail, fix) }
    }

    fn repairable(self, repair: Repair) -> Self {
        Self { repair: Some(repair), ..self }
    }
}

pub fn run(args: &DoctorArgs, context: &Context) -> Result<DoctorReport> {
    let subject = Subject {
        context,
        engine: device::facts(),
        store: Store::at(&context.settings.home.value),
        caches: OnceCell::new(),
    };
    let mut checks = Vec::new();
    for (name, look) in CHECKS {
        context.cancel.check()?;
        let mut verdict = look(&subject);
        let mut fixed = None;
        if args.fix
            && let Some(repair) = verdict.repair.take()
        {
            match repair.apply(&subject) {
                Ok(done) => {
                    verdict = look(&subject);
                    fixed = Some(done);
                }
                Err(error) => verdict.detail = format!("{}; the repair failed: {error}", verdict.detail),
            }
        }
        let Verdict { status, detail, fix, .. } = verdict;
        checks.push(CheckReport { name: (*name).to_owned(), status, detail, fix, fixed });
    }
    Ok(DoctorReport::new(checks))
}
