//! Models and their snapshots: reading and registering.

use std::cmp::Reverse;
use std::path::Path;

use jiff::Timestamp;
use rusqlite::types::Type;
use rusqlite::{OptionalExtension, Row, Transaction, params, params_from_iter};

use super::Registry;
use super::columns::{count, integer, optional_count, stamp, time};
use super::record::{Facts, FileRecord, Kind, NewSnapshot, Origin, Snapshot};
use crate::error::{Error, Result};
use crate::fs::FileStamp;
use crate::ids::{Bytes, Digest, Host, ModelName};

/// How much there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    pub models: u64,
    pub snapshots: u64,
    /// Blobs in the store, and their size.
    pub blobs: u64,
    pub blob_bytes: Bytes,
}

impl Registry {
    /// All snapshots, by the names of their models; of one model first what its branch `main` is, then
    /// the newest.
    pub fn snapshots(&self) -> Result<Vec<Snapshot>> {
        self.snapshots_where("", &[])
    }

    /// Those of the model that this name means, in the same order, whatever the case of its letters and the
    /// host that it came from.
    pub fn snapshots_of(&self, name: &ModelName) -> Result<Vec<Snapshot>> {
        self.snapshots_where("WHERE m.reference = ?1", &[name.to_string()])
    }

    fn snapshots_where(&self, filter: &str, values: &[String]) -> Result<Vec<Snapshot>> {
        let read = || {
            let mut snapshots = self
                .connection
                .prepare_cached(&format!("{SNAPSHOTS} {filter}"))?
                .query_map(params_from_iter(values), |row| snapshot(row, &self.home))?
                .collect::<rusqlite::Result<Vec<_>>>()?;
            // SQLite takes longer to sort rows than to read them.
            snapshots.sort_by_cached_key(|snapshot| {
                let Snapshot { id, name, added_at, .. } = snapshot;
                (name.to_string().to_ascii_lowercase(), Reverse((*added_at, *id)))
            });
            self.with_branches(&mut snapshots, filter, values).map(|()| snapshots)
        };
        read().map_err(|error| self.failure("read", error))
    }

    /// The files of one snapshot, by path.
    pub fn files(&self, snapshot_id: i64) -> Result<Vec<FileRecord>> {
        let read = || {
            self.connection
                .prepare(
                    "SELECT f.path, f.digest, f.bytes,
                            COALESCE(f.device, b.device) AS device, COALESCE(f.inode, b.inode) AS inode,
                            COALESCE(f.modified_ns, b.modified_ns) AS modified_ns,
                            COALESCE(f.changed_ns, b.changed_ns) AS changed_ns
                     FROM files f LEFT JOIN blobs b ON b.digest = f.digest
                     WHERE f.snapshot_id = ?1 ORDER BY f.path",
                )?
                .query_map([snapshot_id], |row| {
                    Ok(FileRecord {
                        path: row.get("path")?,
                        digest: row.get("digest")?,
                        bytes: count(row, "bytes")?,
                        stamp: stamp(row)?,
                    })
                })?
                .collect::<rusqlite::Result<_>>()
        };
        read().map_err(|error| self.failure("read", error))
    }

    /// The name under which a model is known that this name means: the same, but for the case of its
    /// letters and the host that it came from.
    pub fn known_name(&self, name: &ModelName) -> Result<Option<ModelName>> {
        self.connection
            .query_row(
                "SELECT host, org, name FROM models WHERE reference = ?1",
                [name.to_string()],
                model_name,
            )
            .optional()
            .map_err(|error| self.failure("read", error))
    }

