//! Making what was planned, and taking it away. Nothing that others made is changed.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fs::{self, DirBuilder};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Component, Path, PathBuf};

use super::plan::{Plan, Step, What};
use crate::context::Context;
use crate::dedupe::{self, Selection, Undone, Watch};
use crate::error::{Code, Error, Result};
use crate::fs::{EntryKind, Place, sync_dir};
use crate::ids::Digest;
use crate::registry::{NewLink, Registry};
use crate::report::link::LinkEntryStatus as Status;
use crate::sources::{Ollama, Source};
use crate::store::Store;

/// What would become of each step.
pub(super) fn look(plan: &Plan, registry: &Registry, undo: bool, context: &Context) -> Result<Vec<Status>> {
    let ownership = Ownership::new(plan, registry, context)?;
    plan.steps
        .iter()
        .map(|step| {
            let there = is_there(plan, step)? && (undo || !is_dead(step, registry)?);
            Ok(match (undo, there) {
                (false, true) if !may_stand(step)? => return Err(in_the_way(step)),
                (false, true) => Status::Present,
                (false, false) => Status::Made,
                (true, false) => Status::Absent,
                (true, true) if ownership.is_ours(step)? => Status::Removed,
                (true, true) => Status::Kept,
            })
        })
        .collect()
}

/// Makes what is not there yet. A failure leaves what was made so far: making it again goes on, and
/// undoing takes it away.
pub(super) fn make(
    plan: &Plan,
    store: &Store,
    registry: &mut Registry,
    context: &Context,
) -> Result<Vec<Status>> {
    let mut made = Vec::with_capacity(plan.steps.len());
    fs::create_dir_all(&plan.root).map_err(|error| Error::io("create", &plan.root, error))?;
    for step in &plan.steps {
        context.cancel.check()?;
        if is_dead(step, registry)? {
            undo_link(step, store, registry, context)?;
        }
        if is_there(plan, step)? {
            if !may_stand(step)? {
                return Err(in_the_way(step));
            }
            made.push(Status::Present);
            continue;
        }
        make_folders(&plan.root, &step.path)?;
        match &step.what {
            What::Content { digest, bytes } => {
                let new = NewLink::where_nothing_was(plan.source, &plan.root, &step.path, *digest, *bytes);
                dedupe::make_link(store, registry, new)?;
            }
            What::Inner(target) => {
                symlink(target, &step.path).map_err(|error| Error::io("link", &step.path, error))?;
            }
            What::Record(content) => write_new(&step.path, content)?,
        }
        made.push(Status::Made);
    }
    let folders = plan.steps.iter().filter_map(|step| step.path.parent());
    folders.collect::<BTreeSet<_>>().into_iter().try_for_each(sync_dir)?;
    Ok(made)
}

/// Takes away what was made, the last first, and folders that are empty then.
pub(super) fn undo(
    plan: &Plan,
    store: &Store,
    registry: &mut Registry,
    context: &Context,
) -> Result<Vec<Status>> {
    // As it is before anything goes.
    let ours = {
        let ownership = Ownership::new(plan, registry, context)?;
        plan.steps.iter().map(|step| ownership.is_ours(step)).collect::<Result<Vec<_>>>()?
    };
    let mut statuses = Vec::with_capacity(plan.steps.len());
    for (step, ours) in plan.steps.iter().zip(ours).rev() {
        context.cancel.check()?;
        let status = if !is_there(plan, step)? {
            Status::Absent
        } else if !ours {
            Status::Kept
        } else if let What::Content { .. } = step.what {
            undo_link(step, store, registry, context)?
        } else {
            fs::remove_file(&step.path).map_err(|error| Error::io("remove", &step.path, error))?;
            Status::Removed
        };
        statuses.push(status);
    }
    statuses.reverse();
    for step in plan.steps.iter().rev() {
        for above in step.path.ancestors().skip(1).take_while(|above| *above != plan.root) {
            // A folder that is not empty stays, and so do those above it. Ollama's own folders stay.
            if above.parent() == Some(&plan.root) && plan.source == "ollama" || fs::remove_dir(above).is_err()
            {
                break;
            }
        }
    }
    Ok(statuses)
}

fn undo_link(step: &Step, store: &Store, registry: &mut Registry, context: &Context) -> Result<Status> {
    struct Quiet<'a>(&'a Context);
    impl Watch for Quiet<'_> {
        fn check(&self) -> Result<()> {
            self.0.cancel.check()
        }
    }
    let plan = dedupe::plan_undo(store, registry, &Selection::Below(step.path.clone()))?;
    let undone = dedupe::undo(store, registry, &plan, &Quiet(context))?;
    match undone.into_iter().next().map(|undone| undone.outcome) {
        Some(Undone::Removed) => Ok(Status::Removed),
        Some(Undone::Kept(reason)) => {
            context.output.warn(format!("{} stays: {reason}", step.path.display()));
            Ok(Status::Kept)
        }
        Some(Undone::Restored | Undone::Forgotten) | None => Ok(Status::Kept),
    }
}

/// Whether the step's place has a link of ours whose name in the store is gone: some tools delete what a
/// link leads to and leave the link.
fn is_dead(step: &Step, registry: &Registry) -> Result<bool> {
    let What::Content { .. } = step.what else { return Ok(false) };
    let dangles = fs::read_link(&step.path).is_ok() && !step.path.exists();
    Ok(dangles && registry.link_at(&step.path)?.is_some_and(|link| link.new.original.is_none()))
}

