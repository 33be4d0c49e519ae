//! Findings as the report shows them.

use std::time::Duration;

use crate::report::verify::{
    CheckedReport, CheckedStatus, ProblemKind, ProblemReport, RepairReport, VerifyReport, VerifySummary,
};
use crate::verify::{Findings, Judged, Kind, Problem, Remedy, Status};

pub(super) fn of(
    findings: &Findings,
    quick: bool,
    repairs: Vec<RepairReport>,
    elapsed: Duration,
) -> VerifyReport {
    let checked: Vec<CheckedReport> = findings.judged.iter().map(one).collect();
    VerifyReport {
        quick,
        summary: VerifySummary::of(&checked),
        checked,
        repairs,
        bytes_hashed: findings.bytes_hashed(),
        seconds: elapsed.as_secs_f64(),
    }
}

fn one(judged: &Judged) -> CheckedReport {
    CheckedReport {
        reference: judged.reference.clone(),
        revision: judged.revision.clone(),
        source: judged.source.to_owned(),
        path: judged.path.display().to_string(),
        status: match judged.status {
            Status::Ok => CheckedStatus::Ok,
            Status::Damaged => CheckedStatus::Damaged,
            Status::Incomplete => CheckedStatus::Incomplete,
            Status::Unknown => CheckedStatus::Unknown,
        },
        files_ok: judged.files_ok,
        files_unverified: judged.files_unverified,
        files_absent: judged.absent,
        problems: judged.problems.iter().map(problem).collect(),
    }
}

fn problem(problem: &Problem) -> ProblemReport {
    ProblemReport {
        path: problem.path.clone(),
        kind: kind(problem.kind),
        code: problem.kind.code().name().to_owned(),
        expected: problem.expected.clone(),
        actual: problem.actual.clone(),
        file: problem.place.display().to_string(),
        hint: match &problem.remedy {
            Remedy::Advice(advice) if !advice.is_empty() => Some(advice.clone()),
            _ => None,
        },
    }
}

fn kind(kind: Kind) -> ProblemKind {
    match kind {
        Kind::Missing => ProblemKind::Missing,
        Kind::MissingShard => ProblemKind::MissingShard,
        Kind::Unfinished => ProblemKind::Unfinished,
        Kind::DanglingLink => ProblemKind::DanglingLink,
        Kind::EscapingLink => ProblemKind::EscapingLink,
        Kind::WrongLink => ProblemKind::WrongLink,
        Kind::NotAFile => ProblemKind::NotAFile,
        Kind::Unreadable => ProblemKind::Unreadable,
        Kind::LfsPointer => ProblemKind::LfsPointer,
        Kind::Truncated => ProblemKind::Truncated,
        Kind::BrokenHeader => ProblemKind::BrokenHeader,
        Kind::WrongName => ProblemKind::WrongName,
        Kind::Changed => ProblemKind::Changed,
        Kind::BrokenRecord => ProblemKind::BrokenRecord,
        Kind::WrongMode => ProblemKind::WrongMode,
    }
}
