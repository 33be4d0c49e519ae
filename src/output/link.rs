//! `link` as text.

use crate::report::link::{LinkEntryReport, LinkEntryStatus, LinkReport};

use super::page::{Human, Page, printable};
use super::units;

impl Human for LinkReport {
    fn human(&self, page: &mut Page) {
        for entry in &self.entries {
            page.line(format!("{} {}", does(entry, self.dry_run), printable(&entry.path)));
        }
        let bytes = self.entries.iter().map(|entry| entry.bytes).sum();
        let name = printable(&self.name);
        let said = match (self.undo, self.dry_run) {
            (false, true) => format!("would show {} ({}) as {name}", self.reference, units::bytes(bytes)),
            (false, false) => format!("{} ({}) is shown as {name}", self.reference, units::bytes(bytes)),
            (true, true) => format!("would no longer show {} as {name}", self.reference),
            (true, false) => format!("{} is no longer shown as {name}", self.reference),
        };
        page.line(printable(&said));
        for note in &self.notes {
            page.line(printable(note));
        }
    }
}

fn does(entry: &LinkEntryReport, dry_run: bool) -> &'static str {
    match (entry.status, dry_run) {
        (LinkEntryStatus::Made, true) => "would make",
        (LinkEntryStatus::Made, false) => "made",
        (LinkEntryStatus::Present, _) => "is there:",
        (LinkEntryStatus::Removed, true) => "would remove",
        (LinkEntryStatus::Removed, false) => "removed",
        (LinkEntryStatus::Kept, _) => "stays:",
        (LinkEntryStatus::Absent, _) => "is gone:",
    }
}