    /// The digest that a file had when it was hashed as part of an adopted model or by dedupe, if it has
    /// not changed since by all that the filesystem tells.
    pub fn remembered_digest(&self, stamp: &FileStamp) -> Result<Option<Digest>> {
        self.connection
            .prepare_cached(
                "SELECT digest FROM files WHERE inode = ?1 AND device = ?2 AND bytes = ?3
                     AND modified_ns = ?4 AND changed_ns = ?5
                 UNION ALL SELECT digest FROM hashes WHERE inode = ?1 AND device = ?2 AND bytes = ?3
                     AND modified_ns = ?4 AND changed_ns = ?5 AND digest IS NOT NULL LIMIT 1",
            )
            .and_then(|mut query| {
                let FileStamp { device, inode, bytes, modified_ns, changed_ns } = *stamp;
                let key = params![inode as i64, device as i64, integer(bytes), modified_ns, changed_ns];
                query.query_row(key, |row| row.get(0)).optional()
            })
            .map_err(|error| self.failure("read", error))
    }

    pub fn counts(&self) -> Result<Counts> {
        self.connection
            .query_row(
                "SELECT (SELECT COUNT(*) FROM models) AS models, (SELECT COUNT(*) FROM snapshots) AS snapshots,
                        COUNT(*) AS blobs, TOTAL(bytes) AS blob_bytes FROM blobs",
                [],
                |row| {
                    Ok(Counts {
                        models: count(row, "models")?,
                        snapshots: count(row, "snapshots")?,
                        blobs: count(row, "blobs")?,
                        blob_bytes: Bytes(row.get::<_, f64>("blob_bytes")? as u64),
                    })
                },
            )
            .map_err(|error| self.failure("read", error))
    }

    /// Registers a snapshot in one transaction, in place of the same revision of the model and of
    /// those in `replaces`. Its content is in place already.
    pub fn register(&mut self, new: &NewSnapshot, replaces: &[i64]) -> Result<()> {
        let root = relative_text(&new.root, &self.home)?;
        self.transaction(|transaction| {
            for id in replaces {
                transaction.execute("DELETE FROM snapshots WHERE id = ?1", [id])?;
            }
            let id = insert_snapshot(transaction, new, &root)?;
            transaction.execute("DELETE FROM files WHERE snapshot_id = ?1", [id])?;
            new.files.iter().try_for_each(|file| insert_file(transaction, id, new.origin, file))
        })
    }
}

fn insert_snapshot(transaction: &Transaction<'_>, new: &NewSnapshot, root: &str) -> rusqlite::Result<i64> {
    let NewSnapshot { name, facts, .. } = new;
    transaction.execute(
        "INSERT INTO models (reference, host, org, name) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (reference) DO NOTHING",
        params![name.to_string(), name.host().as_str(), name.org(), name.name()],
    )?;
    let bytes: u64 = new.files.iter().map(|file| file.bytes).sum();
    transaction.query_row(
        "INSERT INTO snapshots (model_id, revision, origin, stored, root, entry, kind, architecture,
             parameters, quantization, context_length, bytes, file_count, added_at)
         VALUES ((SELECT id FROM models WHERE reference = ?1), ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12,
             ?13, ?14)
         ON CONFLICT (model_id, revision) DO UPDATE SET origin = excluded.origin, stored = excluded.stored,
             root = excluded.root, entry = excluded.entry, kind = excluded.kind,
             architecture = excluded.architecture, parameters = excluded.parameters,
             quantization = excluded.quantization, context_length = excluded.context_length,
             bytes = excluded.bytes, file_count = excluded.file_count
         RETURNING id",
        params![
            name.to_string(),
            new.revision,
            new.origin.as_str(),
            new.origin.is_stored(),
            root,
            new.entry,
            facts.kind.as_str(),
            facts.architecture,
            facts.parameters.map(integer),
            facts.quantization,
            facts.context_length.map(integer),
            integer(bytes),
            integer(new.files.len() as u64),
            Timestamp::now().as_millisecond(),
        ],
        |row| row.get(0),
    )
}

