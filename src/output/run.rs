//! `run` as text: the streamed answer, and its figures for `--verbose`.

use std::borrow::Cow;

use crate::report::run::{BatchReport, MemoryReport, RunData, RunReport};

use super::page::{Human, Page};
use super::units;

impl Human for RunData {
    /// Answers were printed while they were made; only the probabilities of a streamed one are left.
    fn human(&self, page: &mut Page) {
        let Self::Answer(report) = self else { return };
        let all = std::iter::once(&report.logprobs).chain(report.others.iter().map(|other| &other.logprobs));
        for logprobs in all.filter(|logprobs| !logprobs.is_empty()) {
            let shown = |text: &str, logprob: f64| format!("{text:?} {logprob:.3}");
            page.line("");
            page.table(
                ["ID", "TOKEN", "LOGPROB", "INSTEAD"],
                &[0, 2],
                logprobs.iter().map(|token| {
                    let instead: Vec<_> = token
                        .alternatives
                        .iter()
                        .filter(|other| other.id != token.id)
                        .map(|other| shown(&other.text, other.logprob))
                        .collect();
                    let text = format!("{:?}", token.text);
                    [token.id.to_string(), text, format!("{:.3}", token.logprob), instead.join("  ")]
                }),
            );
        }
    }
}

/// What a chat leaves to be printed.
impl Human for () {
    fn human(&self, _page: &mut Page) {}
}

/// The figures of an answer, a line each.
pub fn figures(report: &RunReport) -> String {
    let (usage, timings) = (report.usage, report.timings);
    let computed = usage.prompt_tokens.saturating_sub(usage.cached_tokens);
    let mut rows = vec![
        ("load", format!("{:.2} s", timings.load_s)),
        (
            "prompt",
            format!(
                "{} tokens, {} cached, {computed} computed at {:.1} tokens/s",
                usage.prompt_tokens, usage.cached_tokens, timings.prompt_tokens_per_s
            ),
        ),
        ("first token", format!("{:.3} s", timings.ttft_s)),
        (
            "generation",
            format!("{} tokens at {:.1} tokens/s", usage.generated_tokens, timings.generation_tokens_per_s),
        ),
        ("total", format!("{:.2} s", timings.total_s)),
        ("peak memory", memory(report.memory)),
    ];
    if usage.drafted_tokens > 0 {
        let share = 100.0 * usage.accepted_tokens as f64 / usage.drafted_tokens as f64;
        let drafts =
            format!("{} tokens, {} accepted ({share:.0} %)", usage.drafted_tokens, usage.accepted_tokens);
        rows.push(("drafts", drafts));
    }
    if report.sampling.options.temperature > 0.0 {
        rows.push(("seed", report.sampling.options.seed.to_string()));
    }
    lines(&rows)
}

/// The figures of a batch, a line each.
pub fn batch_figures(report: &BatchReport) -> String {
    let BatchReport { count, failed, prompt_tokens, generated_tokens, generated_tokens_per_s, .. } = report;
    let rows = [
        ("load", format!("{:.2} s", report.load_s)),
        ("prompts", format!("{count}, {failed} failed, {prompt_tokens} tokens")),
        ("generation", format!("{generated_tokens} tokens at {generated_tokens_per_s:.1} tokens/s together")),
        ("total", format!("{:.2} s", report.total_s)),
        ("peak memory", memory(report.memory)),
    ];
    lines(&rows)
}

/// What was taken, and what was counted on.
pub(super) fn memory(memory: MemoryReport) -> String {
    format!("{}, at most {} expected", units::bytes(memory.peak_bytes), units::bytes(memory.estimate_bytes))
}

fn lines(rows: &[(&str, String)]) -> String {
    let lines: Vec<_> = rows.iter().map(|(name, value)| format!("{name:<13}{value}")).collect();
    lines.join("\n")
}

/// A piece of an answer as a terminal may show it: a model can be made to write escape sequences,
/// which would move the cursor, change the title or worse.
pub(super) fn for_terminal(piece: &str) -> Cow<'_, str> {
    let harmful = |c: char| c.is_control() && c != '\n' && c != '\t';
    if piece.chars().any(harmful) {
        Cow::Owned(piece.chars().map(|c| if harmful(c) { char::REPLACEMENT_CHARACTER } else { c }).collect())
    } else {
        Cow::Borrowed(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_no_escape_sequences() {
        assert_eq!(for_terminal("a\u{1b}[2Jb\u{9b}c\td\n\r"), "a\u{fffd}[2Jb\u{fffd}c\td\n\u{fffd}");
        assert!(matches!(for_terminal("Grüße, 世界\n"), Cow::Borrowed(_)));
    }
}
