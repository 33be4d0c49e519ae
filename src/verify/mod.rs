//! Verification: is what lies on disk what the records say?
//!
//! Subjects (models, and what a cache holds beside them) are made from records, links and sizes; their
//! distinct contents are read once each, several at a time; then findings are compared with claims.

mod adopted;
mod contents;
mod foreign;
mod inspect;
mod judge;
mod local_dir;
mod problem;
pub mod repair;
mod stored;
mod subject;

use std::collections::HashSet;

use crate::cancel::Cancel;
use crate::error::Result;
use crate::fs::{FileStamp, Progress};
use crate::ids::Digest;
use crate::registry::{Registry, Remembered, Verified};

pub use adopted::snapshot as adopted;
pub use contents::{Content, Contents, Found};
pub use foreign::Cache;
pub use judge::{Judged, Status};
pub use problem::{HubFile, Kind, Needed, Problem, Remedy, Target};
pub use stored::{rest as rest_of_store, snapshot as stored};
pub use subject::{Item, Record, Subject};

/// A verification under way.
#[derive(Debug, Default)]
pub struct Verification {
    pub subjects: Vec<Subject>,
    pub contents: Contents,
}

/// What came of it.
#[derive(Debug)]
pub struct Findings {
    /// In the order of the subjects.
    pub judged: Vec<Judged>,
    pub contents: Contents,
}

impl Verification {
    /// Looks at headers, indexes and numbered files.
    pub fn inspect(&mut self, cancel: &Cancel) -> Result<()> {
        for subject in &mut self.subjects {
            for item in &subject.items {
                cancel.check()?;
                self.contents.look_at_header(item.content, &item.path);
            }
            inspect::shards(subject);
        }
        Ok(())
    }

    /// Reads the contents that are to be compared; without this, only what is remembered counts.
    pub fn measure(&mut self, threads: usize, progress: Progress<'_>) -> Result<()> {
        self.contents.measure(threads, progress)
    }

    /// Compares findings with claims.
    pub fn judge(self) -> Findings {
        let known: HashSet<Digest> = judge::known_digests(&self.subjects);
        let contents = self.contents;
        let judged =
            self.subjects.into_iter().map(|subject| judge::judge(subject, &contents, &known)).collect();
        Findings { judged, contents }
    }
}

impl Findings {
    /// Bytes that were read.
    pub fn bytes_hashed(&self) -> u64 {
        let read = |content: &&Content| matches!(content.found, Found::Sums(_)) && !content.is_recalled;
        self.contents.iter().filter(read).map(|content| content.stamp.bytes).sum()
    }

    /// Writes down what was read, so that a quick look knows it next time.
    pub fn record(&self, registry: &mut Registry) -> Result<()> {
        let mut verified = Vec::new();
        for judged in &self.judged {
            for (record, content) in &judged.good {
                let Some(Found::Sums(sums)) = self.contents.get(*content).map(|content| &content.found)
                else {
                    continue;
                };
                verified.extend(match record {
                    Record::Blob(digest) => Some(Verified::Blob(*digest, sums.stamp)),
                    Record::Adopted { snapshot, path } => {
                        Some(Verified::File { snapshot: *snapshot, path: path.clone(), stamp: sums.stamp })
                    }
                    Record::None => None,
                });
            }
            verified.extend(judged.bad.iter().filter_map(|(record, _)| match record {
                Record::Blob(digest) => Some(Verified::DamagedBlob(*digest)),
                Record::Adopted { snapshot, path } => {
                    Some(Verified::DamagedFile { snapshot: *snapshot, path: path.clone() })
                }
                Record::None => None,
            }));
        }
        registry.record_verified(&verified)?;
        registry.remember(&self.hashes())
    }

    /// The digests of everything that was read, good or not: they are what the files hold.
    fn hashes(&self) -> Vec<(FileStamp, Remembered)> {
        self.contents
            .iter()
            .filter_map(|content| match &content.found {
                Found::Sums(sums) => {
                    Some((sums.stamp, Remembered { ends: None, digest: Some(sums.sha256?) }))
                }
                _ => None,
            })
            .collect()
    }
}
