//! The store and what holds it.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use walkdir::WalkDir;

use crate::error::{Code, Result};
use crate::fs::{own_user, space};
use crate::output::units;
use crate::registry::Registry;

use super::repair::Repair;
use super::{Subject, Verdict};

/// Free space in bytes below which models hardly fit, and below which nothing works.
const LITTLE_SPACE: u64 = 5_000_000_000;
const NO_SPACE: u64 = 50_000_000;

/// How many paths a detail names.
const NAMED: usize = 3;

pub(super) fn disk(subject: &Subject<'_>) -> Verdict {
    let space = match space(subject.store.home()) {
        Ok(space) => space,
        Err(error) => return Verdict::fail(error.message(), error.hint_text().unwrap_or("check the disk")),
    };
    let detail = format!("{} of {} free", units::bytes(space.free), units::bytes(space.total));
    let fix = "free some space, or move the store with MLX_CACHE_HOME";
    match space.free {
        ..NO_SPACE => Verdict::fail(detail, fix),
        NO_SPACE..LITTLE_SPACE => Verdict::warn(detail, fix),
        _ => Verdict::ok(detail),
    }
}

/// The store's folder is this user's alone.
pub(super) fn folder(subject: &Subject<'_>) -> Verdict {
    let home = subject.store.home();
    let shown = home.display();
    let metadata = match fs::metadata(home) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Verdict::ok(format!("{shown} does not exist yet"));
        }
        Err(error) => {
            return Verdict::fail(format!("cannot look at {shown}: {error}"), "check the folders above it");
        }
    };
    if !metadata.is_dir() {
        return Verdict::fail(
            format!("{shown} is not a folder"),
            "move the file away, or set MLX_CACHE_HOME",
        );
    }
    if metadata.uid() != own_user() {
        return Verdict::fail(
            format!("{shown} belongs to another user"),
            "set MLX_CACHE_HOME to a folder of your own",
        );
    }
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o777 != 0o700 {
        return Verdict::fail(
            format!("{shown} has mode {mode:04o}: others may read or change it, or you may not"),
            format!("run `mlx-cache doctor --fix`, or `chmod 700 {shown}`"),
        )
        .repairable(Repair::MakePrivate);
    }
    Verdict::ok(format!("{shown}, mode 0700"))
}

pub(super) fn registry(subject: &Subject<'_>) -> Verdict {
    let rebuild = "run `mlx-cache doctor --fix`: it makes a new one from the store and keeps the old one";
    let registry = match subject.store.registry() {
        Ok(Some(registry)) => registry,
        Ok(None) => return Verdict::ok("there is none yet"),
        Err(error) if error.code() == Code::IntegrityFailed => {
            return Verdict::fail(error.message(), rebuild).repairable(Repair::RebuildRegistry);
        }
        Err(error) => {
            return Verdict::fail(error.message(), error.hint_text().unwrap_or("check the file"));
        }
    };
    let sound = registry.problems().and_then(|problems| match problems.first() {
        Some(problem) => Ok(Err(format!("{} is damaged: {problem}", registry_name(subject)))),
        None => Ok(Ok((registry.schema_version()?, registry.counts()?, unknown(subject, &registry)?))),
    });
    match sound {
        Ok(Ok((schema, counts, unknown))) => {
            let detail =
                format!("sound, schema {schema}, {} models in {} snapshots", counts.models, counts.snapshots);
            if unknown.is_empty() {
                return Verdict::ok(detail);
            }
            Verdict::warn(
                format!("{detail}; it does not know {}", named(&unknown)),
                "run `mlx-cache doctor --fix` to register what is whole",
            )
            .repairable(Repair::RegisterFound)
        }
        Ok(Err(damage)) => Verdict::fail(damage, rebuild).repairable(Repair::RebuildRegistry),
        Err(error) if error.code() == Code::IntegrityFailed => {
            Verdict::fail(error.message(), rebuild).repairable(Repair::RebuildRegistry)
        }
        Err(error) => Verdict::fail(error.message(), error.hint_text().unwrap_or("try again")),
    }
}

/// Folders that show whole models although the registry does not know them.
fn unknown(subject: &Subject<'_>, registry: &Registry) -> Result<Vec<String>> {
    let found = subject.store.unregistered(registry)?.into_iter().filter(|it| it.files.is_ok());
    Ok(found.map(|it| it.folder.display().to_string()).collect())
}

fn registry_name(subject: &Subject<'_>) -> String {
    subject.store.home().join(crate::registry::FILE_NAME).display().to_string()
}

/// Links of snapshots lead to content, and adopted models are where they were.
pub(super) fn links(subject: &Subject<'_>) -> Verdict {
    let models = subject.store.models();
    let mut links = 0_u64;
    let mut dangling = Vec::new();
    let mut escaping = Vec::new();
    let home = fs::canonicalize(subject.store.home()).unwrap_or_default();
    if models.is_dir() {
        for entry in WalkDir::new(&models).sort_by_file_name().into_iter().flatten() {
            if entry.path_is_symlink() {
                links += 1;
                match fs::canonicalize(entry.path()) {
                    Ok(target) if !target.starts_with(&home) => {
                        escaping.push(entry.path().display().to_string());
                    }
                    Ok(_) => {}
                    Err(_) => dangling.push(entry.path().display().to_string()),
                }
            }
        }
    }
    if !escaping.is_empty() {
        let code = Code::BoundaryViolation;
        return Verdict::fail(
            format!(
                "{code}: {} of {links} links lead out of the store: {}",
                escaping.len(),
                named(&escaping)
            ),
            "run `mlx-cache verify --repair`, or remove these links",
        );
    }
    if !dangling.is_empty() {
        return Verdict::fail(
            format!("{} of {links} links lead nowhere: {}", dangling.len(), named(&dangling)),
            "run `mlx-cache verify --repair`: their content is gone",
        );
    }
    // A registry that cannot be read is told of by its own check.
    let gone: Vec<_> = subject
        .store
        .snapshots()
        .unwrap_or_default()
        .into_iter()
        .filter(|snapshot| !snapshot.path().exists())
        .map(|snapshot| format!("{} at {}", snapshot.name, snapshot.path().display()))
        .collect();
    if !gone.is_empty() {
        return Verdict::warn(
            format!("{} registered models are gone: {}", gone.len(), named(&gone)),
            "bring their files back, or forget them with `mlx-cache rm`",
        );
    }
    Verdict::ok(format!("{links} links, none leads nowhere"))
}

pub(super) fn incomplete(subject: &Subject<'_>) -> Verdict {
    match subject.store.leftovers() {
        Ok(leftovers) if leftovers.is_empty() => Verdict::ok("nothing unfinished is left over"),
        Ok(leftovers) => {
            let bytes: u64 = leftovers.iter().map(|leftover| leftover.bytes.0).sum();
            Verdict::warn(
                format!(
                    "{} unfinished files of dead processes take {}",
                    leftovers.len(),
                    units::bytes(bytes)
                ),
                "run `mlx-cache doctor --fix` to remove them",
            )
            .repairable(Repair::RemoveLeftovers(leftovers))
        }
        Err(error) => Verdict::fail(error.message(), error.hint_text().unwrap_or("check the folder")),
    }
}

/// The first few, and how many more.
fn named(all: &[String]) -> String {
    let first = all.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    match all.len().saturating_sub(NAMED) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}
