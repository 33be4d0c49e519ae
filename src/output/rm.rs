//! `rm` as text.

use crate::report::rm::RmReport;

use super::page::{Human, Page, printable, short};
use super::units;

impl Human for RmReport {
    fn human(&self, page: &mut Page) {
        let (forgets, deletes) =
            if self.dry_run { ("would forget", "would delete") } else { ("forgot", "deleted") };
        for removed in &self.removed {
            let does = if matches!(removed.origin.as_str(), "copied" | "hub") { deletes } else { forgets };
            page.line(format!("{does} {} ({})", printable(&removed.reference), short(&removed.revision)));
        }
        for kept in &self.kept {
            page.line(format!("{}: {}", printable(&kept.reference), printable(&kept.reason)));
        }
        let restores =
            if self.dry_run { "would give back a file of its own" } else { "a file of its own again" };
        for path in &self.restored {
            page.line(format!("{restores}: {}", printable(path)));
        }
        let frees = if self.dry_run { "would free" } else { "freed" };
        page.line(format!("{frees} {}", units::bytes(self.bytes_freed)));
    }
}
