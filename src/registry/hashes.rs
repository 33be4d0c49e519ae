//! What files outside the store were found to hold.

use jiff::Timestamp;
use rusqlite::{OptionalExtension, params};

use super::Registry;
use super::columns::integer;
use crate::error::Result;
use crate::fs::FileStamp;
use crate::ids::Digest;

/// After this long a file is read again even if it did not change, since disks decay.
const VALID_FOR_MS: i64 = 180 * 24 * 60 * 60 * 1000;

/// What is remembered of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Remembered {
    /// A short hash of its beginning and its end.
    pub ends: Option<u64>,
    /// Of the whole content.
    pub digest: Option<Digest>,
}

impl Registry {
    /// What is remembered of files that have not changed since by all that the filesystem tells; one
    /// answer for each, in order. It is a reason not to look, never proof.
    pub fn remembered(&self, stamps: &[FileStamp]) -> Result<Vec<Remembered>> {
        let read = || {
            // One look at the locks and the log for all of them.
            let transaction = self.connection.unchecked_transaction()?;
            let mut query = transaction.prepare(
                "SELECT ends, digest FROM hashes WHERE device = ?1 AND inode = ?2 AND bytes = ?3
                     AND modified_ns = ?4 AND changed_ns = ?5 AND hashed_at > ?6",
            )?;
            let oldest = Timestamp::now().as_millisecond() - VALID_FOR_MS;
            stamps
                .iter()
                .map(|stamp| {
                    let key = params![
                        stamp.device as i64,
                        stamp.inode as i64,
                        integer(stamp.bytes),
                        stamp.modified_ns,
                        stamp.changed_ns,
                        oldest
                    ];
                    let found = query
                        .query_row(key, |row| {
                            let ends = row.get::<_, Option<i64>>(0)?.map(|bits| bits as u64);
                            Ok(Remembered { ends, digest: row.get(1)? })
                        })
                        .optional()?;
                    Ok(found.unwrap_or_default())
                })
                .collect::<rusqlite::Result<_>>()
        };
        read().map_err(|error| self.failure("read", error))
    }

    /// Remembers what files hold, in one transaction. What is not given stays as it was known.
    pub fn remember(&mut self, files: &[(FileStamp, Remembered)]) -> Result<()> {
        if files.is_empty() {
            return Ok(());
        }
        self.transaction(|transaction| {
            let now = Timestamp::now().as_millisecond();
            transaction.execute("DELETE FROM hashes WHERE hashed_at <= ?1", [now - VALID_FOR_MS])?;
            let mut insert = transaction.prepare(
                "INSERT INTO hashes VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
                 ON CONFLICT (device, inode) DO UPDATE SET
                     ends = CASE WHEN bytes = excluded.bytes AND modified_ns = excluded.modified_ns
                         AND changed_ns = excluded.changed_ns
                         THEN COALESCE(excluded.ends, ends) ELSE excluded.ends END,
                     digest = excluded.digest, bytes = excluded.bytes, modified_ns = excluded.modified_ns,
                     changed_ns = excluded.changed_ns, hashed_at = excluded.hashed_at",
            )?;
            for (stamp, known) in files {
                insert.execute(params![
                    stamp.device as i64,
                    stamp.inode as i64,
                    integer(stamp.bytes),
                    stamp.modified_ns,
                    stamp.changed_ns,
                    known.ends.map(|bits| bits as i64),
                    known.digest,
                    now,
                ])?;
            }
            Ok(())
        })
    }
}
