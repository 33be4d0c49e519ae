//! What is known of content by reading it, and what is in use.

use std::collections::BTreeSet;

use jiff::Timestamp;
use rusqlite::params;

use super::Registry;
use crate::error::Result;
use crate::fs::FileStamp;
use crate::ids::{Digest, ModelName, Revision, SnapshotPath};

/// Content and what reading it told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verified {
    /// A blob of the store is what its name says; its identity while it was read.
    Blob(Digest, FileStamp),
    /// A blob is not what its name says: what was remembered of it does not hold.
    DamagedBlob(Digest),
    /// A file of an adopted snapshot is what it was.
    File { snapshot: i64, path: SnapshotPath, stamp: FileStamp },
    /// A file of an adopted snapshot is not what it was.
    DamagedFile { snapshot: i64, path: SnapshotPath },
}

impl Registry {
    /// Writes down what was found, in one transaction. Blobs that no snapshot has are not in the registry
    /// and stay out of it.
    pub fn record_verified(&mut self, found: &[Verified]) -> Result<()> {
        if found.is_empty() {
            return Ok(());
        }
        self.transaction(|transaction| {
            let now = Timestamp::now().as_millisecond();
            let mut blob = transaction.prepare(
                "UPDATE blobs SET verified_at = ?2, device = ?3, inode = ?4, modified_ns = ?5, changed_ns = ?6
                 WHERE digest = ?1",
            )?;
            let mut file = transaction.prepare(
                "UPDATE files SET device = ?3, inode = ?4, modified_ns = ?5, changed_ns = ?6
                 WHERE snapshot_id = ?1 AND path = ?2",
            )?;
            for found in found {
                match found {
                    Verified::Blob(digest, stamp) => blob.execute(params![
                        digest,
                        now,
                        stamp.device as i64,
                        stamp.inode as i64,
                        stamp.modified_ns,
                        stamp.changed_ns
                    ])?,
                    Verified::DamagedBlob(digest) => blob.execute(params![
                        digest,
                        None::<i64>,
                        None::<i64>,
                        None::<i64>,
                        None::<i64>,
                        None::<i64>
                    ])?,
                    Verified::File { snapshot, path, stamp } => file.execute(params![
                        snapshot,
                        path,
                        stamp.device as i64,
                        stamp.inode as i64,
                        stamp.modified_ns,
                        stamp.changed_ns
                    ])?,
                    Verified::DamagedFile { snapshot, path } => file.execute(params![
                        snapshot,
                        path,
                        None::<i64>,
                        None::<i64>,
                        None::<i64>,
                        None::<i64>
                    ])?,
                };
            }
            Ok(())
        })
    }

    /// Forgets what is remembered of files with this identity: their content is not what it was.
    pub fn forget_hashes(&mut self, stamps: &[FileStamp]) -> Result<()> {
        if stamps.is_empty() {
            return Ok(());
        }
        self.transaction(|transaction| {
            let mut forget = transaction.prepare("DELETE FROM hashes WHERE device = ?1 AND inode = ?2")?;
            for stamp in stamps {
                forget.execute(params![stamp.device as i64, stamp.inode as i64])?;
            }
            Ok(())
        })
    }

    /// Sets when a snapshot was registered first and used last, as another registry knew it.
    pub fn set_times(
        &mut self,
        name: &ModelName,
        revision: &Revision,
        added_at: Timestamp,
        last_used: Option<Timestamp>,
    ) -> Result<()> {
        self.transaction(|transaction| {
            transaction.execute(
                "UPDATE snapshots SET added_at = ?3, last_used_at = ?4
                 WHERE revision = ?2 AND model_id = (SELECT id FROM models WHERE reference = ?1)",
                params![
                    name.to_string(),
                    revision,
                    added_at.as_millisecond(),
                    last_used.map(Timestamp::as_millisecond)
                ],
            )
        })
        .map(|_| ())
    }

    /// The content that stored snapshots have.
    pub fn snapshot_digests(&self) -> Result<BTreeSet<Digest>> {
        let read = || {
            self.connection
                .prepare(
                    "SELECT DISTINCT f.digest FROM files f JOIN snapshots s ON s.id = f.snapshot_id
                     WHERE s.stored",
                )?
                .query_map([], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()
        };
        read().map_err(|error| self.failure("read", error))
    }

    /// The contents of the store that the registry has rows of.
    pub fn blob_rows(&self) -> Result<Vec<Digest>> {
        let read = || {
            self.connection
                .prepare("SELECT digest FROM blobs ORDER BY digest")?
                .query_map([], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()
        };
        read().map_err(|error| self.failure("read", error))
    }

    /// Forgets blobs, in one transaction.
    pub fn forget_blobs(&mut self, digests: &[Digest]) -> Result<()> {
        if digests.is_empty() {
            return Ok(());
        }
        self.transaction(|transaction| {
            let mut forget = transaction.prepare("DELETE FROM blobs WHERE digest = ?1")?;
            for digest in digests {
                forget.execute([digest])?;
            }
            Ok(())
        })
    }
}
