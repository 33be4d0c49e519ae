//! From what a person wrote to a model on this machine.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::aliases;
use super::foreign::{self, Foreign};
use crate::context::Context;
use crate::engine::format::layout::Layout;
use crate::error::{Code, Error, Result};
use crate::fs::plain_path;
use crate::ids::{FileChoice, ModelName, ModelRef, RevisionSpec, leader};
use crate::registry::Snapshot;
use crate::store::Store;

/// Similar names shown where none matches, at most.
const SUGGESTIONS: usize = 3;
/// Names shown where several match, at most; the JSON form has all.
const MATCHES: usize = 8;
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
    /// Its full name, if it has one.
    pub name: Option<ModelName>,
}

impl From<&Snapshot> for Resolved {
    fn from(snapshot: &Snapshot) -> Self {
        Self {
            reference: snapshot.name.to_string(),
            path: snapshot.path(),
            snapshot: Some(snapshot.id),
            name: Some(snapshot.name.clone()),
        }
    }
}

/// What a reference leads to.
pub enum Found {
    Registered(Box<Snapshot>),
    /// A model of another tool that is not registered.
    Foreign(Box<Foreign>),
    /// A path that is not registered.
    Unregistered(PathBuf),
}

impl Found {
    /// The folder or file to load; `reference` may name one of several files.
    pub fn path(&self, reference: &str, context: &Context) -> Result<PathBuf> {
        match self {
            Self::Unregistered(path) => Ok(path.clone()),
            Self::Foreign(foreign) => Ok(foreign.path.clone()),
            Self::Registered(snapshot) => match file_choice(reference) {
                Some(file) if snapshot.entry.is_none() => file_of(snapshot, &file, reference, context),
                _ => Ok(snapshot.path()),
            },
        }
    }
}

/// Finds the model that is meant: a registered one, or one at a local path.
pub fn resolve(reference: &str, context: &Context) -> Result<Resolved> {
    let found = find(reference, context)?;
    let path = found.path(reference, context)?;
    Ok(match found {
        Found::Registered(snapshot) => Resolved { path, ..Resolved::from(&*snapshot) },
        Found::Foreign(foreign) => {
            Resolved { reference: foreign.name.to_string(), path, snapshot: None, name: Some(foreign.name) }
        }
        Found::Unregistered(_) => {
            Resolved { reference: path.display().to_string(), path, snapshot: None, name: None }
        }
    })
}

/// Finds what a reference leads to.
pub fn find(reference: &str, context: &Context) -> Result<Found> {
    if let Some(snapshot) = by_full_name(reference, context)? {
        return Ok(Found::Registered(Box::new(snapshot)));
    }
    let snapshots = match Store::at(&context.settings.home.value).snapshots() {
        Ok(snapshots) => snapshots,
        // A path needs no registry, be it damaged or of a newer version.
        Err(_) if matches!(reference.parse(), Ok(ModelRef::Path(_))) => Vec::new(),
        Err(error) => return Err(error),
    };
    let matches = match matching(reference, &snapshots, context)? {
        Matches::Path(path) => return by_path(&path, &snapshots),
        Matches::Foreign(foreign) => return Ok(Found::Foreign(foreign)),
        Matches::Snapshots(matches) => matches,
    };
    match matches.first() {
        Some(newest) => Ok(Found::Registered(Box::new((*newest).clone()))),
        None if Path::new(reference).exists() => by_path(Path::new(reference), &snapshots),
        None => match alias_target(reference, context) {
            Some(target) => foreign::find(&target, context)?.map(|found| Found::Foreign(Box::new(found))),
            None => None,
        }
        .ok_or_else(|| not_found(reference, &snapshots)),
    }
}

/// The registered model with exactly this name, if there is one: nothing else is looked at, however many there are.
fn by_full_name(reference: &str, context: &Context) -> Result<Option<Snapshot>> {
    let Ok(ModelRef::Named { name, revision, file }) = reference.parse() else { return Ok(None) };
    let Some(registry) = Store::at(&context.settings.home.value).registry()? else { return Ok(None) };
    let named = registry.snapshots_of(&name)?;
    Ok(narrow(named.iter().collect(), revision.as_ref(), file.as_ref()).first().map(|found| (*found).clone()))
}

/// The full name that an alias stands for, with what is asked beyond it.
fn alias_target(reference: &str, context: &Context) -> Option<ModelRef> {
    let ModelRef::Short { text, revision, file } = reference.parse().ok()? else { return None };
    let target = context.settings.aliases.get(&text).map(String::as_str).or(aliases::repository(&text))?;
    match target.parse().ok()? {
        ModelRef::Named { name, revision: own_revision, file: own_file } => {
            Some(ModelRef::Named { name, revision: revision.or(own_revision), file: file.or(own_file) })
        }
        _ => None,
    }
}

