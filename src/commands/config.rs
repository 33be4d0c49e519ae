//! `config`: the settings in effect.

use std::path::Path;

use serde_json::{Value, json};

use crate::cli::config::ConfigArgs;
use crate::context::Context;
use crate::error::Result;
use crate::report::config::{ConfigReport, OriginReport, SettingReport};
use crate::settings::Settings;
use crate::settings::value::{Origin, Setting};

pub fn run(_args: &ConfigArgs, context: &Context) -> Result<ConfigReport> {
    let settings = &context.settings;
    Ok(ConfigReport { file: shown(&settings.config_file()), settings: rows(settings) })
}

/// Every setting, in the order of the documentation.
fn rows(settings: &Settings) -> Vec<SettingReport> {
    let mut rows = vec![
        row("home", &settings.home, shown(&settings.home.value)),
        row("default_model", &settings.default_model, settings.default_model.value.clone()),
        row("memory_limit", &settings.memory_limit, settings.memory_limit.value),
        row("offline", &settings.offline, settings.offline.value),
        row("device", &settings.device, json!(settings.device.value)),
        row("threads", &settings.threads, settings.threads.value),
    ];
    for (name, target) in &settings.aliases {
        rows.push(SettingReport {
            key: format!("aliases.{name}"),
            value: Value::from(target.as_str()),
            origin: OriginReport::File,
            variable: None,
        });
    }
    rows.extend([
        row("hf_hub_cache", &settings.hf_hub_cache, shown(&settings.hf_hub_cache.value)),
        row("hf_endpoint", &settings.hf_endpoint, settings.hf_endpoint.value.clone()),
        row("hf_token", &settings.hf_token, settings.hf_token.value.as_ref().map(|_| "present")),
        row("ollama_models", &settings.ollama_models, shown(&settings.ollama_models.value)),
        row("lmstudio_models", &settings.lmstudio_models, shown(&settings.lmstudio_models.value)),
    ]);
    rows
}

fn row<T>(key: &str, setting: &Setting<T>, value: impl Into<Value>) -> SettingReport {
    let (origin, variable) = match setting.origin {
        Origin::Environment(variable) => (OriginReport::Environment, Some(variable.name.to_owned())),
        Origin::File => (OriginReport::File, None),
        Origin::Default => (OriginReport::Default, None),
    };
    SettingReport { key: key.to_owned(), value: value.into(), origin, variable }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
