//! `status` as text.

use crate::report::status::{SourceStatus, StatusReport};

use super::page::{Human, Page};
use super::units;

impl Human for StatusReport {
    fn human(&self, page: &mut Page) {
        page.pairs([
            ("store", self.store.path.clone()),
            ("models", self.store.models.to_string()),
            (
                "content",
                format!("{} in {}", units::bytes(self.store.bytes), plural(self.store.blobs, "file")),
            ),
            ("disk", format!("{} of {} free", units::bytes(self.disk.free), units::bytes(self.disk.total))),
        ]);
        if self.sources.is_empty() {
            return;
        }
        if self.reclaimable_bytes > 0 {
            let bytes = units::bytes(self.reclaimable_bytes);
            page.pairs([(
                "twice",
                format!("about {bytes}: `mlx-cache dedupe` shows what could be reclaimed"),
            )]);
        }
        page.line("");
        page.table(
            ["CACHE", "MODELS", "SIZE", "PATH"],
            &[1, 2],
            self.sources.iter().map(|source| {
                [
                    source.name.clone(),
                    source.models.to_string(),
                    units::bytes(source.bytes),
                    format!("{}{}", source.path, remarks(source)),
                ]
            }),
        );
    }
}

fn remarks(source: &SourceStatus) -> String {
    let mut remarks = Vec::new();
    if !source.own {
        remarks.push("another user's".to_owned());
    }
    if source.unreadable > 0 {
        remarks.push(format!("{} unreadable", plural(source.unreadable, "folder")));
    }
    if remarks.is_empty() { String::new() } else { format!(" ({})", remarks.join(", ")) }
}

fn plural(number: u64, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}
