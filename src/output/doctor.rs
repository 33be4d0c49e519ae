//! `doctor` as text.

use crate::report::doctor::{CheckStatus, DoctorReport};

use super::page::{BAD, DOUBTFUL, FAINT, GOOD, Human, Page, printable};

impl Human for DoctorReport {
    fn human(&self, page: &mut Page) {
        let width = self.checks.iter().map(|check| check.name.len()).max().unwrap_or_default();
        for check in &self.checks {
            let status = match check.status {
                CheckStatus::Ok => page.styled(GOOD, "ok  "),
                CheckStatus::Warn => page.styled(DOUBTFUL, "warn"),
                CheckStatus::Fail => page.styled(BAD, "fail"),
            };
            page.line(format!("{status}  {:width$}  {}", check.name, printable(&check.detail)));
            let indent = " ".repeat(width + 8);
            if let Some(fixed) = &check.fixed {
                page.line(format!("{indent}{}", page.styled(GOOD, format!("fixed: {}", printable(fixed)))));
            }
            if let Some(fix) = &check.fix {
                page.line(format!("{indent}{}", page.styled(FAINT, format!("fix: {}", printable(fix)))));
            }
        }
        let summary = &self.summary;
        page.line(format!("\n{} ok, {} to look at, {} failed", summary.ok, summary.warn, summary.fail));
    }
}
