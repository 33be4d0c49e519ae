//! `link`: what a tool wants to see is planned, shown, and made.

mod apply;
mod hub;
mod ollama;
mod plain;
mod plan;

use std::path::{Path, PathBuf};

use self::plan::{Plan, Step, What};
use super::resolve::{Found, find};
use crate::cli::link::LinkArgs;
use crate::context::Context;
use crate::dedupe;
use crate::error::{Code, Error, Result};
use crate::fs::plain_path;
use crate::ids::{FileChoice, Host, ModelRef, leader};
use crate::registry::{FileRecord, Registry, Snapshot};
use crate::report::link::{LinkEntryKind, LinkEntryReport, LinkEntryStatus, LinkReport};
use crate::settings::Settings;
use crate::store::Store;

pub fn run(args: &LinkArgs, context: &Context) -> Result<LinkReport> {
    let store = Store::at(&context.settings.home.value);
    let snapshot = match find(&args.model, context)? {
        Found::Registered(snapshot) if snapshot.origin.is_stored() => snapshot,
        other => return Err(not_stored(&other, &args.model)),
    };
    let mut registry = store.create()?;
    dedupe::settle(&store, &mut registry)?;
    let model = Model::read(*snapshot, &args.model, &registry)?;
    let plan = plan(&args.to, &model, &context.settings)?;
    let look = |registry: &Registry| apply::look(&plan, registry, args.undo, context);
    let planned = report(&plan, &model, look(&registry)?, args, true);
    if args.dry_run || planned.entries.iter().all(|entry| !is_work(entry.status)) {
        return Ok(LinkReport { dry_run: args.dry_run, ..planned });
    }
    if !args.yes {
        context.output.plan(&planned);
        let question = if args.undo { "take these away?" } else { "make these?" };
        if !context.cancel.while_waiting(|| context.output.confirm(question))? {
            context.output.note("nothing was changed");
            return Err(Error::new(Code::Interrupted, "not confirmed"));
        }
    }
    let statuses = if args.undo {
        apply::undo(&plan, &store, &mut registry, context)?
    } else {
        apply::make(&plan, &store, &mut registry, context)?
    };
    Ok(report(&plan, &model, statuses, args, false))
}

/// A model of the store, and those of its files that are meant.
struct Model {
    snapshot: Snapshot,
    files: Vec<FileRecord>,
}

impl Model {
    fn read(snapshot: Snapshot, reference: &str, registry: &Registry) -> Result<Self> {
        let mut files = registry.files(snapshot.id)?;
        let choice = match reference.parse() {
            Ok(ModelRef::Named { file, .. } | ModelRef::Short { file, .. }) => file,
            Ok(ModelRef::Path(_)) | Err(_) => None,
        };
        if let Some(choice) = choice {
            Self::narrow(&mut files, &choice, reference)?;
        }
        Ok(Self { snapshot, files })
    }

    /// Of several GGUF files the one that is meant stays; what is no GGUF file stays anyway.
    fn narrow(files: &mut Vec<FileRecord>, choice: &FileChoice, reference: &str) -> Result<()> {
        files.retain(|file| !file.path.has_extension("gguf") || choice.matches(&file.path));
        if files.iter().any(|file| file.path.has_extension("gguf")) {
            return Ok(());
        }
        Err(Error::new(Code::FileNotFound, format!("{reference} names no file of the model"))
            .hint("mlx-cache show MODEL --files lists what it has"))
    }

    /// The only GGUF file, if there is just one.
    fn gguf(&self) -> Result<Option<&FileRecord>> {
        let found: Vec<_> = self.files.iter().filter(|file| file.path.has_extension("gguf")).collect();
        match found.as_slice() {
            [] => Ok(None),
            [only] => Ok(Some(only)),
            parts if leader(parts.iter().copied(), |file| file.path.as_str()).is_some() => {
                let name = &self.snapshot.name;
                let message = format!("{name} is a GGUF model in {} parts", parts.len());
                Err(Error::new(Code::ModelUnsupported, message)
                    .hint("join the parts with `llama-gguf-split --merge`, then add that file"))
            }
            _ => Err(Error::new(
                Code::ModelAmbiguous,
                format!("{} has several GGUF files", self.snapshot.name),
            )
            .hint("name one of them: org/name:Q4_K_M")),
        }
    }

    /// Where its files can be read.
    fn path_of(&self, file: &FileRecord) -> PathBuf {
        self.snapshot.root.join(&file.path)
    }
}

fn plan(to: &str, model: &Model, settings: &Settings) -> Result<Plan> {
    match to {
        "hf" => hub::plan(model, &settings.hf_hub_cache.value),
        "ollama" => ollama::plan(model, &settings.ollama_models.value),
        "lmstudio" => plain::lm_studio(model, &settings.lmstudio_models.value),
        folder => {
            let path = plain_path(Path::new(folder))
                .map_err(|error| Error::io("resolve", Path::new(folder), error))?;
            plain::folder(model, &path)
        }
    }
}

fn not_stored(found: &Found, reference: &str) -> Error {
    let what = match found {
        // Ollama's files have no names of their own.
        Found::Registered(snapshot) if snapshot.name.host() == Host::Ollama => snapshot.name.to_string(),
        Found::Registered(snapshot) => {
            format!("'{}' --name {}", snapshot.path().display(), snapshot.name)
        }
        Found::Foreign(foreign) => foreign.name.to_string(),
        Found::Unregistered(path) => format!("'{}'", path.display()),
    };
    Error::new(Code::InvalidRequest, format!("the store does not hold the content of {reference}"))
        .hint(format!("copy it into the store with: mlx-cache add --copy {what}"))
}

fn is_work(status: LinkEntryStatus) -> bool {
    matches!(status, LinkEntryStatus::Made | LinkEntryStatus::Removed)
}

fn report(
    plan: &Plan,
    model: &Model,
    statuses: Vec<LinkEntryStatus>,
    args: &LinkArgs,
    dry_run: bool,
) -> LinkReport {
    let entry = |(step, status): (&Step, LinkEntryStatus)| LinkEntryReport {
        path: step.path.display().to_string(),
        kind: match step.what {
            What::Content { .. } => LinkEntryKind::Content,
            What::Inner(_) => LinkEntryKind::Inner,
            What::Record(_) => LinkEntryKind::Record,
        },
        bytes: match step.what {
            What::Content { bytes, .. } => bytes,
            What::Inner(_) | What::Record(_) => 0,
        },
        status,
    };
    LinkReport {
        dry_run,
        undo: args.undo,
        reference: model.snapshot.name.to_string(),
        revision: model.snapshot.revision.to_string(),
        to: plan.source.to_owned(),
        root: plan.root.display().to_string(),
        name: plan.name.clone(),
        entries: plan.steps.iter().zip(statuses).map(entry).collect(),
        notes: if args.undo { Vec::new() } else { plan.notes.clone() },
    }
}
