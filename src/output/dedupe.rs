//! `dedupe` as text.

use crate::report::dedupe::{DedupeReport, GroupReport, SkippedReport, UndoneReport};

use super::page::{FAINT, Human, Page, printable};
use super::units;

/// How many files that were passed over are named; the JSON form names all.
const NAMED: usize = 10;

impl Human for DedupeReport {
    fn human(&self, page: &mut Page) {
        if self.strategy == "undo" {
            undone(self, page);
            return;
        }
        for group in &self.groups {
            show_group(group, self.applied, page);
        }
        skipped(&self.skipped, page);
        if self.groups.is_empty() {
            page.line(format!(
                "nothing to do: {} looked at, {} linked already",
                files(self.files),
                files(self.linked)
            ));
            return;
        }
        let replaced: usize = self.groups.iter().map(|group| group.replace.len()).sum();
        let about = if self.estimated { "about " } else { "" };
        if self.applied {
            let done = self.groups.iter().flat_map(|group| &group.replace).filter(|file| file.done).count();
            page.line(format!(
                "replaced {done} of {}, {about}{} reclaimed",
                files(replaced as u64),
                units::bytes(self.bytes_reclaimed)
            ));
        } else {
            page.line(format!(
                "would replace {}, {about}{} reclaimed",
                files(replaced as u64),
                units::bytes(self.bytes_reclaimable)
            ));
        }
    }
}

fn show_group(group: &GroupReport, applied: bool, page: &mut Page) {
    let (keeps, replaces) = if applied { ("kept", "replaced") } else { ("keep", "replace") };
    let bytes = if applied { group.bytes_reclaimed } else { group.bytes_reclaimable };
    let digest = format!("{:.12}", group.digest.to_string());
    page.line(format!("{} in {}", units::bytes(bytes), page.styled(FAINT, digest)));
    let where_to = match &*group.keep.how {
        "moves" => " (moves into the store)",
        "copies" => " (is copied into the store)",
        "stored" => " (in the store)",
        _ => "",
    };
    page.line(format!("  {keeps:8}  {}{where_to}", printable(&group.keep.path.text())));
    for file in &group.replace {
        let does = if applied && !file.done { "skipped" } else { replaces };
        page.line(format!("  {does:8}  {} ({})", printable(&file.path.text()), file.strategy));
    }
}

fn skipped(skipped: &[SkippedReport], page: &mut Page) {
    for file in skipped.iter().take(NAMED) {
        let line = format!("passed over {}: {}", printable(&file.path.text()), printable(&file.reason));
        page.line(page.styled(FAINT, line));
    }
    if let Some(more @ 1..) = skipped.len().checked_sub(NAMED) {
        page.line(page.styled(FAINT, format!("passed over {more} more: --json names them")));
    }
}

fn undone(report: &DedupeReport, page: &mut Page) {
    for link in &report.undone {
        page.line(undone_line(link));
    }
    if report.undone.is_empty() {
        page.line("no such link");
    } else if !report.applied {
        let (links, bytes) = (files(report.undone.len() as u64), units::bytes(report.bytes_needed));
        page.line(format!("would give {links} back, with {bytes} of disk space at most"));
    }
}

fn undone_line(link: &UndoneReport) -> String {
    let (path, bytes) = (printable(&link.path), units::bytes(link.bytes));
    match link.outcome.as_str() {
        "planned" => format!("would give back {path} ({bytes})"),
        "restored" => format!("gave back {path} ({bytes})"),
        "removed" => format!("removed {path}"),
        "forgotten" => format!("forgot {path}: its tool has deleted or replaced it"),
        _ => format!("left {path} as it is: {}", printable(link.reason.as_deref().unwrap_or_default())),
    }
}

fn files(number: u64) -> String {
    if number == 1 { "1 file".to_owned() } else { format!("{number} files") }
}
