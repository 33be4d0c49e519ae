//! `embed` as text: vectors were written while they were made; comparisons and files are told here.

use crate::report::embed::EmbedReport;

use super::page::{Human, Page, printable};
use super::run::memory;
use super::units;

impl Human for EmbedReport {
    fn human(&self, page: &mut Page) {
        for row in self.similarity.iter().flatten() {
            let cells: Vec<String> = row.iter().map(|cosine| format!("{cosine:.4}")).collect();
            page.line(cells.join("\t"));
        }
        for (text, rows) in self.nearest.iter().flatten().enumerate() {
            for (rank, found) in rows.iter().enumerate() {
                page.line(format!("{}\t{}\t{}\t{:.4}", text + 1, rank + 1, found.row, found.score));
            }
        }
        if let Some(output) = &self.output {
            let vectors = if self.count == 1 { "vector" } else { "vectors" };
            page.line(format!(
                "{} {vectors} of {} numbers in {} ({})",
                self.count,
                self.dimensions,
                printable(&output.path),
                units::bytes(output.bytes)
            ));
        }
    }
}

/// The figures of a run, a line each.
pub fn figures(report: &EmbedReport) -> String {
    let (usage, timings) = (report.usage, report.timings);
    let normalized = if report.normalized { "length 1" } else { "as long as they are" };
    let rows = [
        (
            "vectors",
            format!("{} of {} numbers, {}, {normalized}", report.count, report.dimensions, report.pooling),
        ),
        (
            "tokens",
            format!("{}, {} texts shortened, {} skipped", usage.tokens, usage.truncated, usage.skipped),
        ),
        ("load", format!("{:.2} s", timings.load_s)),
        (
            "embed",
            format!(
                "{:.2} s: {:.1} texts/s, {:.0} tokens/s",
                timings.embed_s, timings.texts_per_s, timings.tokens_per_s
            ),
        ),
        ("peak memory", memory(report.memory)),
    ];
    let lines: Vec<_> = rows.iter().map(|(name, value)| format!("{name:<13}{value}")).collect();
    lines.join("\n")
}
