//! `status`: what the store and other tools' caches hold.

use crate::cli::status::StatusArgs;
use crate::context::Context;
use crate::error::Result;
use crate::fs::space;
use crate::report::status::{DiskStatus, SourceStatus, StatusReport, StoreStatus};
use crate::settings::Settings;
use crate::sources::{self, Locations, Source};
use crate::store::Store;

pub fn run(_args: &StatusArgs, context: &Context) -> Result<StatusReport> {
    let home = &context.settings.home.value;
    let counts =
        Store::at(home).registry()?.map(|registry| registry.counts()).transpose()?.unwrap_or_default();
    let mut found = Vec::new();
    for source in present_sources(&context.settings) {
        context.cancel.check()?;
        found.push(survey(source.as_ref(), context)?);
    }
    let disk = space(home)?;
    Ok(StatusReport {
        store: StoreStatus {
            path: home.display().to_string(),
            bytes: counts.blob_bytes.0,
            models: counts.models,
            blobs: counts.blobs,
        },
        sources: found,
        disk: DiskStatus { free: disk.free, total: disk.total },
    })
}

/// The caches of other tools that exist where the settings say.
pub(super) fn present_sources(settings: &Settings) -> Vec<Box<dyn Source>> {
    sources::present(&Locations {
        hugging_face: settings.hf_hub_cache.value.clone(),
        ollama: settings.ollama_models.value.clone(),
        lm_studio: settings.lmstudio_models.value.clone(),
        store: settings.home.value.clone(),
    })
}

fn survey(source: &dyn Source, context: &Context) -> Result<SourceStatus> {
    let survey = source.scan(&context.cancel)?.survey();
    Ok(SourceStatus {
        name: source.name().to_owned(),
        path: source.root().display().to_string(),
        models: survey.models,
        bytes: survey.bytes,
        unreadable: survey.unreadable,
        own: source.is_own(),
    })
}
