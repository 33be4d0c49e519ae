//! What files outside the store were found to hold.

use jiff::Timestamp;
use rusqlite::{Row, params};

use super::Registry;
use super::columns::integer;
use crate::error::Result;
use crate::fs::FileStamp;
use crate::ids::Digest;

/// After this long a file is read again even if it did not change, since disks decay.
const VALID_FOR_MS: i64 = 180 * 24 * 60 * 60 * 1000;

/// To search for a row in the table takes about as long as to go past this many.
const FAR: usize = 16;

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
        let key = |stamp: &FileStamp| (stamp.device as i64, stamp.inode as i64);
        let mut wanted: Vec<(i64, i64, usize)> =
            stamps.iter().enumerate().map(|(at, stamp)| (key(stamp).0, key(stamp).1, at)).collect();
        wanted.sort_unstable();
        let mut found = vec![Remembered::default(); stamps.len()];
        self.read_near(&wanted, |at, row| {
            if let (Some(stamp), Some(found)) = (stamps.get(at), found.get_mut(at)) {
                *found = remembered_of(row, stamp)?;
            }
            Ok(())
        })
        .map_err(|error| self.failure("read", error))?;
        Ok(found)
    }

    /// Hands on the row of each file that is wanted, by device and inode, and that has one.
    ///
    /// Files that were looked at together have inodes that are near each other: the next row is most often
    /// one of those that follow, and only where too many others lie in between it is searched for.
    fn read_near(
        &self,
        wanted: &[(i64, i64, usize)],
        mut take: impl FnMut(usize, &Row<'_>) -> rusqlite::Result<()>,
    ) -> rusqlite::Result<()> {
        // One look at the locks and the log for all of them.
        let transaction = self.connection.unchecked_transaction()?;
        let mut query = transaction.prepare(
            "SELECT device, inode, bytes, modified_ns, changed_ns, ends, digest FROM hashes
             WHERE (device, inode) >= (?1, ?2) AND hashed_at > ?3 ORDER BY device, inode",
        )?;
        let oldest = Timestamp::now().as_millisecond() - VALID_FOR_MS;
        let mut rest = wanted.iter().peekable();
        while let Some((device, inode, _)) = rest.peek() {
            let mut rows = query.query(params![device, inode, oldest])?;
            let mut others = 0;
            while others < FAR {
                let Some(row) = rows.next()? else { return Ok(()) };
                let present: (i64, i64) = (row.get(0)?, row.get(1)?);
                while rest.next_if(|(device, inode, _)| (*device, *inode) < present).is_some() {}
                others += 1;
                while let Some((_, _, at)) = rest.next_if(|(device, inode, _)| (*device, *inode) == present) {
                    take(*at, row)?;
                    others = 0;
                }
                if rest.peek().is_none() {
                    return Ok(());
                }
            }
        }
        Ok(())
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

/// What a row tells of a file, if that has not changed since.
fn remembered_of(row: &Row<'_>, stamp: &FileStamp) -> rusqlite::Result<Remembered> {
    let then: (i64, i64, i64) = (row.get(2)?, row.get(3)?, row.get(4)?);
    if then != (integer(stamp.bytes), stamp.modified_ns, stamp.changed_ns) {
        return Ok(Remembered::default());
    }
    let ends = row.get::<_, Option<i64>>(5)?.map(|bits| bits as u64);
    Ok(Remembered { ends, digest: row.get(6)? })
}