fn insert_file(
    transaction: &Transaction<'_>,
    snapshot_id: i64,
    origin: Origin,
    file: &FileRecord,
) -> rusqlite::Result<()> {
    let (own, blob) = if origin.is_stored() { (None, file.stamp) } else { (file.stamp, None) };
    transaction.prepare_cached("INSERT INTO files VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?.execute(
        params![
            snapshot_id,
            file.path,
            file.digest,
            integer(file.bytes),
            own.map(|stamp| stamp.device as i64),
            own.map(|stamp| stamp.inode as i64),
            own.map(|stamp| stamp.modified_ns),
            own.map(|stamp| stamp.changed_ns),
        ],
    )?;
    if !origin.is_stored() {
        return Ok(());
    }
    // A blob that was there already keeps what is known about it.
    transaction
        .prepare_cached(
            "INSERT INTO blobs VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT (digest) DO UPDATE SET verified_at = excluded.verified_at, device = excluded.device,
                 inode = excluded.inode, modified_ns = excluded.modified_ns, changed_ns = excluded.changed_ns
             WHERE excluded.verified_at IS NOT NULL",
        )?
        .execute(params![
            file.digest,
            integer(file.bytes),
            blob.map(|_| Timestamp::now().as_millisecond()),
            blob.map(|stamp| stamp.device as i64),
            blob.map(|stamp| stamp.inode as i64),
            blob.map(|stamp| stamp.modified_ns),
            blob.map(|stamp| stamp.changed_ns),
        ])?;
    Ok(())
}

/// All snapshots, with the columns that [`snapshot`] reads by their places: to look names up in each row takes
/// longer than to read it.
pub(super) const SNAPSHOTS: &str =
    "SELECT m.host, m.org, m.name, s.id, s.revision, s.origin, s.root, s.entry,
    s.kind, s.architecture, s.parameters, s.quantization, s.context_length, s.bytes, s.file_count, s.added_at,
    s.last_used_at FROM snapshots s JOIN models m ON m.id = s.model_id";

/// A row of [`SNAPSHOTS`].
pub(super) fn snapshot(row: &Row<'_>, home: &Path) -> rusqlite::Result<Snapshot> {
    let text = |column: usize| Ok::<_, rusqlite::Error>(row.get_ref(column)?.as_str()?);
    Ok(Snapshot {
        name: model_name(row)?,
        id: row.get(3)?,
        revision: row.get(4)?,
        origin: Origin::from_word(text(5)?).ok_or_else(|| wrong("origin"))?,
        root: home.join(text(6)?),
        entry: row.get(7)?,
        facts: Facts {
            kind: Kind::from_word(text(8)?).ok_or_else(|| wrong("kind"))?,
            architecture: row.get(9)?,
            parameters: optional_count(row, 10)?,
            quantization: row.get(11)?,
            context_length: optional_count(row, 12)?,
        },
        bytes: Bytes(count(row, 13)?),
        file_count: count(row, 14)?,
        added_at: time(row, 15)?.ok_or_else(|| wrong("time"))?,
        last_used: time(row, 16)?,
        branches: Vec::new(),
    })
}

/// The first three columns: host, namespace and name.
fn model_name(row: &Row<'_>) -> rusqlite::Result<ModelName> {
    let text = |column: usize| Ok::<_, rusqlite::Error>(row.get_ref(column)?.as_str()?);
    let host = Host::from_folder(text(0)?).ok_or_else(|| wrong("host"))?;
    ModelName::new(host, text(1)?, text(2)?).map_err(|_| wrong("name"))
}

/// A value that this program does not write.
pub(super) fn wrong(what: &str) -> rusqlite::Error {
    let error = Error::internal(format!("unknown {what} in the registry"));
    rusqlite::Error::FromSqlConversionFailure(0, Type::Text, Box::new(error))
}

/// A path as the registry keeps it: relative inside the store, so that the store can be moved.
pub(super) fn relative_text(path: &Path, home: &Path) -> Result<String> {
    let kept = path.strip_prefix(home).unwrap_or(path);
    match kept.to_str() {
        Some(text) => Ok(text.to_owned()),
        None => Err(Error::new(
            crate::error::Code::InvalidRequest,
            format!("{} cannot be registered: its name is not UTF-8", path.display()),
        )
        .detail("path", path.display().to_string())
        .hint("rename the folder or file and try again")),
    }
}
