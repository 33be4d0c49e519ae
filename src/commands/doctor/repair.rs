//! Repairs that lose nothing.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;

use crate::commands::facts;
use crate::dedupe::{self, LinkCheck};
use crate::error::{Error, Result};
use crate::output::units;
use crate::store::Leftover;

use super::Subject;

/// What `--fix` does about one finding.
pub(super) enum Repair {
    /// Takes the rights of others away from the store's folder.
    MakePrivate,
    /// Removes what processes that are gone have left unfinished.
    RemoveLeftovers(Vec<Leftover>),
    /// Makes a new registry from the store, keeping the old one.
    RebuildRegistry,
    /// Registers whole models that the registry does not know.
    RegisterFound,
    /// Forgets links that other tools have deleted or replaced, and removes those that lead nowhere.
    ForgetLinks(Vec<LinkCheck>),
}

impl Repair {
    /// Does it, and says what was done.
    pub(super) fn apply(self, subject: &Subject<'_>) -> Result<String> {
        match self {
            Self::MakePrivate => {
                let home = subject.store.home();
                fs::set_permissions(home, Permissions::from_mode(0o700))
                    .map_err(|error| Error::io("change the mode of", home, error))?;
                Ok(format!("{} has mode 0700 now", home.display()))
            }
            Self::RemoveLeftovers(leftovers) => {
                let mut bytes = 0;
                for leftover in &leftovers {
                    match fs::remove_file(&leftover.path) {
                        Ok(()) => bytes += leftover.bytes.0,
                        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                        Err(error) => return Err(Error::io("remove", &leftover.path, error)),
                    }
                }
                Ok(format!("{} unfinished files with {} are removed", leftovers.len(), units::bytes(bytes)))
            }
            Self::RebuildRegistry => rebuild(subject),
            Self::ForgetLinks(checks) => {
                let Some(mut registry) = subject.store.registry()? else {
                    return Err(Error::internal("a registry that was there is gone"));
                };
                for check in &checks {
                    dedupe::forget(&subject.store, &mut registry, check)?;
                }
                Ok(format!(
                    "{} links are forgotten; `mlx-cache gc` collects what only they used",
                    checks.len()
                ))
            }
            Self::RegisterFound => {
                let Some(mut registry) = subject.store.registry()? else {
                    return Err(Error::internal("a registry that was there is gone"));
                };
                let found = subject.store.register_found(&mut registry, &facts::at)?;
                Ok(format!("{found} models that were not registered are now"))
            }
        }
    }
}

fn rebuild(subject: &Subject<'_>) -> Result<String> {
    let rebuilt = subject.store.rebuild(&facts::at)?;
    let output = &subject.context.output;
    for (folder, reason) in &rebuilt.skipped {
        output.warn(format!("{} is left out: {reason}", folder.display()));
    }
    if !rebuilt.adopted_complete {
        output.warn("the old registry does not tell of all adopted models: add the missing ones again");
    }
    let kept = match &rebuilt.kept {
        Some(kept) => format!("; the old one is kept at {}", kept.display()),
        None => String::new(),
    };
    Ok(format!(
        "a new registry has {} models of the store and {} adopted ones{kept}",
        rebuilt.stored, rebuilt.adopted
    ))
}