/// Every registered snapshot that is meant, newest first: all revisions of one model, or those that the
/// reference narrows them to.
pub fn registered(reference: &str, context: &Context) -> Result<Vec<Snapshot>> {
    let snapshots = Store::at(&context.settings.home.value).snapshots()?;
    if let Matches::Snapshots(matches) = matching(reference, &snapshots, context)?
        && !matches.is_empty()
    {
        return Ok(matches.into_iter().cloned().collect());
    }
    match find(reference, context)? {
        Found::Registered(snapshot) => Ok(vec![*snapshot]),
        Found::Unregistered(path) => Err(not_registered(&path.display().to_string())),
        Found::Foreign(foreign) => Err(not_registered(&foreign.name.to_string())),
    }
}

fn not_registered(model: &str) -> Error {
    Error::new(Code::ModelNotFound, format!("{model} is not a registered model"))
        .hint("mlx-cache list shows the models that are")
}

/// What a reference may mean, before anything is looked for on disk.
enum Matches<'a> {
    Path(PathBuf),
    /// Of one model, newest first; none if there is no such model.
    Snapshots(Vec<&'a Snapshot>),
    /// Another tool has exactly this model, and it is not registered.
    Foreign(Box<Foreign>),
}

fn matching<'a>(reference: &str, snapshots: &'a [Snapshot], context: &Context) -> Result<Matches<'a>> {
    let parsed: ModelRef = match reference.parse() {
        Ok(parsed) => parsed,
        Err(error) => {
            // Not a full name, but it may be a part of one, such as `org/`.
            return match containing(reference, snapshots) {
                parts if parts.is_empty() && Path::new(reference).exists() => {
                    Ok(Matches::Path(PathBuf::from(reference)))
                }
                parts if parts.is_empty() => {
                    let begin: String = reference.chars().take(100).collect();
                    let begin = begin.escape_debug();
                    // What is wrong may be a part of it, which says little by itself.
                    let told = error.message().contains(&format!("\"{begin}\""));
                    Err(if told { error } else { error.context(format!("'{begin}'")) })
                }
                parts => of_one_model(reference, parts),
            };
        }
    };
    let (found, revision, file) = match parsed {
        ModelRef::Path(path) => return Ok(Matches::Path(path)),
        ModelRef::Named { name, revision, file } => {
            let named = narrow(named(&name, snapshots), revision.as_ref(), file.as_ref());
            if !named.is_empty() {
                return of_one_model(reference, named);
            }
            let full = ModelRef::Named { name: name.clone(), revision: revision.clone(), file: file.clone() };
            // What lies in the folder where the user is comes before other tools' models.
            if !Path::new(reference).exists()
                && let Some(foreign) = foreign::find(&full, context)?
            {
                return Ok(Matches::Foreign(Box::new(foreign)));
            }
            (containing(&name.to_string(), snapshots), revision, file)
        }
        ModelRef::Short { text, revision, file } => {
            if let Some(target) = context.settings.aliases.get(&text) {
                return by_alias(&text, target, revision, file, snapshots);
            }
            (short(&text, snapshots), revision, file)
        }
    };
    of_one_model(reference, narrow(found, revision.as_ref(), file.as_ref()))
}

/// What an alias of the user's stands for; what is asked beyond it comes first.
fn by_alias<'a>(
    alias: &str,
    target: &str,
    revision: Option<RevisionSpec>,
    file: Option<FileChoice>,
    snapshots: &'a [Snapshot],
) -> Result<Matches<'a>> {
    let target: ModelRef = target.parse().map_err(|error: Error| error.context(format!("alias {alias}")))?;
    let (found, own_revision, own_file) = match target {
        ModelRef::Path(path) => return Ok(Matches::Path(path)),
        ModelRef::Named { name, revision, file } => (named(&name, snapshots), revision, file),
        ModelRef::Short { text, revision, file } => (short(&text, snapshots), revision, file),
    };
    let narrowed = narrow(found, revision.or(own_revision).as_ref(), file.or(own_file).as_ref());
    of_one_model(alias, narrowed)
}

/// Models with this name, in any case of letters.
fn named<'a>(name: &ModelName, snapshots: &'a [Snapshot]) -> Vec<&'a Snapshot> {
    snapshots.iter().filter(|snapshot| snapshot.name.is_same(name)).collect()
}

