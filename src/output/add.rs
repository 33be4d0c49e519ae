//! `add` as text.

use crate::report::add::AddReport;

use super::page::{Human, Page, printable};
use super::units;

impl Human for AddReport {
    fn human(&self, page: &mut Page) {
        for model in &self.models {
            let what = match (model.already_known, model.origin.as_str()) {
                (true, _) => "already known:",
                (false, "copied") => "copied",
                (false, _) => "added",
            };
            let files = if model.files == 1 { "file" } else { "files" };
            page.line(format!(
                "{what} {} ({} in {} {files})",
                printable(&model.reference),
                units::bytes(model.bytes),
                model.files
            ));
        }
        for skipped in &self.skipped {
            page.line(format!("left out {}: {}", printable(&skipped.reference), printable(&skipped.reason)));
        }
        if self.models.is_empty() && self.skipped.is_empty() {
            page.line("there is no model to add");
        }
    }
}
