//! `config` as text.

use serde_json::Value;

use crate::report::config::{ConfigReport, OriginReport, SettingReport};

use super::page::{Human, Page};

impl Human for ConfigReport {
    fn human(&self, page: &mut Page) {
        page.table(
            ["SETTING", "VALUE", "FROM"],
            &[],
            self.settings.iter().map(|setting| [setting.key.clone(), value(&setting.value), origin(setting)]),
        );
    }
}

fn value(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn origin(setting: &SettingReport) -> String {
    match (setting.origin, &setting.variable) {
        (OriginReport::Environment, Some(variable)) => variable.clone(),
        (OriginReport::Environment, None) => "environment".to_owned(),
        (OriginReport::File, _) => "config.toml".to_owned(),
        (OriginReport::Default, _) => "default".to_owned(),
    }
}
