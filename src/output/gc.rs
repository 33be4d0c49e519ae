//! `gc` as text.

use crate::report::gc::{CollectedKind, GcReport};

use super::page::{Human, Page, printable};
use super::units;

impl Human for GcReport {
    fn human(&self, page: &mut Page) {
        let does = if self.dry_run { "would remove" } else { "removed" };
        for collected in &self.removed {
            let what = match collected.kind {
                CollectedKind::Blob => "unused content",
                CollectedKind::Unfinished => "an unfinished file",
                CollectedKind::Download => "an old download",
                CollectedKind::Folder => "a useless folder",
                CollectedKind::Lock => "a lock that nobody holds",
            };
            let size = match collected.bytes {
                0 => String::new(),
                bytes => format!(" ({})", units::bytes(bytes)),
            };
            page.line(format!("{does} {what}{size}: {}", printable(&collected.path)));
        }
        for kept in &self.kept {
            page.line(format!("kept {}: {}", printable(&kept.reference), printable(&kept.reason)));
        }
        let frees = if self.dry_run { "would free" } else { "freed" };
        page.line(format!("{frees} {}", units::bytes(self.bytes_freed)));
    }
}
