//! `config`: the settings in effect, and changes to config.toml.

use std::path::Path;

use serde_json::{Value, json};

use crate::cli::config::{self as cli, ConfigArgs};
use crate::context::Context;
use crate::error::{Code, Error, Result};
use crate::report::config::{ConfigAction, ConfigReport, OriginReport, SettingReport};
use crate::settings::Settings;
use crate::settings::edit::{self, Assignment, KeyName};
use crate::settings::value::{Origin, Setting};

pub fn run(args: &ConfigArgs, context: &Context) -> Result<ConfigReport> {
    let settings = &context.settings;
    let file = settings.config_file();
    let problem = context.problem.as_ref().map(|problem| problem.message().to_owned());
    if let Some(problem) = &problem {
        context.output.warn(problem);
    }
    let report = |action, settings| ConfigReport { action, file: shown(&file), problem, settings };
    match &args.action {
        None => Ok(report(ConfigAction::Show, rows(settings))),
        Some(cli::ConfigAction::Get { key }) => match row_of(settings, key) {
            Some(row) => Ok(report(ConfigAction::Get, vec![row])),
            None => Err(unknown(key, settings)),
        },
        Some(cli::ConfigAction::Set { key, value }) => {
            edit::set(&file, &Assignment::parse(key, value).map_err(|error| elsewhere(key, error))?)?;
            let now = reloaded(context)?;
            let row = row_of(&now, key);
            if let Some(variable) = row.as_ref().and_then(|row| row.variable.as_ref()) {
                context.output.warn(format!("{variable} is set and wins over config.toml"));
            }
            Ok(report(ConfigAction::Set, row.into_iter().collect()))
        }
        Some(cli::ConfigAction::Unset { key }) => {
            let name = KeyName::parse(key).map_err(|error| elsewhere(key, error))?;
            if !edit::unset(&file, &name)? {
                context.output.warn(format!("{key} is not set in {}", file.display()));
            }
            Ok(report(ConfigAction::Unset, row_of(&reloaded(context)?, key).into_iter().collect()))
        }
    }
}

fn reloaded(context: &Context) -> Result<Settings> {
    Settings::load(&context.environment).map(|loaded| loaded.settings)
}

fn row_of(settings: &Settings, key: &str) -> Option<SettingReport> {
    rows(settings).into_iter().find(|row| row.key == key)
}

fn unknown(key: &str, settings: &Settings) -> Error {
    let known: Vec<_> = rows(settings).into_iter().map(|row| row.key).collect();
    Error::new(Code::InvalidRequest, format!("there is no setting '{}'", key.escape_debug()))
        .hint(format!("the settings are {}", known.join(", ")))
}

/// Some settings come from other tools' variables only: says so in place of "no such setting".
fn elsewhere(key: &str, error: Error) -> Error {
    let variable = match key {
        "home" => "MLX_CACHE_HOME",
        "hf_hub_cache" => "HF_HUB_CACHE",
        "hf_endpoint" => "HF_ENDPOINT",
        "hf_token" => "HF_TOKEN",
        "hf_disable_xet" => "HF_HUB_DISABLE_XET",
        "http_timeout" => "MLX_CACHE_HTTP_TIMEOUT",
        "http_retries" => "MLX_CACHE_HTTP_RETRIES",
        "ollama_models" => "OLLAMA_MODELS",
        _ => return error,
    };
    Error::new(Code::InvalidRequest, format!("{key} is not kept in config.toml"))
        .hint(format!("set the environment variable {variable}"))
}

/// Every setting, in the order of the documentation.
fn rows(settings: &Settings) -> Vec<SettingReport> {
    let mut rows = vec![
        row("home", &settings.home, shown(&settings.home.value)),
        row("default_model", &settings.default_model, settings.default_model.value.clone()),
        row("memory_limit", &settings.memory_limit, settings.memory_limit.value),
        row("offline", &settings.offline, settings.offline.value),
        row("auto_pull", &settings.auto_pull, settings.auto_pull.value.as_str()),
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
        row("hf_disable_xet", &settings.hf_disable_xet, settings.hf_disable_xet.value),
        row("http_timeout", &settings.http_timeout, settings.http_timeout.value.as_secs_f64()),
        row("http_retries", &settings.http_retries, settings.http_retries.value),
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
