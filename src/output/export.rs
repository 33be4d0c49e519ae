//! `export` as text: the file itself, or a line about it.

use crate::report::export::ExportReport;

use super::page::{Human, Page, printable};

impl Human for ExportReport {
    fn human(&self, page: &mut Page) {
        if let Some(registry) = &self.registry {
            // Texts, numbers and lists always become JSON.
            page.line(serde_json::to_string_pretty(registry).unwrap_or_default());
        }
        if let Some(file) = &self.file {
            let models = if self.snapshots == 1 { "model" } else { "models" };
            page.line(format!("wrote {} {models} to {}", self.snapshots, printable(file)));
        }
    }
}
