//! From what a person wrote to a model on this machine.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::aliases;
use crate::context::Context;
use crate::error::{Code, Error, Result};
use crate::ids::{FileChoice, ModelRef, RevisionSpec};
use crate::registry::Snapshot;
use crate::store::Store;

/// Similar names shown where none matches, at most.
const SUGGESTIONS: usize = 3;
/// Jaro-Winkler similarity from which a name is worth suggesting.
const SIMILAR: f64 = 0.75;

/// A model that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved {
    /// Its name, or its path if it is not registered.
    pub reference: String,
    /// The folder or file to load.
    pub path: PathBuf,
    /// Its row in the registry.
    pub snapshot: Option<i64>,
}

impl From<&Snapshot> for Resolved {
    fn from(snapshot: &Snapshot) -> Self {
        Self { reference: snapshot.name.to_string(), path: snapshot.path(), snapshot: Some(snapshot.id) }
    }
}

/// What a reference leads to.
pub enum Found {
    Registered(Box<Snapshot>),
    /// A path that is not registered.
    Unregistered(PathBuf),
}

/// Finds the model that is meant: a registered one, or one at a local path.
pub fn resolve(reference: &str, context: &Context) -> Result<Resolved> {
    match find(reference, context)? {
        Found::Registered(snapshot) => {
            let file = file_choice(reference)?;
            let mut resolved = Resolved::from(&*snapshot);
            if let Some(file) = file
                && snapshot.entry.is_none()
            {
                resolved.path = file_of(&snapshot, &file, reference, context)?;
            }
            Ok(resolved)
        }
        Found::Unregistered(path) => {
            Ok(Resolved { reference: path.display().to_string(), path, snapshot: None })
        }
    }
}

/// Finds what a reference leads to.
pub fn find(reference: &str, context: &Context) -> Result<Found> {
    let snapshots = Store::at(&context.settings.home.value).snapshots()?;
    let parsed: ModelRef = match reference.parse() {
        Ok(parsed) => parsed,
        Err(error) => {
            // Not a full name, but it may be a part of one, such as `org/`.
            let parts = containing(reference, &snapshots);
            return match newest_of_one(&parts) {
                Some(snapshot) => Ok(Found::Registered(Box::new(snapshot.clone()))),
                None if parts.is_empty() => Err(error),
                None => Err(ambiguous(reference, &parts)),
            };
        }
    };
    let matches = match &parsed {
        ModelRef::Path(path) => return by_path(path, snapshots),
        ModelRef::Named { name, revision, file } => {
            let named: Vec<&Snapshot> = snapshots
                .iter()
                .filter(|snapshot| {
                    snapshot.name.host() == name.host()
                        && snapshot.name.to_string().eq_ignore_ascii_case(&name.to_string())
                })
                .collect();
            let named = if named.is_empty() { containing(&name.to_string(), &snapshots) } else { named };
            narrow(&named, revision.as_ref(), file.as_ref())
        }
        ModelRef::Short { text, revision, file } => {
            let short = short(text, &snapshots, context)?;
            narrow(&short, revision.as_ref(), file.as_ref())
        }
    };
    match newest_of_one(&matches) {
        Some(snapshot) => Ok(Found::Registered(Box::new(snapshot.clone()))),
        None if matches.is_empty() => {
            let path = Path::new(reference);
            if path.exists() {
                return by_path(path, snapshots);
            }
            Err(not_found(reference, &snapshots))
        }
        None => Err(ambiguous(reference, &matches)),
    }
}

/// Only a registered model will do.
pub fn registered(reference: &str, context: &Context) -> Result<Snapshot> {
    match find(reference, context)? {
        Found::Registered(snapshot) => Ok(*snapshot),
        Found::Unregistered(path) => {
            Err(Error::new(Code::ModelNotFound, format!("{} is not a registered model", path.display()))
                .hint("mlx-cache list shows the models that are"))
        }
    }
}

/// Models that a short text means: by an alias, by the last part of the name, or by any part.
fn short<'a>(text: &str, snapshots: &'a [Snapshot], context: &Context) -> Result<Vec<&'a Snapshot>> {
    let own = context.settings.aliases.get(text).map(String::as_str);
    if let Some(target) = own.or_else(|| aliases::repository(text)) {
        let target: ModelRef = target.parse()?;
        if let ModelRef::Named { name, revision, file } = target {
            let named: Vec<&Snapshot> = snapshots.iter().filter(|snapshot| snapshot.name == name).collect();
            let found = narrow(&named, revision.as_ref(), file.as_ref());
            // An alias of our own list is only a suggestion: another model may have that in its name.
            if !found.is_empty() || own.is_some() {
                return Ok(found);
            }
        }
    }
    let wanted = text.to_lowercase();
    let whole: Vec<&Snapshot> =
        snapshots.iter().filter(|snapshot| snapshot.name.name().to_lowercase() == wanted).collect();
    if !whole.is_empty() {
        return Ok(whole);
    }
    Ok(containing(text, snapshots))
}

