//! `show` as text.

use crate::report::model::ModelStatus;
use crate::report::show::ShowReport;

use super::page::{Human, Page, printable};
use super::units;

impl Human for ShowReport {
    fn human(&self, page: &mut Page) {
        let model = &self.model;
        let mut rows = vec![("Model", model.reference.clone())];
        rows.extend(model.revision.clone().map(|revision| ("Revision", revision)));
        rows.push(("Kind", model.kind.clone()));
        rows.extend(model.architecture.clone().map(|architecture| ("Architecture", architecture)));
        rows.extend(model.parameters.map(|parameters| ("Parameters", units::count(parameters))));
        rows.extend(model.quantization.clone().map(|quantization| ("Format", quantization)));
        rows.extend(model.context_length.map(|context| ("Context", format!("{context} tokens"))));
        if !self.capabilities.is_empty() {
            rows.push(("Can", self.capabilities.join(", ")));
        }
        let files = if self.files.len() == 1 { "file" } else { "files" };
        rows.push(("Size", format!("{} in {} {files}", units::bytes(model.bytes), self.files.len())));
        rows.push(("Origin", model.origin.clone()));
        rows.push(("Path", model.path.clone()));
        if !self.used_by.is_empty() {
            rows.push(("Used by", self.used_by.join(", ")));
        }
        rows.push(("Last used", model.last_used.map_or_else(|| "never".to_owned(), |time| page.ago(time))));
        match (self.memory_estimate_bytes, self.context, &self.reason) {
            (Some(bytes), Some(context), _) => {
                rows.push(("Runs", "yes".to_owned()));
                rows.push(("Memory", format!("{} with {context} tokens of context", units::bytes(bytes))));
            }
            (_, _, Some(reason)) => rows.push(("Runs", format!("no: {reason}"))),
            _ => {}
        }
        if model.status == ModelStatus::Missing {
            rows.push(("Status", "its files are gone".to_owned()));
        }
        page.pairs(rows);
        if self.show_files {
            page.line("");
            page.table(
                ["FILE", "SIZE", "SHA-256"],
                &[1],
                self.files.iter().map(|file| {
                    [
                        file.path.clone(),
                        units::bytes(file.bytes),
                        file.digest.clone().unwrap_or_else(|| "-".to_owned()),
                    ]
                }),
            );
        }
        if let Some(config) = &self.config {
            page.line("");
            page.line(serde_json::to_string_pretty(config).unwrap_or_default());
        }
        match &self.template {
            Some(Some(template)) => {
                page.line("");
                for line in template.lines() {
                    page.line(printable(line));
                }
            }
            Some(None) => page.line("\nno chat template"),
            None => {}
        }
    }
}
