//! `pull` as text.

use crate::report::pull::{Action, PullReport, PulledReport};

use super::page::{self, Human, Page, printable};
use super::units;

impl Human for PullReport {
    fn human(&self, page: &mut Page) {
        for model in &self.models {
            if self.dry_run {
                planned(model, page);
            } else {
                pulled(model, page);
            }
        }
    }
}

fn pulled(model: &PulledReport, page: &mut Page) {
    let name = printable(&model.reference);
    if model.already_present {
        page.line(format!("{name} is here already ({})", contents(model)));
        return;
    }
    let mut from = Vec::new();
    if model.bytes_downloaded > 0 {
        from.push(format!("{} downloaded", units::bytes(model.bytes_downloaded)));
    }
    if model.bytes_resumed > 0 {
        from.push(format!("{} from before", units::bytes(model.bytes_resumed)));
    }
    if model.bytes_reused > 0 {
        from.push(format!("{} found on this machine", units::bytes(model.bytes_reused)));
    }
    let from = if from.is_empty() { String::new() } else { format!(": {}", from.join(", ")) };
    page.line(format!("pulled {name} ({}){from}, {:.1} s", contents(model), model.seconds));
}

fn planned(model: &PulledReport, page: &mut Page) {
    page.line(format!(
        "{} at {} from {} ({}):",
        printable(&model.reference),
        model.revision,
        printable(&model.endpoint),
        contents(model)
    ));
    let rows = model.actions.iter().map(|action| {
        let what = match action.action {
            Action::Present => "is here",
            Action::Reuse => "copy",
            Action::Resume => "resume",
            Action::Download => "download",
        };
        let from = action.from.clone().unwrap_or_default();
        [action.path.clone(), units::bytes(action.bytes), what.to_owned(), from]
    });
    page.table(["file", "size", "action", "from"], &[1], rows);
    let here = model.bytes_total.saturating_sub(model.bytes_downloaded);
    let total = format!("{} to download, {} here", units::bytes(model.bytes_downloaded), units::bytes(here));
    page.line(page.styled(page::FAINT, total));
}

fn contents(model: &PulledReport) -> String {
    let files = if model.files == 1 { "file" } else { "files" };
    format!("{} in {} {files}", units::bytes(model.bytes_total), model.files)
}
