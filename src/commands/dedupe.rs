//! `dedupe`: look, compare, plan, show, ask, apply; or the same backwards.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::status::present_sources;
use crate::cli::dedupe::{DedupeArgs, SourceName, Strategy};
use crate::context::Context;
use crate::dedupe::{
    self, Applied, Equals, Filesystems, Group, Keep, Look, Plan, Selection, Skipped, UndoPlan, Undone,
    Wanted, Watch,
};
use crate::error::{Code, Error, Result};
use crate::fs::{Dir, entry_at, plain_path};
use crate::output::Output;
use crate::output::progress::{Progress, Unit};
use crate::registry::{LinkStrategy, Registry};
use crate::report::dedupe::{
    DedupeReport, GroupReport, KeepReport, ReplaceReport, ShownPath, SkippedReport, UndoneReport,
};
use crate::sources::{self, Source};
use crate::store::Store;

/// Digits of a digest that are enough to mean a group.
const LEAST_DIGITS: usize = 8;

pub fn run(args: &DedupeArgs, context: &Context) -> Result<DedupeReport> {
    let started = Instant::now();
    let mut report = match &args.undo {
        Some(what) => undo(what, args.yes, context)?,
        None => find(args, context)?,
    };
    report.seconds = started.elapsed().as_secs_f64();
    Ok(report)
}

fn find(args: &DedupeArgs, context: &Context) -> Result<DedupeReport> {
    let store = Store::at(&context.settings.home.value);
    let watch = Watcher::new(context, "comparing");
    let foreign = present_sources(&context.settings);
    let (sources, stored) = chosen(args, context)?;
    let mut look = dedupe::look(&sources, &foreign, &store, stored, &context.cancel, &watch)?;
    // What is read is remembered in the store, so that the next look is quick.
    let mut registry =
        if look.files.is_empty() && !args.apply { store.registry()? } else { Some(store.create()?) };
    let mut equals = dedupe::find_equal(&look.files, args.min_size, registry.as_mut(), &watch)?;
    drop(watch);
    let wanted = match args.strategy {
        Strategy::Symlink => Wanted::Symlink,
        Strategy::Hardlink => Wanted::Hardlink,
        Strategy::Reflink => Wanted::Reflink,
        Strategy::Auto => Wanted::Auto,
    };
    let filesystems = filesystems(&look, &equals, wanted, &store, registry.as_ref())?;
    let plan = dedupe::plan(&look.files, &equals, wanted, &filesystems);
    if let Some(registry) = &mut registry {
        dedupe::record(registry, &look, &equals)?;
    }
    // The plan has what is needed of these, and there may be very many.
    look.roots.clear();
    (equals.groups, equals.known) = (Vec::new(), Vec::new());
    let planned = report(&plan, &look, &equals, None);
    let Some(registry) = registry.as_mut().filter(|_| args.apply && !plan.is_empty()) else {
        return Ok(planned);
    };
    if !args.yes {
        context.output.plan(&planned);
        confirm("replace these files?", context)?;
    }
    let watch = Watcher::new(context, "replacing");
    let applied = dedupe::apply(&plan, &store, registry, &watch)?;
    drop(watch);
    Ok(report(&plan, &look, &equals, Some(&applied)))
}

fn confirm(question: &str, context: &Context) -> Result<()> {
    if context.cancel.while_waiting(|| context.output.confirm(question))? {
        return Ok(());
    }
    context.output.note("nothing was changed");
    Err(Error::new(Code::Interrupted, "not confirmed"))
}

/// The places that are looked through, and whether the store is one of them.
fn chosen(args: &DedupeArgs, context: &Context) -> Result<(Vec<Box<dyn Source>>, bool)> {
    let all = args.source.is_empty();
    let is_chosen = |name: &str| all || args.source.iter().any(|chosen| chosen.as_str() == name);
    let mut sources = present_sources(&context.settings);
    sources.retain(|source| is_chosen(source.name()));
    for name in args.source.iter().filter(|name| **name != SourceName::Store) {
        if !sources.iter().any(|source| source.name() == name.as_str()) {
            let message = format!("there is no cache of {} here", name.as_str());
            return Err(Error::new(Code::FileNotFound, message)
                .hint("`mlx-cache status` shows the caches that are found and where they are looked for"));
        }
    }
    for path in &args.path {
        let path = plain_path(path).map_err(|error| Error::io("resolve", path, error))?;
        if !path.is_dir() {
            let kind = if path.exists() { Code::InvalidRequest } else { Code::FileNotFound };
            return Err(Error::new(kind, format!("{} is not a folder", path.display()))
                .detail("path", path.display().to_string())
                .hint("give --path a folder with models in it"));
        }
        // A root may be a link: what it leads to is meant.
        let path = path.canonicalize().map_err(|error| Error::io("resolve", &path, error))?;
        sources.push(sources::folder(&path, &context.settings.home.value));
    }
    Ok((sources, is_chosen(SourceName::Store.as_str())))
}

