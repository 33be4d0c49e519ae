//! `export`: the registry as a file.

use std::path::Path;

use jiff::Timestamp;

use crate::cli::export::ExportArgs;
use crate::context::Context;
use crate::error::{Code, Error, Result};
use crate::fs::write_atomic;
use crate::registry::{FileRecord, Snapshot};
use crate::report::export::{ExportReport, ExportedFile, ExportedPlace, ExportedSnapshot, RegistryFile};
use crate::settings::Settings;
use crate::store::Store;

/// Names of models and of folders are nobody else's business.
const MODE: u32 = 0o600;

pub fn run(args: &ExportArgs, context: &Context) -> Result<ExportReport> {
    let registry = Store::at(&context.settings.home.value).registry()?;
    let mut snapshots = Vec::new();
    if let Some(registry) = &registry {
        for snapshot in registry.snapshots()? {
            let files = registry.files(snapshot.id)?;
            snapshots.push(exported(&snapshot, &files, &context.settings)?);
        }
    }
    let file = RegistryFile {
        kind: RegistryFile::KIND.to_owned(),
        version: RegistryFile::VERSION,
        written_by: env!("CARGO_PKG_VERSION").to_owned(),
        exported_at: Timestamp::now(),
        snapshots,
    };
    let files = || file.snapshots.iter().flat_map(|snapshot| &snapshot.files);
    let mut report = ExportReport {
        file: None,
        snapshots: file.snapshots.len() as u64,
        files: files().count() as u64,
        bytes: files().map(|file| file.bytes).sum(),
        registry: None,
    };
    if args.file == Path::new("-") {
        report.registry = Some(file);
    } else {
        write(&args.file, args.force, &file)?;
        report.file = Some(args.file.display().to_string());
    }
    Ok(report)
}

fn write(path: &Path, force: bool, file: &RegistryFile) -> Result<()> {
    if path.is_dir() {
        return Err(Error::new(Code::InvalidRequest, format!("{} is a folder", path.display()))
            .detail("path", path.display().to_string())
            .hint("give the name of a file"));
    }
    if !force && std::fs::symlink_metadata(path).is_ok() {
        return Err(Error::new(Code::InvalidRequest, format!("{} exists already", path.display()))
            .detail("path", path.display().to_string())
            .hint("choose another name, or replace it with --force"));
    }
    let path = std::path::absolute(path).map_err(|error| Error::io("resolve", path, error))?;
    let mut text = serde_json::to_string_pretty(file)
        .map_err(|error| Error::internal(format!("cannot write an export: {error}")))?;
    text.push('\n');
    write_atomic(&path, text.as_bytes(), MODE)
}

fn exported(snapshot: &Snapshot, files: &[FileRecord], settings: &Settings) -> Result<ExportedSnapshot> {
    let Snapshot { name, facts, .. } = snapshot;
    Ok(ExportedSnapshot {
        host: name.host().as_str().to_owned(),
        org: name.org().to_owned(),
        name: name.name().to_owned(),
        revision: snapshot.revision.to_string(),
        origin: snapshot.origin.as_str().to_owned(),
        place: if snapshot.origin.is_stored() { None } else { Some(place(&snapshot.root, settings)?) },
        entry: snapshot.entry.as_ref().map(ToString::to_string),
        model_kind: facts.kind.as_str().to_owned(),
        architecture: facts.architecture.clone(),
        parameters: facts.parameters,
        quantization: facts.quantization.clone(),
        context_length: facts.context_length,
        added_at: snapshot.added_at,
        last_used: snapshot.last_used,
        files: files
            .iter()
            .map(|file| ExportedFile {
                path: file.path.to_string(),
                digest: file.digest.to_string(),
                bytes: file.bytes,
            })
            .collect(),
    })
}

/// The caches that machines have in different places, by the words that exports use.
pub(super) fn caches(settings: &Settings) -> [(&'static str, &Path); 3] {
    [
        ("hf", &settings.hf_hub_cache.value),
        ("ollama", &settings.ollama_models.value),
        ("lmstudio", &settings.lmstudio_models.value),
    ]
}

fn place(root: &Path, settings: &Settings) -> Result<ExportedPlace> {
    let inside =
        caches(settings).into_iter().find_map(|(word, folder)| Some((word, root.strip_prefix(folder).ok()?)));
    let (cache, path) = match inside {
        Some((word, below)) => (Some(word.to_owned()), below),
        None => (None, root),
    };
    let path = path.to_str().ok_or_else(|| Error::internal("a registered path is not UTF-8"))?.to_owned();
    Ok(ExportedPlace { cache, path })
}
