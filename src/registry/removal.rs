//! Forgetting snapshots.

use rusqlite::Connection;

use super::Registry;
use super::columns::count;
use super::links::{Link, LinkStrategy};
use crate::error::Result;
use crate::ids::{Bytes, Digest};

/// Blobs that only snapshots of this list use, and no link. Its argument is a JSON array of rows.
const FREED: &str = "
    SELECT b.digest, b.bytes FROM blobs b
    WHERE EXISTS (
        SELECT 1 FROM files f WHERE f.digest = b.digest
            AND f.snapshot_id IN (SELECT value FROM json_each(?1)))
    AND NOT EXISTS (
        SELECT 1 FROM files f JOIN snapshots s ON s.id = f.snapshot_id
        WHERE f.digest = b.digest AND s.stored
            AND s.id NOT IN (SELECT value FROM json_each(?1)))
    AND NOT EXISTS (
        SELECT 1 FROM links l WHERE l.digest = b.digest AND l.state <> 'undone' AND l.strategy = 'symlink')
    ORDER BY b.digest";

impl Registry {
    /// The blobs that nothing would use any more without these snapshots.
    pub fn blobs_only_of(&self, snapshots: &[i64]) -> Result<Vec<(Digest, Bytes)>> {
        freed(&self.connection, snapshots).map_err(|error| self.failure("read", error))
    }

    /// The symlinks in other tools' folders whose content no stored snapshot would have without these.
    pub fn links_only_of(&self, snapshots: &[i64]) -> Result<Vec<Link>> {
        let read = || {
            let list = serde_json::Value::from(snapshots).to_string();
            self.connection
                .prepare(
                    "SELECT DISTINCT f.digest FROM files f JOIN snapshots s ON s.id = f.snapshot_id
                     WHERE s.stored AND s.id IN (SELECT value FROM json_each(?1))
                     AND NOT EXISTS (
                         SELECT 1 FROM files g JOIN snapshots t ON t.id = g.snapshot_id
                         WHERE g.digest = f.digest AND t.stored
                             AND t.id NOT IN (SELECT value FROM json_each(?1)))",
                )?
                .query_map([list], |row| row.get(0))?
                .collect::<rusqlite::Result<Vec<Digest>>>()
        };
        let digests = read().map_err(|error| self.failure("read", error))?;
        let mut links = self.links_of(&digests)?;
        links.retain(|link| link.new.strategy == LinkStrategy::Symlink);
        Ok(links)
    }

    /// Forgets snapshots and models without any, in one transaction; gives back the blobs that
    /// nothing uses any more, forgotten too.
    pub fn remove(&mut self, snapshots: &[i64]) -> Result<Vec<(Digest, Bytes)>> {
        self.transaction(|transaction| {
            let freed = freed(transaction, snapshots)?;
            for id in snapshots {
                transaction.execute("DELETE FROM snapshots WHERE id = ?1", [id])?;
            }
            transaction.execute(
                "DELETE FROM models WHERE NOT EXISTS (SELECT 1 FROM snapshots WHERE model_id = models.id)",
                [],
            )?;
            for (digest, _) in &freed {
                transaction.execute("DELETE FROM blobs WHERE digest = ?1", [digest])?;
            }
            Ok(freed)
        })
    }

    /// Of these blobs those that no stored snapshot and no link uses.
    pub fn unused(&self, digests: &[Digest]) -> Result<Vec<Digest>> {
        let read = || {
            let mut used = self.connection.prepare(
                "SELECT EXISTS (SELECT 1 FROM files f JOIN snapshots s ON s.id = f.snapshot_id
                 WHERE f.digest = ?1 AND s.stored)
                 OR EXISTS (SELECT 1 FROM links WHERE digest = ?1 AND state <> 'undone'
                     AND strategy = 'symlink')",
            )?;
            let mut unused = Vec::new();
            for digest in digests {
                if !used.query_row([digest], |row| row.get::<_, bool>(0))? {
                    unused.push(*digest);
                }
            }
            Ok(unused)
        };
        read().map_err(|error| self.failure("read", error))
    }
}

fn freed(connection: &Connection, snapshots: &[i64]) -> rusqlite::Result<Vec<(Digest, Bytes)>> {
    let list = serde_json::Value::from(snapshots).to_string();
    connection
        .prepare(FREED)?
        .query_map([list], |row| Ok((row.get("digest")?, Bytes(count(row, "bytes")?))))?
        .collect()
}