/// Where files can share blocks is tried out, without anything becoming visible.
fn filesystems(
    look: &Look,
    equals: &Equals,
    wanted: Wanted,
    store: &Store,
    registry: Option<&Registry>,
) -> Result<Filesystems> {
    let present = store.home().ancestors().find_map(|folder| entry_at(folder).ok());
    let mut found =
        Filesystems { store: present.map_or(0, |entry| entry.stamp.device), ..Filesystems::default() };
    if !matches!(wanted, Wanted::Reflink | Wanted::Auto) {
        return Ok(found);
    }
    if let Some(registry) = registry {
        found.cloned = dedupe::cloned(registry)?;
    }
    let mut tried = HashSet::new();
    for at in equals.groups.iter().flat_map(|group| equals.inodes(group)).flatten() {
        let Some(file) = look.files.get(*at as usize) else { continue };
        let device = file.entry.stamp.device;
        if tried.insert(device) && can_clone(&file.path) {
            found.clones.insert(device);
        }
    }
    Ok(found)
}

fn can_clone(path: &Path) -> bool {
    let Some((folder, name)) = path.parent().zip(path.file_name()) else { return false };
    Dir::open(folder).and_then(|dir| Ok(dir.can_clone(&dir.open_file(name)?))).unwrap_or(false)
}

fn undo(what: &str, yes: bool, context: &Context) -> Result<DedupeReport> {
    let store = Store::at(&context.settings.home.value);
    let Some(mut registry) = store.registry()? else {
        return Ok(undo_report(&UndoPlan::default(), None));
    };
    let plan = dedupe::plan_undo(&store, &registry, &selection(what)?)?;
    let planned = undo_report(&plan, None);
    if plan.links.is_empty() {
        if what == "all" {
            return Ok(planned);
        }
        return Err(Error::new(Code::FileNotFound, format!("no link belongs to '{what}'"))
            .hint("name a file or folder, or the beginning of a group's digest; `--undo` alone means all"));
    }
    if !yes {
        context.output.plan(&planned);
        confirm("give these files back?", context)?;
    }
    let watch = Watcher::new(context, "giving back");
    let undone = dedupe::undo(&store, &mut registry, &plan, &watch)?;
    drop(watch);
    Ok(undo_report(&plan, Some(&undone)))
}

fn selection(what: &str) -> Result<Selection> {
    if what == "all" {
        return Ok(Selection::All);
    }
    let path = plain_path(Path::new(what)).map_err(|error| Error::io("resolve", Path::new(what), error))?;
    let is_digest = what.len() >= LEAST_DIGITS && what.bytes().all(|digit| digit.is_ascii_hexdigit());
    if is_digest && path.symlink_metadata().is_err() {
        return Ok(Selection::Group(what.to_owned()));
    }
    // Links are kept by paths without links in them; the last name is the link itself.
    let real = match (path.parent(), path.file_name()) {
        _ if path.is_dir() => path.canonicalize().unwrap_or(path),
        (Some(parent), Some(name)) => parent.canonicalize().map_or(path.clone(), |parent| parent.join(name)),
        _ => path,
    };
    Ok(Selection::Below(real))
}

/// Shows progress, tells of steps, and stops when asked to.
struct Watcher<'a> {
    context: &'a Context,
    label: &'static str,
    expected: AtomicU64,
    bar: Mutex<Option<Progress>>,
}

impl<'a> Watcher<'a> {
    fn new(context: &'a Context, label: &'static str) -> Self {
        Self { context, label, expected: AtomicU64::new(0), bar: Mutex::new(None) }
    }

    fn output(&self) -> &Output {
        &self.context.output
    }
}

impl Watch for Watcher<'_> {
    fn check(&self) -> Result<()> {
        self.context.cancel.check()
    }

    fn expect(&self, bytes: u64) {
        let total = self.expected.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let bar = self.output().progress(self.label, Some(total), Unit::Bytes);
        *self.bar.lock().unwrap_or_else(PoisonError::into_inner) = Some(bar);
    }

    fn read(&self, bytes: u64) {
        if let Some(bar) = &*self.bar.lock().unwrap_or_else(PoisonError::into_inner) {
            bar.advance(bytes);
        }
    }

    fn step(&self, step: &'static str, path: &Path) {
        self.output().detail(format!("{step}: {}", path.display()));
    }
}

