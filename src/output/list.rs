//! `list` as text.

use crate::report::list::ListReport;
use crate::report::model::{ModelReport, ModelStatus};

use super::page::{FAINT, Human, Page};
use super::units;

impl Human for ListReport {
    fn human(&self, page: &mut Page) {
        if self.models.is_empty() {
            page.line("no models; add one with: mlx-cache add PATH");
            return;
        }
        let rows: Vec<_> = self.models.iter().map(|model| row(model, page)).collect();
        page.table(["MODEL", "KIND", "ARCHITECTURE", "PARAMETERS", "FORMAT", "SIZE", "USED"], &[3, 5], rows);
        let count = self.models.len();
        let models = if count == 1 { "model" } else { "models" };
        page.line(page.styled(FAINT, format!("{count} {models}, {}", units::bytes(self.total_bytes))));
    }
}

fn row(model: &ModelReport, page: &Page) -> [String; 7] {
    let dash = || "-".to_owned();
    let reference = match model.status {
        ModelStatus::Ok => model.reference.clone(),
        ModelStatus::Missing => format!("{} (missing)", model.reference),
    };
    [
        reference,
        model.kind.clone(),
        model.architecture.clone().unwrap_or_else(dash),
        model.parameters.map_or_else(dash, units::count),
        model.quantization.clone().unwrap_or_else(dash),
        units::bytes(model.bytes),
        model.last_used.map_or_else(|| "never".to_owned(), |time| page.ago(time)),
    ]
}
