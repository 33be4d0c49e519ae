//! `status`: what the store and other tools' caches hold.

use crate::cli::status::StatusArgs;
use crate::context::Context;
use crate::dedupe;
use crate::error::Result;
use crate::fs::space;
use crate::registry::Registry;
use crate::report::status::{DiskStatus, SourceStatus, StatusReport, StoreStatus};
use crate::settings::Settings;
use crate::sources::{self, Locations, Source, Survey};
use crate::store::Store;

pub fn run(_args: &StatusArgs, context: &Context) -> Result<StatusReport> {
    let home = &context.settings.home.value;
    let store = Store::at(home);
    let registry = store.registry()?;
    let counts = registry.as_ref().map(Registry::counts).transpose()?.unwrap_or_default();
    let (mut found, mut own) = (Vec::new(), Vec::new());
    for source in present_sources(&context.settings) {
        context.cancel.check()?;
        let scan = source.scan(&context.cancel)?;
        found.push(status_of(source.as_ref(), scan.survey()));
        if source.is_own() {
            own.push(scan);
        }
    }
    let reclaimable = dedupe::estimate(&own, &store, registry.as_ref())?;
    let disk = space(home)?;
    Ok(StatusReport {
        store: StoreStatus {
            path: home.display().to_string(),
            bytes: counts.blob_bytes.0,
            models: counts.models,
            blobs: counts.blobs,
        },
        sources: found,
        reclaimable_bytes: reclaimable.0,
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

fn status_of(source: &dyn Source, survey: Survey) -> SourceStatus {
    SourceStatus {
        name: source.name().to_owned(),
        path: source.root().display().to_string(),
        models: survey.models,
        bytes: survey.bytes,
        unreadable: survey.unreadable,
        own: source.is_own(),
    }
}
