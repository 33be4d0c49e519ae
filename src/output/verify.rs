//! `verify` as text.

use crate::report::verify::{
    CheckedReport, CheckedStatus, ProblemKind, ProblemReport, RepairAction, RepairPlan, RepairReport,
    VerifyReport,
};

use super::page::{BAD, DOUBTFUL, FAINT, GOOD, Human, Page, printable};
use super::units;

impl Human for VerifyReport {
    fn human(&self, page: &mut Page) {
        for checked in &self.checked {
            model(page, checked);
        }
        for repair in &self.repairs {
            one_repair(page, repair);
        }
        let summary = &self.summary;
        let mut counts = vec![format!("{} ok", summary.ok)];
        for (count, word) in [
            (summary.damaged, "damaged"),
            (summary.incomplete, "incomplete"),
            (summary.unknown, "not fully compared"),
        ] {
            if count > 0 {
                counts.push(format!("{count} {word}"));
            }
        }
        let how = if self.quick {
            "nothing was read (--quick)".to_owned()
        } else {
            format!("{} read in {:.1} s", units::bytes(self.bytes_hashed), self.seconds)
        };
        page.line(format!("{}; {how}", counts.join(", ")));
    }
}

impl Human for RepairPlan {
    fn human(&self, page: &mut Page) {
        for repair in &self.0 {
            one_repair(page, repair);
        }
    }
}

fn model(page: &mut Page, checked: &CheckedReport) {
    let status = match checked.status {
        CheckedStatus::Ok => page.styled(GOOD, "ok        "),
        CheckedStatus::Damaged => page.styled(BAD, "damaged   "),
        CheckedStatus::Incomplete => page.styled(BAD, "incomplete"),
        CheckedStatus::Unknown => page.styled(DOUBTFUL, "unknown   "),
    };
    let mut counts = vec![files(checked.files_ok, "good")];
    if checked.files_unverified > 0 {
        counts.push(files(checked.files_unverified, "not compared"));
    }
    let revision = checked.revision.as_deref().map(|revision| format!("@{}", super::page::short(revision)));
    page.line(format!(
        "{status}  {}{}  {}",
        printable(&checked.reference),
        printable(&revision.unwrap_or_default()),
        page.styled(FAINT, format!("{}: {}", checked.source, counts.join(", ")))
    ));
    for found in &checked.problems {
        problem(page, found);
    }
}

fn files(count: u64, word: &str) -> String {
    format!("{count} {} {word}", if count == 1 { "file" } else { "files" })
}

fn problem(page: &mut Page, problem: &ProblemReport) {
    let details = match (&problem.expected, &problem.actual) {
        (Some(expected), Some(actual)) => format!(" (expected {expected}, found {actual})"),
        (Some(expected), None) => format!(" (expected {expected})"),
        (None, Some(actual)) => format!(" ({actual})"),
        (None, None) => String::new(),
    };
    let text = format!("{}: {}{details}", problem.path, sentence(problem.kind));
    page.line(format!("            {}", printable(&text)));
    if let Some(hint) = &problem.hint {
        page.line(format!("            {}", page.styled(FAINT, format!("fix: {}", printable(hint)))));
    }
}

fn sentence(kind: ProblemKind) -> &'static str {
    match kind {
        ProblemKind::Missing => "is missing",
        ProblemKind::MissingShard => "is missing, a part of the model",
        ProblemKind::Unfinished => "was not downloaded to its end",
        ProblemKind::DanglingLink => "is a link that leads nowhere",
        ProblemKind::EscapingLink => "leads out of its folder",
        ProblemKind::WrongLink => "is a link to other content",
        ProblemKind::NotAFile => "is no regular file",
        ProblemKind::Unreadable => "cannot be read",
        ProblemKind::LfsPointer => "is a pointer of git-lfs, not the content",
        ProblemKind::Truncated => "is too short",
        ProblemKind::BrokenHeader => "has a header that does not fit it",
        ProblemKind::WrongName => "holds the content of another name",
        ProblemKind::Changed => "has changed",
        ProblemKind::BrokenRecord => "cannot be understood",
        ProblemKind::WrongMode => "has the wrong mode",
    }
}

fn one_repair(page: &mut Page, repair: &RepairReport) {
    let from = repair.from.as_deref().map(|from| format!(" from {from}")).unwrap_or_default();
    let (planned, done) = match repair.action {
        RepairAction::Copy => ("would copy", "copied"),
        RepairAction::Fetch => ("would fetch", "fetched"),
        RepairAction::Link => ("would link", "linked"),
        RepairAction::Mode => ("would set the mode of", "set the mode of"),
    };
    let size = if repair.bytes > 0 { format!(" ({})", units::bytes(repair.bytes)) } else { String::new() };
    let line = match &repair.reason {
        Some(reason) => format!("not repaired: {}: {reason}", repair.file),
        None => format!("{} {}{from}{size}", if repair.done { done } else { planned }, repair.file),
    };
    page.line(printable(&line));
}
