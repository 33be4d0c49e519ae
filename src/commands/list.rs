//! `list`: the models that are known. One query and one look at each path; of those that are not added
//! the headers are read.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::path::PathBuf;

use jiff::Timestamp;

use super::facts;
use super::foreign::Foreign;
use crate::cli::list::{Format, KindFilter, ListArgs, SortKey, SourceFilter};
use crate::context::Context;
use crate::error::Result;
use crate::fs::try_map;
use crate::ids::ModelName;
use crate::registry::{Facts, Kind, Origin, Snapshot};
use crate::report::list::{ListForm, ListReport, ListedReport};
use crate::report::model::{ModelReport, ModelStatus};
use crate::store::Store;

pub fn run(args: &ListArgs, context: &Context) -> Result<ListReport> {
    let snapshots = Store::at(&context.settings.home.value).snapshots()?;
    let wanted = |origin| match args.source {
        None | Some(SourceFilter::All) => true,
        Some(source) => source == source_of(origin),
    };
    let mut rows: Vec<Row> = snapshots
        .iter()
        .filter(|snapshot| wanted(snapshot.origin))
        .map(|snapshot| Row {
            listed: ListedReport { model: model(snapshot), files: snapshot.file_count },
            added_at: Some(snapshot.added_at),
        })
        .collect();
    if args.source.is_some() {
        rows.extend(not_added(&snapshots, wanted, context)?);
        // As the registry gives its own; of one model the newest stays first.
        rows.sort_by_cached_key(|row| row.listed.model.reference.to_lowercase());
    }
    rows.retain(|row| args.kind.is_none_or(|kind| kind_of(kind) == row.listed.model.kind));
    match args.sort {
        SortKey::Name => {}
        SortKey::Size => rows.sort_by_key(|row| Reverse(row.listed.model.bytes)),
        SortKey::Used => rows.sort_by_key(|row| Reverse(row.listed.model.last_used)),
        SortKey::Added => rows.sort_by_key(|row| Reverse(row.added_at)),
    }
    if args.reverse {
        rows.reverse();
    }
    let models: Vec<ListedReport> = rows.into_iter().map(|row| row.listed).collect();
    Ok(ListReport {
        total_bytes: models.iter().map(|listed| listed.model.bytes).sum(),
        models,
        narrowed: args.kind.is_some() || args.source.is_some_and(|source| source != SourceFilter::All),
        form: match args.format {
            Format::Table => ListForm::Table,
            Format::Csv => ListForm::Csv,
            Format::Names => ListForm::Names,
        },
    })
}

/// A model of the list, and what it is sorted by besides.
struct Row {
    listed: ListedReport,
    added_at: Option<Timestamp>,
}

/// The models of other tools that are not registered. Their headers are read, several at a time.
fn not_added(snapshots: &[Snapshot], wanted: impl Fn(Origin) -> bool, context: &Context) -> Result<Vec<Row>> {
    let places: HashSet<(PathBuf, Option<String>)> = snapshots
        .iter()
        .flat_map(|known| {
            [known.path(), known.root.clone()].map(|path| (path, blob_user(known.origin, &known.name)))
        })
        .collect();
    let mut found = super::foreign::all(&wanted, context)?;
    found.retain(|other| !places.contains(&(other.path.clone(), blob_user(other.origin, &other.name))));
    try_map(&found, |foreign| {
        context.cancel.check()?;
        let listed = ListedReport {
            model: self::foreign(foreign, facts::at(&foreign.path)),
            files: foreign.files.len() as u64,
        };
        Ok(Row { listed, added_at: None })
    })
}

/// Models of Ollama may share a file: only their names tell them apart.
fn blob_user(origin: Origin, name: &ModelName) -> Option<String> {
    (origin == Origin::Ollama).then(|| name.to_string().to_lowercase())
}

/// A model of another tool as reports show it.
pub fn foreign(foreign: &Foreign, facts: Facts) -> ModelReport {
    ModelReport {
        reference: foreign.name.to_string(),
        revision: foreign.revision.as_ref().map(ToString::to_string),
        kind: facts.kind.as_str().to_owned(),
        architecture: facts.architecture,
        parameters: facts.parameters,
        quantization: facts.quantization,
        context_length: facts.context_length,
        bytes: foreign.bytes,
        origin: foreign.origin.as_str().to_owned(),
        status: if foreign.fault.is_some() { ModelStatus::Missing } else { ModelStatus::Foreign },
        last_used: None,
        path: foreign.path.display().to_string(),
    }
}

/// A registered snapshot as reports show it.
pub fn model(snapshot: &Snapshot) -> ModelReport {
    let path = snapshot.path();
    ModelReport {
        reference: snapshot.name.to_string(),
        revision: Some(snapshot.revision.to_string()),
        kind: snapshot.facts.kind.as_str().to_owned(),
        architecture: snapshot.facts.architecture.clone(),
        parameters: snapshot.facts.parameters,
        quantization: snapshot.facts.quantization.clone(),
        context_length: snapshot.facts.context_length,
        bytes: snapshot.bytes.0,
        origin: snapshot.origin.as_str().to_owned(),
        status: if path.exists() { ModelStatus::Ok } else { ModelStatus::Missing },
        last_used: snapshot.last_used,
        path: path.display().to_string(),
    }
}

fn source_of(origin: Origin) -> SourceFilter {
    match origin {
        Origin::Copied | Origin::Hub => SourceFilter::Store,
        Origin::HuggingFaceCache => SourceFilter::Hf,
        Origin::Ollama => SourceFilter::Ollama,
        Origin::LmStudio => SourceFilter::Lmstudio,
        Origin::Folder => SourceFilter::Folder,
    }
}

fn kind_of(kind: KindFilter) -> &'static str {
    match kind {
        KindFilter::Generation => Kind::Generation,
        KindFilter::Embedding => Kind::Embedding,
        KindFilter::Other => Kind::Other,
    }
    .as_str()
}
