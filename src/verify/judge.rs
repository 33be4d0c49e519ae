//! Findings compared with claims.

use std::collections::HashSet;
use std::path::PathBuf;

use super::contents::{Content, Contents, Found};
use super::problem::{Kind, Problem, Remedy};
use super::subject::{Item, Record, Subject, shown};
use crate::ids::Digest;
use crate::sources::Checksum;

/// How a subject is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// All its content is what it should be.
    Ok,
    /// Some of it is not.
    Damaged,
    /// What is there is as it should be, but something is absent.
    Incomplete,
    /// Nothing wrong was found, but not all content could be compared with anything.
    Unknown,
}

/// A subject and what was found.
#[derive(Debug, Clone)]
pub struct Judged {
    pub reference: String,
    pub revision: Option<String>,
    pub source: &'static str,
    pub path: PathBuf,
    pub status: Status,
    /// Files whose content is what it should be.
    pub files_ok: u64,
    /// Files without a fault whose content could not be compared with anything.
    pub files_unverified: u64,
    /// Files that were compared with something, if only with a size.
    pub files_compared: u64,
    pub absent: u64,
    pub problems: Vec<Problem>,
    /// Content that was found good by reading it, to be remembered.
    pub good: Vec<(Record, usize)>,
    /// Content that was found wrong: what was remembered of it does not hold.
    pub bad: Vec<(Record, usize)>,
}

impl Judged {
    pub fn is_sound(&self) -> bool {
        matches!(self.status, Status::Ok | Status::Unknown)
    }
}

/// Adds what a content's checksum told to what its index told: one problem a file, the most telling.
fn add(problems: &mut Vec<Problem>, new: Problem) {
    let told = |known: &&mut Problem| known.path == new.path && known.kind == Kind::BrokenHeader;
    match problems.iter_mut().find(told) {
        Some(known) => *known = Problem { kind: known.kind, actual: known.actual.take(), ..new },
        None => problems.push(new),
    }
}

enum Outcome {
    /// By reading it now.
    Good,
    /// By what is remembered.
    Remembered,
    Unverified,
    Bad(Box<Problem>),
}

/// Every digest that some record or name claims: content with such a digest is somebody's.
pub fn known_digests(subjects: &[Subject]) -> HashSet<Digest> {
    let claims = subjects.iter().flat_map(|subject| &subject.items).flat_map(|item| &item.claims);
    claims
        .filter_map(|claim| match claim {
            Checksum::Sha256(digest) => Some(*digest),
            Checksum::GitSha1(_) => None,
        })
        .collect()
}

pub fn judge(subject: Subject, contents: &Contents, known: &HashSet<Digest>) -> Judged {
    let mut judged = Judged {
        reference: subject.reference,
        revision: subject.revision,
        source: subject.source,
        path: subject.path,
        status: Status::Ok,
        files_ok: 0,
        files_unverified: 0,
        files_compared: 0,
        absent: subject.absent,
        problems: subject.problems,
        good: Vec::new(),
        bad: Vec::new(),
    };
    for item in &subject.items {
        let Some(content) = contents.get(item.content) else { continue };
        judged.files_compared += u64::from(item.bytes.is_some() || !item.claims.is_empty());
        match outcome(item, content, contents.header_fault(item.content), known) {
            Outcome::Good => {
                judged.files_ok += 1;
                judged.good.push((item.record.clone(), item.content));
            }
            Outcome::Remembered => judged.files_ok += 1,
            Outcome::Unverified => judged.files_unverified += 1,
            Outcome::Bad(problem) => {
                judged.bad.push((item.record.clone(), item.content));
                add(&mut judged.problems, *problem);
            }
        }
    }
    judged.problems.sort_by(|a, b| (&a.path, a.kind).cmp(&(&b.path, b.kind)));
    judged.status = if judged.problems.iter().any(|problem| !problem.kind.is_absence()) {
        Status::Damaged
    } else if !judged.problems.is_empty() {
        Status::Incomplete
    } else if judged.files_unverified > 0 || judged.files_ok == 0 {
        Status::Unknown
    } else {
        Status::Ok
    };
    judged
}

fn outcome(item: &Item, content: &Content, header: Option<&str>, known: &HashSet<Digest>) -> Outcome {
    let bad = |kind, expected, actual| {
        Outcome::Bad(Box::new(Problem {
            path: item.path.clone(),
            place: item.place.clone(),
            kind,
            expected,
            actual,
            remedy: item.remedy.clone(),
        }))
    };
    if content.is_pointer {
        let expected = item.claims.first().map(shown);
        return bad(Kind::LfsPointer, expected, Some("a pointer of git-lfs".to_owned()));
    }
    let bytes = content.stamp.bytes;
    if let Some(expected) = item.bytes
        && expected != bytes
    {
        // Content that its checksum vouches for is not to blame for a size on record.
        let is_vouched = !item.claims.is_empty()
            && item.claims.iter().all(|claim| actual(claim, content).is_some_and(|actual| actual == *claim));
        let kind = match bytes {
            _ if is_vouched => Kind::BrokenRecord,
            _ if bytes < expected => Kind::Truncated,
            _ => Kind::Changed,
        };
        let mut bad = bad(kind, Some(format!("{expected} bytes")), Some(format!("{bytes} bytes")));
        if let (Outcome::Bad(problem), true) = (&mut bad, is_vouched) {
            problem.remedy =
                Remedy::Advice("the content is good, its record is wrong: fetch the model again".to_owned());
        }
        return bad;
    }
    if let Found::Unreadable(why) = &content.found {
        return bad(Kind::Unreadable, None, Some(why.clone()));
    }
    let compared = item.claims.iter().map(|claim| (claim, actual(claim, content)));
    let wrong =
        compared.clone().find_map(|(claim, actual)| actual.filter(|it| it != claim).map(|it| (claim, it)));
    match (wrong, header) {
        (Some((claim, _)), Some(header)) => {
            bad(Kind::BrokenHeader, Some(shown(claim)), Some(header.to_owned()))
        }
        (None, Some(header)) => {
            let mut bad = bad(Kind::BrokenHeader, None, Some(header.to_owned()));
            if let (Outcome::Bad(problem), Found::Sums(_), false) =
                (&mut bad, &content.found, item.claims.is_empty())
            {
                problem.remedy = Remedy::Advice(
                    "the file is what its record says, but it is no sound model file: look for another version of the model".to_owned(),
                );
            }
            bad
        }
        (Some((claim, found)), None) => {
            let is_known = content.sha256().is_some_and(|digest| known.contains(&digest));
            let kind = if is_known { Kind::WrongName } else { Kind::Changed };
            bad(kind, Some(shown(claim)), Some(shown(&found)))
        }
        (None, None) if item.claims.is_empty() => Outcome::Unverified,
        (None, None) => match &content.found {
            Found::Sums(_) => Outcome::Good,
            // A remembered SHA-256 vouches for a name that is another checksum too: the content has not
            // changed since both were compared.
            Found::Nothing if content.remembered.is_some() => Outcome::Remembered,
            _ => Outcome::Unverified,
        },
    }
}

/// The checksum of the content that is of the claim's kind, if it is known.
fn actual(claim: &Checksum, content: &Content) -> Option<Checksum> {
    match claim {
        Checksum::Sha256(_) => content.sha256().map(Checksum::Sha256),
        Checksum::GitSha1(_) => match &content.found {
            Found::Sums(sums) => sums.git_sha1.map(Checksum::GitSha1),
            _ => None,
        },
    }
}
