//! `import`: an export is read and checked as a whole, then compared with what is here, then registered.

mod file;
mod here;

use crate::cli::import::ImportArgs;
use crate::context::Context;
use crate::error::Result;
use crate::ids::Host;
use crate::output::progress::Unit;
use crate::registry::{NewSnapshot, Registry, Snapshot};
use crate::report::import::{ImportReport, ImportedReport, MissingReport};
use crate::store::Store;

use self::file::Entry;
use self::here::{Absence, look};

pub fn run(args: &ImportArgs, context: &Context) -> Result<ImportReport> {
    let entries = file::read(&args.file, context)?;
    let store = Store::at(&context.settings.home.value);
    let mut report = ImportReport { dry_run: args.dry_run, registered: Vec::new(), missing: Vec::new() };
    let mut registry =
        if args.dry_run || entries.is_empty() { store.registry()? } else { Some(store.create()?) };
    let total = entries.iter().flat_map(|entry| &entry.new.files).map(|file| file.bytes).sum();
    let bar = args.verify.then(|| context.output.progress("hashing", Some(total), Unit::Bytes));
    let progress = |bytes| {
        if let Some(bar) = &bar {
            bar.advance(bytes);
        }
        context.cancel.check()
    };
    for mut entry in entries {
        context.cancel.check()?;
        let known = match &registry {
            Some(registry) => registry.snapshots_of(&entry.new.name)?,
            None => Vec::new(),
        };
        if let Some(known) = same(&known, &entry.new).filter(|known| known.path().exists()) {
            report.registered.push(imported(&entry, Some(known.path().display().to_string()), true));
            continue;
        }
        let absence = match taken(&known, &entry) {
            Some(absence) => Some(absence),
            None => look(&mut entry.new, &store, args.verify, &progress)?,
        };
        match (absence, &mut registry) {
            (Some(absence), _) => report.missing.push(missing(&entry, absence)),
            (None, Some(registry)) if !args.dry_run => {
                register(&mut entry, &store, registry)?;
                let path = same(&registry.snapshots_of(&entry.new.name)?, &entry.new)
                    .map(|new| new.path().display().to_string());
                report.registered.push(imported(&entry, path, false));
            }
            (None, _) => {
                let path = (!entry.new.origin.is_stored()).then(|| entry.new.root.display().to_string());
                report.registered.push(imported(&entry, path, false));
            }
        }
    }
    Ok(report)
}

/// Of the snapshots of its name the one that an entry is of.
fn same<'a>(known: &'a [Snapshot], new: &NewSnapshot) -> Option<&'a Snapshot> {
    known.iter().find(|known| known.revision == new.revision)
}

/// A name that another model has here already. Commits of one repository stand side by side.
fn taken(known: &[Snapshot], entry: &Entry) -> Option<Absence> {
    let other = known.first()?;
    let is_pinned = entry.new.name.host() == Host::HuggingFace && other.name.host() == Host::HuggingFace;
    let is_same = other.revision == entry.new.revision;
    (!is_pinned && !is_same).then(|| Absence {
        reason: format!("the name belongs to another model, at {}", other.path().display()),
        bytes: 0,
        can_be_brought: false,
    })
}

fn register(entry: &mut Entry, store: &Store, registry: &mut Registry) -> Result<()> {
    let lock = store.lock()?;
    store.register(&lock, registry, &mut entry.new, &[])?;
    registry.set_times(&entry.new.name, &entry.new.revision, entry.added_at, entry.last_used)
}

fn bytes(entry: &Entry) -> u64 {
    entry.new.files.iter().map(|file| file.bytes).fold(0, u64::saturating_add)
}

fn imported(entry: &Entry, path: Option<String>, already_known: bool) -> ImportedReport {
    ImportedReport {
        reference: entry.new.name.to_string(),
        revision: entry.new.revision.to_string(),
        origin: entry.new.origin.as_str().to_owned(),
        path,
        bytes: bytes(entry),
        already_known,
    }
}

fn missing(entry: &Entry, absence: Absence) -> MissingReport {
    let name = entry.new.name.to_string();
    let own = name.split_once(':').map_or(name.as_str(), |(_, own)| own);
    let command = match entry.new.name.host() {
        Host::HuggingFace => format!("mlx-cache pull {name}@{}", entry.new.revision),
        Host::Ollama => format!("ollama pull {own} && mlx-cache add ollama"),
        Host::LmStudio => format!("lms get {own} && mlx-cache add lmstudio"),
        Host::Local => format!("mlx-cache add PATH --name {name}"),
    };
    MissingReport {
        reference: name.clone(),
        revision: entry.new.revision.to_string(),
        origin: entry.new.origin.as_str().to_owned(),
        reason: absence.reason,
        bytes_missing: absence.bytes,
        command: absence.can_be_brought.then_some(command),
    }
}
