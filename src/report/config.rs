//! The report of `config`.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::Data;

/// The settings in effect.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ConfigReport {
    /// The file that `config set` writes; it need not exist.
    pub file: String,
    /// The settings asked for, in a fixed order.
    pub settings: Vec<SettingReport>,
}

/// One setting.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct SettingReport {
    /// Its name; in config.toml too if it can be set there.
    pub key: String,
    /// The value in effect, null if there is none. Of a token only whether there is one.
    pub value: Value,
    /// Where the value comes from.
    pub origin: OriginReport,
    /// The variable, if the value comes from the environment.
    pub variable: Option<String>,
}

/// Where a value comes from; the first that has one wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OriginReport {
    /// A variable of the environment.
    Environment,
    /// config.toml.
    File,
    /// Built in.
    Default,
}

impl Data for ConfigReport {}