/// Models that a short text means: by our own alias, by the last part of the name, or by any part.
fn short<'a>(text: &str, snapshots: &'a [Snapshot]) -> Vec<&'a Snapshot> {
    let wanted = text.to_lowercase();
    let aliased = aliases::repository(text).map(str::to_lowercase);
    let alias =
        |snapshot: &&Snapshot| aliased.as_deref() == Some(snapshot.name.to_string().to_lowercase().as_str());
    let last = |snapshot: &&Snapshot| snapshot.name.name().to_lowercase() == wanted;
    for is_meant in [&alias as &dyn Fn(&&Snapshot) -> bool, &last] {
        let found: Vec<&Snapshot> = snapshots.iter().filter(|snapshot| is_meant(snapshot)).collect();
        if !found.is_empty() {
            return found;
        }
    }
    containing(text, snapshots)
}

/// Models with this part in their names, in any case of letters.
fn containing<'a>(part: &str, snapshots: &'a [Snapshot]) -> Vec<&'a Snapshot> {
    let part = part.trim().to_lowercase();
    let holds = |snapshot: &&Snapshot| snapshot.name.to_string().to_lowercase().contains(&part);
    if part.is_empty() { Vec::new() } else { snapshots.iter().filter(holds).collect() }
}

/// Those of the snapshots that have this revision and this file.
fn narrow<'a>(
    snapshots: Vec<&'a Snapshot>,
    revision: Option<&RevisionSpec>,
    file: Option<&FileChoice>,
) -> Vec<&'a Snapshot> {
    let has_revision = |snapshot: &&Snapshot| {
        revision.is_none_or(|wanted| {
            snapshot.revision.matches(wanted) || snapshot.branches.iter().any(|name| name == wanted.as_str())
        })
    };
    // Which file of a folder is meant is seen once its files are read.
    let has_file = |snapshot: &&Snapshot| match (file, &snapshot.entry) {
        (Some(file), Some(entry)) => file.matches(entry),
        _ => true,
    };
    snapshots.into_iter().filter(has_revision).filter(has_file).collect()
}

/// The snapshots, if all are of one model (they come newest first).
fn of_one_model<'a>(reference: &str, matches: Vec<&'a Snapshot>) -> Result<Matches<'a>> {
    if matches.windows(2).all(|pair| matches!(pair, [a, b] if a.name == b.name)) {
        return Ok(Matches::Snapshots(matches));
    }
    Err(ambiguous(reference, &matches))
}

/// A registered model that lies there, else the path itself.
fn by_path(path: &Path, snapshots: &[Snapshot]) -> Result<Found> {
    let expanded = expand_home(path);
    let absolute = plain_path(&expanded).map_err(|error| Error::io("resolve", &expanded, error))?;
    let at = |place: &Path| snapshots.iter().find(|snapshot| snapshot.path() == place);
    let registered = at(&absolute).or_else(|| match Layout::find(&absolute) {
        // A folder with one GGUF file stands for that file.
        Ok(Layout::Gguf(file)) => at(&file),
        _ => None,
    });
    if let Some(snapshot) = registered {
        return Ok(Found::Registered(Box::new(snapshot.clone())));
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

/// The file that a reference names, if it has that form.
fn file_choice(reference: &str) -> Option<FileChoice> {
    match reference.parse().ok()? {
        ModelRef::Named { file, .. } | ModelRef::Short { file, .. } => file,
        ModelRef::Path(_) => None,
    }
}

/// The one file of a snapshot that a tag such as `Q4_K_M` names.
fn file_of(snapshot: &Snapshot, file: &FileChoice, reference: &str, context: &Context) -> Result<PathBuf> {
    let registry = Store::at(&context.settings.home.value).registry()?;
    let files = registry.map_or(Ok(Vec::new()), |registry| registry.files(snapshot.id))?;
    let found: Vec<_> = files.iter().filter(|record| file.matches(&record.path)).collect();
    match (leader(found.iter().copied(), |record| record.path.as_str()), found.as_slice()) {
        (Some(first), _) => Ok(snapshot.root.join(first.path.as_path())),
        (None, [first, second, ..]) => Err(Error::new(
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
    let shown = names.get(..MATCHES).unwrap_or(&names).join(", ");
    let more = match names.len().saturating_sub(MATCHES) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Error::new(
        Code::ModelAmbiguous,
        format!("'{}' means more than one model: {shown}{more}", reference.escape_debug()),
    )
    .detail("matches", names.into_iter().map(Value::from).collect::<Vec<_>>())
    .hint("write more of the name")
}
