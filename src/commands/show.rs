//! `show`: one model, read from its headers now.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::facts;
use super::foreign::Foreign;
use super::list;
use super::resolve::{Found, find};
use super::used_by::{Bulk, used_by};
use crate::cli::show::ShowArgs;
use crate::context::Context;
use crate::engine::format::layout::Layout;
use crate::engine::format::metadata;
use crate::engine::format::tensors;
use crate::engine::policy::{self, Machine, Policy};
use crate::engine::probe::{Probe, probe};
use crate::engine::request::LoadOptions;
use crate::engine::text::template::source_in_directory;
use crate::error::{Error, Result};
use crate::ids::SnapshotPath;
use crate::report::model::{ModelReport, ModelStatus};
use crate::report::show::{FileReport, ShowReport};
use crate::store::Store;

pub fn run(args: &ShowArgs, context: &Context) -> Result<ShowReport> {
    let found = find(&args.model, context)?;
    let path = found.path(&args.model, context)?;
    let (model, files, probed, bulk) = match found {
        Found::Registered(snapshot) => {
            let files = Store::at(&context.settings.home.value)
                .registry()?
                .map_or(Ok(Vec::new()), |registry| registry.files(snapshot.id))?;
            let bulk = Bulk::of_files(&files);
            let files = files
                .into_iter()
                .map(|file| FileReport {
                    path: file.path.to_string(),
                    bytes: file.bytes,
                    digest: Some(file.digest.to_string()),
                })
                .collect();
            (list::model(&snapshot), files, probe(&path), bulk)
        }
        Found::Foreign(foreign) => {
            let probed = probe(&path);
            let facts = facts::at(&path);
            (list::foreign(&foreign, facts), foreign_files(&foreign)?, probed, Bulk::of_foreign(&foreign))
        }
        Found::Unregistered(path) => {
            let probed = probe(&path)?;
            let files = files_of(&path, &probed)?;
            (unregistered(&path, &probed, &files), files, Ok(probed), None)
        }
    };
    let policy = probed.as_ref().ok().map(|probed| estimate(probed, context)).transpose()?.flatten();
    // A registered model whose files are damaged or gone is still shown, with the reason.
    let (capabilities, reason) = match probed {
        Ok(probed) => (
            probed.capabilities.iter().map(|capability| capability.name().to_owned()).collect(),
            probed.obstacle.map(|obstacle| obstacle.message),
        ),
        Err(error) => (Vec::new(), Some(error.message().to_owned())),
    };
    Ok(ShowReport {
        capabilities,
        used_by: used_by(bulk, context)?,
        memory_estimate_bytes: policy.as_ref().map(|policy| policy.estimate_bytes),
        context: policy.as_ref().map(|policy| policy.context as u64),
        runnable: reason.is_none(),
        reason,
        files,
        config: args.config.then(|| configuration(&path)).transpose()?,
        template: args.template.then(|| template(&path)).transpose()?,
        show_files: args.files,
        model,
    })
}

/// What running it here would take; `None` if it cannot run.
fn estimate(probed: &Probe, context: &Context) -> Result<Option<Policy>> {
    let Some(demand) = &probed.demand else { return Ok(None) };
    let settings = &context.settings;
    let options = LoadOptions {
        device: settings.device.value,
        memory_limit: settings.memory_limit.value,
        force: true,
        ..LoadOptions::default()
    };
    // Asking MLX for its devices would load it; Macs have a GPU.
    let machine = Machine::detect(cfg!(target_os = "macos"))?;
    Ok(policy::decide(&machine, &options, demand).ok())
}

fn unregistered(path: &Path, probed: &Probe, files: &[FileReport]) -> ModelReport {
    ModelReport {
        reference: path.display().to_string(),
        revision: None,
        kind: probed.kind.name().to_owned(),
        architecture: probed.architecture.clone(),
        parameters: Some(probed.parameters),
        quantization: probed.quantization.clone(),
        context_length: probed.context_length,
        bytes: files.iter().map(|file| file.bytes).sum(),
        origin: "path".to_owned(),
        status: ModelStatus::Ok,
        last_used: None,
        path: path.display().to_string(),
    }
}

fn foreign_files(foreign: &Foreign) -> Result<Vec<FileReport>> {
    let report = |(path, place): &(SnapshotPath, PathBuf)| {
        let metadata = std::fs::metadata(place).map_err(|error| Error::io("read", place, error))?;
        Ok(FileReport { path: path.to_string(), bytes: metadata.len(), digest: None })
    };
    foreign.files.iter().map(report).collect()
}

fn files_of(path: &Path, probed: &Probe) -> Result<Vec<FileReport>> {
    let folder = if path.is_dir() { path } else { path.parent().unwrap_or(path) };
    probed
        .files
        .iter()
        .map(|file| {
            let full = folder.join(file);
            let metadata = std::fs::metadata(&full).map_err(|error| Error::io("read", &full, error))?;
            Ok(FileReport { path: file.display().to_string(), bytes: metadata.len(), digest: None })
        })
        .collect()
}

/// config.json, or a GGUF's metadata without its tokenizer, which is long and has `--template`.
fn configuration(path: &Path) -> Result<Value> {
    match Layout::find(path)? {
        Layout::Safetensors { folder, .. } => {
            let path = folder.join("config.json");
            let text = std::fs::read(&path).map_err(|error| Error::io("read", &path, error))?;
            serde_json::from_slice(&text).map_err(|error| {
                Error::new(
                    crate::error::Code::IntegrityFailed,
                    format!("{} is not JSON: {error}", path.display()),
                )
                .hint("fetch the model again")
            })
        }
        layout @ Layout::Gguf(_) => {
            let (_, metadata) = tensors::open(&layout)?;
            let entries = metadata.map(|metadata| metadata.0).unwrap_or_default();
            let shown: Map<String, Value> = entries
                .into_iter()
                .filter(|(key, _)| !key.starts_with("tokenizer."))
                .map(|(key, value)| (key, as_json(value)))
                .collect();
            Ok(Value::Object(shown))
        }
    }
}

fn as_json(value: metadata::Value) -> Value {
    match value {
        metadata::Value::Unsigned(value) => json!(value),
        metadata::Value::Signed(value) => json!(value),
        metadata::Value::Float(value) => json!(value),
        metadata::Value::Bool(value) => json!(value),
        metadata::Value::Text(value) => json!(value),
        metadata::Value::Integers(values) => json!(values),
        metadata::Value::Floats(values) => json!(values),
        metadata::Value::Bools(values) => json!(values),
        metadata::Value::Texts(values) => json!(values),
    }
}

fn template(path: &Path) -> Result<Option<String>> {
    match Layout::find(path)? {
        Layout::Safetensors { folder, .. } => source_in_directory(&folder),
        layout @ Layout::Gguf(_) => {
            let (_, metadata) = tensors::open(&layout)?;
            Ok(metadata.and_then(|metadata| metadata.text("tokenizer.chat_template").map(str::to_owned)))
        }
    }
}
