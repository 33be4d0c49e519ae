//! Adopted models as subjects: what they were when they were added is on record.

use std::fs;
use std::io;
use std::path::Path;

use super::contents::Contents;
use super::problem::{Kind, Problem, Remedy};
use super::stored::kind_of;
use super::subject::{Item, Record, Subject};
use crate::error::Result;
use crate::fs::FileStamp;
use crate::registry::{FileRecord, Registry, Snapshot};
use crate::sources::Checksum;

/// A snapshot that lies where it was found.
pub fn snapshot(registry: &Registry, snapshot: &Snapshot, contents: &mut Contents) -> Result<Subject> {
    let mut subject = Subject::new(snapshot.name.to_string(), snapshot.origin.as_str(), snapshot.path());
    subject.revision = Some(snapshot.revision.to_string());
    subject.folder = snapshot.entry.is_none().then(|| snapshot.root.clone());
    if let Remedy::Advice(advice) = advice(snapshot) {
        subject.advice = advice;
    }
    for file in registry.files(snapshot.id)? {
        add(snapshot, &file, &mut subject, contents);
    }
    Ok(subject)
}

/// Takes note of one file of an adopted snapshot.
pub(super) fn add(snapshot: &Snapshot, file: &FileRecord, subject: &mut Subject, contents: &mut Contents) {
    let place = snapshot.root.join(&file.path);
    let remedy = advice(snapshot);
    let problem = |kind, actual: Option<String>| Problem {
        path: file.path.to_string(),
        place: place.clone(),
        kind,
        expected: Some(format!("sha256:{}", file.digest)),
        actual,
        remedy: remedy.clone(),
    };
    let metadata = match fs::metadata(&place) {
        Ok(metadata) if metadata.is_file() => metadata,
        Ok(metadata) => {
            subject.problems.push(problem(Kind::NotAFile, Some(kind_of(&metadata).to_owned())));
            return;
        }
        Err(error) => {
            let (kind, actual) = absent(&place, &error);
            subject.problems.push(problem(kind, actual));
            return;
        }
    };
    let stamp = FileStamp::of(&metadata);
    let claims = vec![Checksum::Sha256(file.digest)];
    let remembered = (file.stamp == Some(stamp)).then_some(file.digest);
    let content = contents.add(&place, stamp, &claims, remembered);
    subject.items.push(Item {
        path: file.path.to_string(),
        place,
        content,
        bytes: Some(file.bytes),
        claims,
        record: Record::Adopted { snapshot: snapshot.id, path: file.path.clone() },
        remedy,
    });
}

/// Why there is nothing at a place.
fn absent(place: &Path, error: &io::Error) -> (Kind, Option<String>) {
    match fs::read_link(place) {
        Ok(target) => (Kind::DanglingLink, Some(target.display().to_string())),
        Err(_) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            (Kind::Missing, None)
        }
        Err(_) => (Kind::Unreadable, Some(error.to_string())),
    }
}

fn advice(snapshot: &Snapshot) -> Remedy {
    Remedy::Advice(format!(
        "bring the file back, or, if it was meant to change, run: mlx-cache add {}",
        snapshot.path().display()
    ))
}
