//! What was fetched from the hub, and what need not be fetched.

use std::collections::HashMap;
use std::path::PathBuf;

use jiff::Timestamp;
use rusqlite::{OptionalExtension, params, params_from_iter};

use super::Registry;
use super::columns::integer;
use super::record::Snapshot;
use crate::error::Result;
use crate::ids::{Digest, ModelName, Revision};

impl Registry {
    /// Writes down that a choice of files of a registered snapshot is here whole, and that it was what
    /// a branch or tag named just now.
    pub fn note_pull(
        &mut self,
        name: &ModelName,
        revision: &Revision,
        branch: Option<&str>,
        choice: &str,
    ) -> Result<()> {
        self.transaction(|transaction| {
            transaction.execute(
                "INSERT INTO choices
                 SELECT s.id, ?3 FROM snapshots s JOIN models m ON m.id = s.model_id
                 WHERE m.reference = ?1 AND s.revision = ?2
                 ON CONFLICT DO NOTHING",
                params![name.to_string(), revision, choice],
            )?;
            if let Some(branch) = branch {
                transaction.execute(
                    "INSERT INTO branches SELECT id, ?2, ?3, ?4 FROM models WHERE reference = ?1
                     ON CONFLICT (model_id, name)
                     DO UPDATE SET revision = excluded.revision, asked_at = excluded.asked_at",
                    params![name.to_string(), branch, revision, Timestamp::now().as_millisecond()],
                )?;
            }
            Ok(())
        })
    }

    /// Whether this choice of a snapshot's files is here whole.
    pub fn has_choice(&self, snapshot_id: i64, choice: &str) -> Result<bool> {
        self.connection
            .query_row(
                "SELECT EXISTS (SELECT 1 FROM choices WHERE snapshot_id = ?1 AND choice = ?2)",
                params![snapshot_id, choice],
                |row| row.get(0),
            )
            .map_err(|error| self.failure("read", error))
    }

    /// The commit that a branch or tag was when it was last asked for.
    pub fn branch(&self, name: &ModelName, branch: &str) -> Result<Option<Revision>> {
        self.connection
            .query_row(
                "SELECT b.revision FROM branches b JOIN models m ON m.id = b.model_id
                 WHERE m.reference = ?1 AND b.name = ?2",
                params![name.to_string(), branch],
                |row| row.get(0),
            )
            .optional()
            .map_err(|error| self.failure("read", error))
    }

    /// Content of the store that has this size.
    pub fn blobs_of_size(&self, bytes: u64) -> Result<Vec<Digest>> {
        self.connection
            .prepare_cached("SELECT digest FROM blobs WHERE bytes = ?1 ORDER BY digest")
            .and_then(|mut query| {
                query.query_map([integer(bytes)], |row| row.get(0))?.collect::<rusqlite::Result<_>>()
            })
            .map_err(|error| self.failure("read", error))
    }

    /// Where adopted models had this content when they were hashed.
    pub fn adopted_places(&self, digest: &Digest) -> Result<Vec<PathBuf>> {
        self.connection
            .prepare_cached(
                "SELECT s.root, f.path FROM files f JOIN snapshots s ON s.id = f.snapshot_id
                 WHERE f.digest = ?1 AND NOT s.stored ORDER BY s.id, f.path",
            )
            .and_then(|mut query| {
                query
                    .query_map([digest], |row| {
                        Ok(self.home.join(row.get::<_, String>(0)?).join(row.get::<_, String>(1)?))
                    })?
                    .collect::<rusqlite::Result<_>>()
            })
            .map_err(|error| self.failure("read", error))
    }

    /// Tells snapshots the branches and tags that they were last, and puts of each model the one first
    /// that its `main` was.
    pub(super) fn with_branches(
        &self,
        snapshots: &mut [Snapshot],
        filter: &str,
        values: &[String],
    ) -> rusqlite::Result<()> {
        let mut branches: HashMap<(String, String), Vec<String>> = HashMap::new();
        let mut query = self.connection.prepare_cached(&format!(
            "SELECT m.reference, b.revision, b.name FROM branches b JOIN models m ON m.id = b.model_id {filter}
             ORDER BY b.name"
        ))?;
        let mut rows = query.query(params_from_iter(values))?;
        while let Some(row) = rows.next()? {
            branches.entry((row.get(0)?, row.get(1)?)).or_default().push(row.get(2)?);
        }
        if branches.is_empty() {
            return Ok(());
        }
        for snapshot in snapshots.iter_mut() {
            let key = (snapshot.name.to_string(), snapshot.revision.to_string());
            snapshot.branches = branches.remove(&key).unwrap_or_default();
        }
        for model in snapshots.chunk_by_mut(|a, b| a.name == b.name) {
            // Stable: the rest stays newest first.
            model.sort_by_key(|snapshot| !snapshot.branches.iter().any(|branch| branch == "main"));
        }
        Ok(())
    }
}