/// Models with this part in their names, in any case of letters.
fn containing<'a>(part: &str, snapshots: &'a [Snapshot]) -> Vec<&'a Snapshot> {
    let part = part.trim().to_lowercase();
    let holds = |snapshot: &&Snapshot| snapshot.name.to_string().to_lowercase().contains(&part);
    if part.is_empty() { Vec::new() } else { snapshots.iter().filter(holds).collect() }
}

/// Those of the snapshots that have this revision and this file.
fn narrow<'a>(
    snapshots: &[&'a Snapshot],
    revision: Option<&RevisionSpec>,
    file: Option<&FileChoice>,
) -> Vec<&'a Snapshot> {
    snapshots
        .iter()
        .copied()
        .filter(|snapshot| revision.is_none_or(|wanted| snapshot.revision.matches(wanted)))
        .filter(|snapshot| match (file, &snapshot.entry) {
            (Some(file), Some(entry)) => file.matches(entry),
            _ => true,
        })
        .collect()
}

/// The newest snapshot, if all are of one model (they come newest first).
fn newest_of_one<'a>(matches: &[&'a Snapshot]) -> Option<&'a Snapshot> {
    let first = matches.first()?;
    matches.iter().all(|other| other.name == first.name).then_some(first)
}

/// A registered model that lies there, else the path itself.
fn by_path(path: &Path, snapshots: Vec<Snapshot>) -> Result<Found> {
    let path = expand_home(path);
    let absolute = std::path::absolute(&path).map_err(|error| Error::io("resolve", &path, error))?;
    if let Some(snapshot) = snapshots.into_iter().find(|snapshot| snapshot.path() == absolute) {
        return Ok(Found::Registered(Box::new(snapshot)));
    }
    match std::fs::metadata(&absolute) {
        Ok(_) => Ok(Found::Unregistered(absolute)),
        Err(error) if leads_nowhere(&error) => {
            Err(Error::new(Code::ModelNotFound, format!("there is nothing at {}", path.display()))
                .detail("path", path.display().to_string())
                .hint("give the folder of a model, or a .gguf file"))
        }
        Err(error) => Err(Error::io("read", &absolute, error)),
    }
}

/// Nothing is there: no entry, a file in the place of a folder, or links that go round in a circle.
fn leads_nowhere(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory)
        || error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error())
}

/// `~/…` as a shell would have it, for references that no shell has seen.
fn expand_home(path: &Path) -> PathBuf {
    match (path.strip_prefix("~"), std::env::home_dir()) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path.to_owned(),
    }
}

fn file_choice(reference: &str) -> Result<Option<FileChoice>> {
    Ok(match reference.parse()? {
        ModelRef::Named { file, .. } | ModelRef::Short { file, .. } => file,
        ModelRef::Path(_) => None,
    })
}

/// The one file of a snapshot that a tag such as `Q4_K_M` names.
fn file_of(snapshot: &Snapshot, file: &FileChoice, reference: &str, context: &Context) -> Result<PathBuf> {
    let registry = Store::at(&context.settings.home.value).registry()?;
    let files = registry.map_or(Ok(Vec::new()), |registry| registry.files(snapshot.id))?;
    let mut found = files.iter().filter(|record| file.matches(&record.path));
    match (found.next(), found.next()) {
        (Some(only), None) => Ok(snapshot.root.join(only.path.as_path())),
        (Some(first), Some(second)) => Err(Error::new(
            Code::ModelAmbiguous,
            format!("{reference} means more than one file: {} and {}", first.path, second.path),
        )
        .hint("name the file in full, after the colon")),
        (None, _) => Err(Error::new(Code::FileNotFound, format!("{} has no file {file}", snapshot.name))
            .hint(format!("mlx-cache show {} --files lists what it has", snapshot.name))),
    }
}

fn not_found(reference: &str, snapshots: &[Snapshot]) -> Error {
    let mut names: Vec<(f64, String)> = snapshots
        .iter()
        .map(|snapshot| {
            let wanted = reference.to_lowercase();
            let full = strsim::jaro_winkler(&wanted, &snapshot.name.to_string().to_lowercase());
            let last = strsim::jaro_winkler(&wanted, &snapshot.name.name().to_lowercase());
            (full.max(last), snapshot.name.to_string())
        })
        .filter(|(similarity, _)| *similarity >= SIMILAR)
        .collect();
    names.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    names.dedup_by(|a, b| a.1 == b.1);
    let names: Vec<String> = names.into_iter().take(SUGGESTIONS).map(|(_, name)| name).collect();
    let hint = if names.is_empty() {
        "mlx-cache list shows what there is; mlx-cache add PATH adds a model".to_owned()
    } else {
        format!("did you mean {}?", names.join(", "))
    };
    Error::new(Code::ModelNotFound, format!("no model matches '{}'", reference.escape_debug()))
        .detail("reference", reference)
        .detail("similar", names)
        .hint(hint)
}

fn ambiguous(reference: &str, matches: &[&Snapshot]) -> Error {
    let mut names: Vec<String> = matches.iter().map(|snapshot| snapshot.name.to_string()).collect();
    names.dedup();
    Error::new(
        Code::ModelAmbiguous,
        format!("'{}' means more than one model: {}", reference.escape_debug(), names.join(", ")),
    )
    .detail("matches", names.into_iter().map(Value::from).collect::<Vec<_>>())
    .hint("write more of the name")
}