fn report(plan: &Plan, look: &Look, equals: &Equals, applied: Option<&Applied>) -> DedupeReport {
    let groups = plan.groups.iter().enumerate().map(|(at, group)| {
        let done = applied.and_then(|applied| applied.groups.get(at));
        let replaced: HashSet<&Path> =
            done.iter().flat_map(|done| &done.replaced).map(|path| &**path).collect();
        group_report(group, &replaced, done.map_or(0, |done| done.reclaimed.0))
    });
    let later: &[Skipped] = applied.map_or(&[], |applied| &applied.skipped);
    let mut skipped: Vec<SkippedReport> = [&look.skipped, &equals.skipped, &plan.skipped, later]
        .into_iter()
        .flatten()
        .map(|skipped| SkippedReport { path: shown(&skipped.path), reason: skipped.reason.clone() })
        .collect();
    skipped.sort_by(|a, b| a.path.0.as_os_str().cmp(b.path.0.as_os_str()));
    DedupeReport {
        applied: applied.is_some(),
        strategy: plan.wanted.as_str().to_owned(),
        groups: groups.collect(),
        bytes_reclaimable: plan.reclaims().0,
        bytes_reclaimed: applied.map_or(0, |applied| applied.reclaimed().0),
        estimated: plan
            .groups
            .iter()
            .flat_map(|group| &group.replace)
            .any(|replacement| replacement.how == LinkStrategy::Reflink),
        skipped,
        files: look.files.len() as u64 + look.linked.len() as u64,
        linked: look.linked.len() as u64 + plan.linked,
        bytes_read: equals.bytes_read,
        undone: Vec::new(),
        bytes_needed: 0,
        seconds: 0.0,
    }
}

fn group_report(group: &Group, replaced: &HashSet<&Path>, reclaimed: u64) -> GroupReport {
    let how = match &group.keep {
        Keep::Stored(_) => "stored",
        Keep::Moves(_) => "moves",
        Keep::Copies(_) => "copies",
        Keep::Stays(_) => "stays",
    };
    let keep = group.keep.file();
    GroupReport {
        digest: group.digest,
        bytes: group.bytes,
        keep: KeepReport { path: shown(&keep.path), source: keep.source.into(), how: how.into() },
        replace: group
            .replace
            .iter()
            .map(|replacement| ReplaceReport {
                path: shown(&replacement.file.path),
                source: replacement.file.source.into(),
                strategy: replacement.how.as_str().into(),
                done: replaced.contains(&*replacement.file.path),
            })
            .collect(),
        bytes_reclaimable: group.reclaims.0,
        bytes_reclaimed: reclaimed,
    }
}

fn shown(path: &Arc<Path>) -> ShownPath {
    ShownPath(Arc::clone(path))
}

fn undo_report(plan: &UndoPlan, undone: Option<&[dedupe::UndoneLink]>) -> DedupeReport {
    let links = plan.links.iter().enumerate().map(|(at, link)| {
        let outcome = undone.and_then(|undone| undone.get(at)).map(|undone| &undone.outcome);
        let (outcome, reason) = match outcome {
            None => ("planned", None),
            Some(Undone::Restored) => ("restored", None),
            Some(Undone::Removed) => ("removed", None),
            Some(Undone::Forgotten) => ("forgotten", None),
            Some(Undone::Kept(reason)) => ("kept", Some(reason.clone())),
        };
        UndoneReport {
            path: link.new.path.display().to_string(),
            digest: link.new.digest.to_string(),
            bytes: link.new.bytes,
            strategy: link.new.strategy.as_str().to_owned(),
            outcome: outcome.to_owned(),
            reason,
        }
    });
    DedupeReport {
        applied: undone.is_some(),
        strategy: "undo".to_owned(),
        groups: Vec::new(),
        bytes_reclaimable: 0,
        bytes_reclaimed: 0,
        estimated: false,
        skipped: Vec::new(),
        files: 0,
        linked: plan.links.len() as u64,
        bytes_read: 0,
        undone: links.collect(),
        bytes_needed: plan.bytes_needed.0,
        seconds: 0.0,
    }
}

/// Finishes or rolls back what an earlier process has left unfinished. Failing at that is told, and
/// keeps nobody from going on.
pub(super) fn settle(context: &Context) {
    let store = Store::at(&context.settings.home.value);
    let settled = || -> Result<Option<dedupe::Settled>> {
        let registry: Option<Registry> = store.registry()?;
        registry.map(|mut registry| dedupe::settle(&store, &mut registry)).transpose()
    };
    // If the store cannot be opened, the command itself opens it next and tells why.
    let Ok(Some(settled)) = settled() else { return };
    if settled.finished + settled.rolled_back > 0 {
        context.output.note(format!(
            "an interrupted dedupe is settled: {} finished, {} rolled back",
            settled.finished, settled.rolled_back
        ));
    }
    for error in settled.open {
        context.output.warn(format!("an interrupted dedupe cannot be settled yet: {error}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_undone_is_named_by_digest_or_path() {
        assert_eq!(selection("all").expect("all"), Selection::All);
        assert_eq!(selection("0123abcd").expect("a group"), Selection::Group("0123abcd".to_owned()));
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().canonicalize().expect("a path");
        let named = |path: &Path| selection(path.to_str().expect("UTF-8")).expect("a path");
        assert_eq!(named(folder.path()), Selection::Below(root.clone()));
        let link = root.join("deadbeef");
        std::os::unix::fs::symlink("/nowhere", &link).expect("a link");
        assert_eq!(named(&link), Selection::Below(link));
        assert_eq!(named(&root.join("abc")), Selection::Below(root.join("abc")));
    }
}
