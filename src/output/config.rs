//! `config` as text.

use serde_json::Value;

use crate::report::config::{ConfigAction, ConfigReport, OriginReport, SettingReport};

use super::page::{FAINT, Human, Page, printable};

impl Human for ConfigReport {
    fn human(&self, page: &mut Page) {
        match self.action {
            ConfigAction::Show => {
                page.table(
                    ["SETTING", "VALUE", "FROM"],
                    &[],
                    self.settings
                        .iter()
                        .map(|setting| [setting.key.clone(), shown(&setting.value), origin(setting)]),
                );
                page.line(page.styled(FAINT, format!("config.toml: {}", printable(&self.file))));
            }
            // The bare value, for scripts; nothing for none.
            ConfigAction::Get => {
                for setting in &self.settings {
                    page.line(if setting.value.is_null() { String::new() } else { shown(&setting.value) });
                }
            }
            ConfigAction::Set | ConfigAction::Unset => {
                for setting in &self.settings {
                    page.line(format!("{} = {} ({})", setting.key, shown(&setting.value), origin(setting)));
                }
            }
        }
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => printable(text),
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
