//! The report of `doctor`.

use schemars::JsonSchema;
use serde::Serialize;

use super::Data;

/// What was checked.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct DoctorReport {
    /// Every check, in a fixed order.
    pub checks: Vec<CheckReport>,
    /// How many checks ended how.
    pub summary: Summary,
}

/// One check.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct CheckReport {
    /// A word that stays the same from version to version.
    pub name: String,
    /// How it ended, after repairs if there were any.
    pub status: CheckStatus,
    /// What was found.
    pub detail: String,
    /// What to do about it; null if nothing needs doing.
    pub fix: Option<String>,
    /// What `--fix` did; null if it did nothing.
    pub fixed: Option<String>,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CheckStatus {
    /// As it should be.
    Ok,
    /// Things work, but not as well as they could.
    Warn,
    /// Something does not work.
    Fail,
}

/// Counts of checks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Summary {
    /// Checks that found everything as it should be.
    pub ok: usize,
    /// Checks that warn.
    pub warn: usize,
    /// Checks that failed.
    pub fail: usize,
}

impl DoctorReport {
    pub fn new(checks: Vec<CheckReport>) -> Self {
        let count = |status| checks.iter().filter(|check| check.status == status).count();
        let summary = Summary {
            ok: count(CheckStatus::Ok),
            warn: count(CheckStatus::Warn),
            fail: count(CheckStatus::Fail),
        };
        Self { checks, summary }
    }
}

impl Data for DoctorReport {
    /// 1 if a check failed.
    fn exit_status(&self) -> u8 {
        u8::from(self.summary.fail > 0)
    }
}
