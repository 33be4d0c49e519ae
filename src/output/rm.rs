//! `rm` as text.

use crate::report::rm::RmReport;

use super::page::{Human, Page, printable};
use super::units;

impl Human for RmReport {
    fn human(&self, page: &mut Page) {
        let (forgets, deletes) =
            if self.dry_run { ("would forget", "would delete") } else { ("forgot", "deleted") };
        for removed in &self.removed {
            let reference = printable(&removed.reference);
            if removed.origin == "copied" {
                page.line(format!("{deletes} {reference}"));
            } else {
                page.line(format!("{forgets} {reference}; its files stay at {}", printable(&removed.path)));
            }
        }
        let frees = if self.dry_run { "would free" } else { "freed" };
        page.line(format!("{frees} {}", units::bytes(self.bytes_freed)));
    }
}
