//! What other tools' caches and the store have to do with each other.

use super::repair::Repair;
use super::{Subject, Verdict};
use crate::dedupe::{self, Condition, LinkCheck};
use crate::error::Code;
use crate::registry::LinkState;
use crate::sources::Fault;

/// How many paths a detail names.
const NAMED: usize = 3;

/// No link in a cache leads out of it, but for those into the store.
pub(super) fn boundaries(subject: &Subject<'_>) -> Verdict {
    let mut escaping = Vec::new();
    // A cache that cannot be looked at is told of by its own check.
    let scans = subject.caches().iter().filter_map(|cache| cache.scan.as_ref());
    for file in scans.flat_map(|scan| &scan.models).flat_map(|model| &model.files) {
        if let Err(Fault::Escaping(target)) = &file.content {
            escaping.push(format!("{} to {}", file.place.display(), target.display()));
        }
    }
    if escaping.is_empty() {
        return Verdict::ok("no link leads out of a cache");
    }
    Verdict::fail(
        format!(
            "{}: {} links lead out of their caches: {}",
            Code::BoundaryViolation,
            escaping.len(),
            named(&escaping)
        ),
        "remove these links, or put files in their place: nothing is read through them",
    )
}

/// Files that dedupe replaced are still the links that they were made.
pub(super) fn links(subject: &Subject<'_>) -> Verdict {
    // A registry that cannot be read is told of by its own check.
    let Ok(Some(registry)) = subject.store.registry() else {
        return Verdict::ok("no file of another tool is linked");
    };
    let found = registry.links().and_then(|links| Ok((links, dedupe::check_links(&registry)?)));
    let (links, checks) = match found {
        Ok(found) => found,
        Err(error) => return Verdict::fail(error.message(), error.hint_text().unwrap_or("try again")),
    };
    let unfinished = links.iter().filter(|link| link.state != LinkState::Done).count();
    if unfinished > 0 {
        return Verdict::warn(
            format!("{unfinished} links were left unfinished by a process that is gone"),
            "run `mlx-cache doctor --fix`: it finishes them or rolls them back",
        );
    }
    let all = checks.len();
    let (broken, unreachable): (Vec<LinkCheck>, Vec<LinkCheck>) = checks
        .into_iter()
        .filter(|check| check.condition != Condition::Whole)
        .partition(|check| !matches!(check.condition, Condition::Unreachable(_)));
    if !broken.is_empty() {
        let told: Vec<String> = broken.iter().map(told).collect();
        return Verdict::warn(
            format!("{} of {all} linked files are not what they were made: {}", broken.len(), named(&told)),
            "run `mlx-cache doctor --fix` to forget them",
        )
        .repairable(Repair::ForgetLinks(broken));
    }
    if !unreachable.is_empty() {
        let told: Vec<String> = unreachable.iter().map(told).collect();
        return Verdict::warn(
            format!("{} of {all} linked files cannot be reached: {}", unreachable.len(), named(&told)),
            "connect the disk that they are on, if it is one that comes and goes",
        );
    }
    Verdict::ok(format!("{all} files of other tools are linked, all as they were made"))
}

fn told(check: &LinkCheck) -> String {
    let what = match &check.condition {
        Condition::Whole => "is whole",
        Condition::Deleted => "was deleted by its tool",
        Condition::Rewritten => "was replaced by its tool",
        Condition::Dangling => "leads nowhere since its tool deleted through it",
        Condition::Unreachable(_) => "is out of reach",
    };
    format!("{} {what}", check.link.new.path.display())
}

/// The first few, and how many more.
fn named(all: &[String]) -> String {
    let first = all.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    match all.len().saturating_sub(NAMED) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}
