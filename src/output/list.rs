//! `list` as text.

use crate::report::list::{ListForm, ListReport, ListedReport};
use crate::report::model::{ModelReport, ModelStatus};

use super::page::{FAINT, Human, Page, printable};
use super::units;

impl Human for ListReport {
    fn human(&self, page: &mut Page) {
        match self.form {
            ListForm::Table => table(self, page),
            ListForm::Csv => csv(&self.models, page),
            ListForm::Names => {
                for listed in &self.models {
                    page.line(printable(&listed.model.reference));
                }
            }
        }
    }
}

fn table(report: &ListReport, page: &mut Page) {
    if report.models.is_empty() {
        page.line(if report.narrowed {
            "no such models; mlx-cache list --source all shows all that there are"
        } else {
            "no models; add one with: mlx-cache add PATH"
        });
        return;
    }
    let rows: Vec<_> = report.models.iter().map(|listed| row(&listed.model, page)).collect();
    page.table(["MODEL", "KIND", "ARCHITECTURE", "PARAMETERS", "FORMAT", "SIZE", "USED"], &[3, 5], rows);
    let count = report.models.len();
    let models = if count == 1 { "model" } else { "models" };
    page.line(page.styled(FAINT, format!("{count} {models}, {}", units::bytes(report.total_bytes))));
}

/// The tool whose cache an origin means.
fn tool(origin: &str) -> &str {
    match origin {
        "hf" => "Hugging Face",
        "ollama" => "Ollama",
        "lmstudio" => "LM Studio",
        other => other,
    }
}

fn csv(models: &[ListedReport], page: &mut Page) {
    page.line(
        "reference,revision,kind,architecture,parameters,quantization,context_length,bytes,files,origin,status,\
         last_used,path",
    );
    let number = |value: Option<u64>| value.map(|value| value.to_string()).unwrap_or_default();
    for ListedReport { model, files } in models {
        let status = match model.status {
            ModelStatus::Ok => "ok",
            ModelStatus::Missing => "missing",
            ModelStatus::Foreign => "foreign",
        };
        let cells = [
            model.reference.clone(),
            model.revision.clone().unwrap_or_default(),
            model.kind.clone(),
            model.architecture.clone().unwrap_or_default(),
            number(model.parameters),
            model.quantization.clone().unwrap_or_default(),
            number(model.context_length),
            model.bytes.to_string(),
            files.to_string(),
            model.origin.clone(),
            status.to_owned(),
            model.last_used.map(|time| time.to_string()).unwrap_or_default(),
            model.path.clone(),
        ];
        page.line(cells.map(|cell| csv_cell(&cell)).join(","));
    }
}

/// A cell in quotes where it needs them.
fn csv_cell(text: &str) -> String {
    let text = printable(text);
    if text.contains([',', '"']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

fn row(model: &ModelReport, page: &Page) -> [String; 7] {
    let dash = || "-".to_owned();
    let reference = match model.status {
        ModelStatus::Ok => model.reference.clone(),
        ModelStatus::Missing => format!("{} (missing)", model.reference),
        ModelStatus::Foreign => format!("{} ({}'s)", model.reference, tool(&model.origin)),
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
