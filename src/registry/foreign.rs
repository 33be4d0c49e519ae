//! Which tools keep which content.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rusqlite::params;

use super::Registry;
use super::columns::{count, integer};
use super::models::relative_text;
use crate::error::Result;
use crate::ids::{Bytes, Digest};

/// A file of a foreign model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    pub digest: Digest,
    /// The model as its tool names it.
    pub model: String,
    /// Where its tool looks for the file.
    pub path: PathBuf,
}

/// A foreign cache, as it was seen last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownSource {
    /// `hf`, `ollama`, `lmstudio` or `folder`.
    pub app: String,
    pub root: PathBuf,
    pub models: u64,
    pub bytes: Bytes,
}

impl Registry {
    /// Writes down what a foreign cache holds, in place of what was known of it. Paths that are not
    /// UTF-8 are left out.
    pub fn record_source(&mut self, source: &KnownSource, usage: &[Usage]) -> Result<()> {
        let root = relative_text(&source.root, &self.home)?;
        self.transaction(|transaction| {
            let now = Timestamp::now().as_millisecond();
            transaction.execute(
                "INSERT INTO apps VALUES (?1, ?2, ?2)
                 ON CONFLICT (name) DO UPDATE SET last_seen_at = excluded.last_seen_at",
                params![source.app, now],
            )?;
            let id: i64 = transaction.query_row(
                "INSERT INTO sources (app, root, models, bytes, seen_at) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (root) DO UPDATE SET app = excluded.app, models = excluded.models,
                     bytes = excluded.bytes, seen_at = excluded.seen_at
                 RETURNING id",
                params![source.app, root, integer(source.models), integer(source.bytes.0), now],
                |row| row.get(0),
            )?;
            transaction.execute("DELETE FROM usage WHERE source_id = ?1", [id])?;
            let mut insert = transaction.prepare("INSERT OR IGNORE INTO usage VALUES (?1, ?2, ?3, ?4)")?;
            for used in usage {
                if let Some(path) = used.path.to_str() {
                    insert.execute(params![id, used.digest, used.model, path])?;
                }
            }
            Ok(())
        })
    }

    /// The foreign caches that were seen, by folder.
    pub fn known_sources(&self) -> Result<Vec<KnownSource>> {
        let read = || {
            self.connection
                .prepare("SELECT app, root, models, bytes FROM sources ORDER BY root")?
                .query_map([], |row| {
                    Ok(KnownSource {
                        app: row.get("app")?,
                        root: self.home.join(row.get::<_, String>("root")?),
                        models: count(row, "models")?,
                        bytes: Bytes(count(row, "bytes")?),
                    })
                })?
                .collect::<rusqlite::Result<_>>()
        };
        read().map_err(|error| self.failure("read", error))
    }

    /// The tools that use any of these contents, as of the last look.
    pub fn apps_using(&self, digests: &[Digest]) -> Result<BTreeSet<String>> {
        let read = || {
            let list = digests.iter().map(ToString::to_string).collect::<serde_json::Value>().to_string();
            self.connection
                .prepare(
                    "SELECT DISTINCT s.app FROM usage u JOIN sources s ON s.id = u.source_id
                     WHERE u.digest IN (SELECT value FROM json_each(?1))
                     UNION SELECT source FROM links WHERE state <> 'undone'
                         AND digest IN (SELECT value FROM json_each(?1))",
                )?
                .query_map([list], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()
        };
        read().map_err(|error| self.failure("read", error))
    }

    /// Forgets a foreign cache that is gone.
    pub fn forget_source(&mut self, root: &Path) -> Result<()> {
        let root = relative_text(root, &self.home)?;
        self.transaction(|transaction| transaction.execute("DELETE FROM sources WHERE root = ?1", [root]))
            .map(|_| ())
    }
}
