//! `import` as text.

use crate::report::import::ImportReport;

use super::page::{FAINT, Human, Page, printable, short};
use super::units;

impl Human for ImportReport {
    fn human(&self, page: &mut Page) {
        let does = if self.dry_run { "would register" } else { "registered" };
        for found in &self.registered {
            let does = if found.already_known { "already known:" } else { does };
            page.line(format!(
                "{does} {}@{} ({})",
                printable(&found.reference),
                printable(short(&found.revision)),
                units::bytes(found.bytes)
            ));
        }
        for missing in &self.missing {
            page.line(format!(
                "missing {}@{}: {}",
                printable(&missing.reference),
                printable(short(&missing.revision)),
                printable(&missing.reason)
            ));
            if let Some(command) = &missing.command {
                page.line(format!("    {}", page.styled(FAINT, printable(command))));
            }
        }
        page.line(format!("{} here, {} missing", self.registered.len(), self.missing.len()));
    }
}
