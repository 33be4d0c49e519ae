//! `list`: the models that are known. One query and one look at each path; no file is opened.

use std::cmp::Reverse;

use crate::cli::list::{Format, KindFilter, ListArgs, SortKey, SourceFilter};
use crate::context::Context;
use crate::error::Result;
use crate::ids::Bytes;
use crate::registry::{Kind, Origin, Snapshot};
use crate::report::list::{ListForm, ListReport, ListedReport};
use crate::report::model::{ModelReport, ModelStatus};
use crate::store::Store;

pub fn run(args: &ListArgs, context: &Context) -> Result<ListReport> {
    let mut snapshots = Store::at(&context.settings.home.value).snapshots()?;
    snapshots.retain(|snapshot| {
        args.source.is_none_or(|source| source == source_of(snapshot.origin))
            && args.kind.is_none_or(|kind| kind == kind_of(snapshot.facts.kind))
    });
    match args.sort {
        // As the registry gives them.
        SortKey::Name => {}
        SortKey::Size => snapshots.sort_by_key(|snapshot| Reverse(snapshot.bytes)),
        SortKey::Used => snapshots.sort_by_key(|snapshot| Reverse(snapshot.last_used)),
        SortKey::Added => snapshots.sort_by_key(|snapshot| Reverse(snapshot.added_at)),
    }
    if args.reverse {
        snapshots.reverse();
    }
    let listed = |snapshot| ListedReport { model: model(snapshot), files: snapshot.file_count };
    Ok(ListReport {
        models: snapshots.iter().map(listed).collect(),
        total_bytes: snapshots.iter().map(|snapshot| snapshot.bytes).sum::<Bytes>().0,
        form: match args.format {
            Format::Table => ListForm::Table,
            Format::Csv => ListForm::Csv,
            Format::Names => ListForm::Names,
        },
    })
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
        Origin::LmStudio => SourceFilter::Lmstudio,
        Origin::Folder => SourceFilter::Folder,
    }
}

fn kind_of(kind: Kind) -> KindFilter {
    match kind {
        Kind::Generation => KindFilter::Generation,
        Kind::Embedding => KindFilter::Embedding,
        Kind::Other => KindFilter::Other,
    }
}