/// Whether something has the step's name; no folder on the way may be a link.
fn is_there(plan: &Plan, step: &Step) -> Result<bool> {
    match Place::find(&plan.root, &step.path) {
        Ok(place) => Ok(place.entry()?.is_some()),
        Err(error) if error.code() == Code::FileNotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether what is there serves the tool as well: a record must say the same, a link lead to the same.
fn may_stand(step: &Step) -> Result<bool> {
    let path = &step.path;
    Ok(match &step.what {
        // A blob's name says what it holds; in plain folders the size must do.
        What::Content { bytes, .. } => {
            fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() == *bytes)
        }
        What::Inner(target) => fs::read_link(path).map_or_else(|_| path.is_file(), |held| held == *target),
        What::Record(content) => {
            let found = fs::metadata(path).map_err(|error| Error::io("read", path, error))?;
            found.is_file()
                && found.len() == content.len() as u64
                && fs::read(path).map_err(|error| Error::io("read", path, error))? == *content
        }
    })
}

/// What tells our own names from others'.
struct Ownership<'a> {
    plan: &'a Plan,
    registry: &'a Registry,
    /// Ollama's models by the files that they use.
    users: HashMap<PathBuf, usize>,
}

impl<'a> Ownership<'a> {
    fn new(plan: &'a Plan, registry: &'a Registry, context: &Context) -> Result<Self> {
        let mut users = HashMap::new();
        if plan.source == "ollama" {
            let scan = Ollama::at(&plan.root, &context.settings.home.value).scan(&context.cancel)?;
            for file in scan.models.iter().flat_map(|model| &model.files) {
                *users.entry(file.place.to_path_buf()).or_default() += 1;
            }
        }
        Ok(Self { plan, registry, users })
    }

    /// Whether what is there was made by this program for this step: other files are never removed.
    fn is_ours(&self, step: &Step) -> Result<bool> {
        match &step.what {
            What::Content { digest, .. } => self.is_link(&step.path, Some(digest)),
            // As long as it leads to a blob of ours.
            What::Inner(target) => {
                let folder = step.path.parent().unwrap_or(&step.path);
                let held = fs::read_link(&step.path).is_ok_and(|held| held == *target);
                Ok(held && self.is_link(&lexical(folder, target), None)?)
            }
            // A record that others rely on too stays: a layer of another model, a branch of other files.
            What::Record(_) if !may_stand(step)? => Ok(false),
            What::Record(_) if self.plan.source == "ollama" => {
                Ok(self.users.get(&step.path).is_none_or(|users| *users <= 1))
            }
            What::Record(_) => {
                let contents =
                    self.plan.steps.iter().filter(|step| matches!(step.what, What::Content { .. }));
                contents.map(|step| self.is_ours(step)).try_fold(false, |any, ours| Ok(any | ours?))
            }
        }
    }

    fn is_link(&self, path: &Path, digest: Option<&Digest>) -> Result<bool> {
        let link = self.registry.link_at(path)?;
        Ok(link.is_some_and(|link| {
            link.new.original.is_none() && digest.is_none_or(|digest| link.new.digest == *digest)
        }))
    }
}

/// The path that a relative link without detours leads to.
fn lexical(folder: &Path, target: &Path) -> PathBuf {
    let mut path = folder.to_owned();
    for part in target.components() {
        match part {
            Component::ParentDir => {
                path.pop();
            }
            part => path.push(part),
        }
    }
    path
}

/// Makes the folders above a path, below a root that exists. A link or a file in the place of one is
/// BOUNDARY_VIOLATION.
fn make_folders(root: &Path, path: &Path) -> Result<()> {
    let below = path.parent().and_then(|folder| folder.strip_prefix(root).ok()).unwrap_or(Path::new(""));
    let mut folder = root.to_owned();
    for part in below.components() {
        folder.push(part);
        match DirBuilder::new().mode(0o755).create(&folder) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Error::io("create", &folder, error)),
        }
        let place = Place::find(root, &folder)?;
        if place.entry()?.is_none_or(|entry| entry.kind != EntryKind::Folder) {
            let message = format!("{} is in the way: it is no folder", folder.display());
            return Err(
                Error::new(Code::BoundaryViolation, message).detail("path", folder.display().to_string())
            );
        }
    }
    Ok(())
}

/// Writes a small file that is not there yet. Should the program end in between, the file is short, and the
/// tool takes it for damaged; it is written last of all that it tells about.
fn write_new(path: &Path, content: &[u8]) -> Result<()> {
    let fail = |error| Error::io("write", path, error);
    let mut file = fs::File::options().write(true).create_new(true).open(path).map_err(fail)?;
    let written = file.write_all(content).and_then(|()| file.sync_all());
    written.map_err(|error| {
        // Half a record is worse than none.
        let _ = fs::remove_file(path);
        fail(error)
    })
}

fn in_the_way(step: &Step) -> Error {
    let name = step.path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    Error::new(
        Code::InvalidRequest,
        format!("{} is there already, with another content", step.path.display()),
    )
    .detail("path", step.path.display().to_string())
    .hint(format!(
        "nothing of another tool is replaced: remove {name} there first, or link to another folder"
    ))
}
