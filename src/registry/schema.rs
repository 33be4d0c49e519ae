//! The schema and its history.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, TransactionBehavior};

use crate::error::{Error, Result};
use crate::fs::sync_dir;

/// Version that this program writes.
pub const SCHEMA_VERSION: u32 = MIGRATIONS.len() as u32;

/// The statements that lead from one version to the next, the first from an empty database.
pub(super) const MIGRATIONS: [&str; 4] = [
    include_str!("migrations/1.sql"),
    include_str!("migrations/2.sql"),
    include_str!("migrations/3.sql"),
    include_str!("migrations/4.sql"),
];

/// Brings the database at `path` from `version` to the last of `migrations`, each step in a
/// transaction, after a copy of what was there.
pub(super) fn migrate(
    connection: &mut Connection,
    path: &Path,
    version: u32,
    migrations: &[&str],
) -> Result<()> {
    let home = path.parent().unwrap_or(Path::new("/"));
    let fail = |error| super::failure::of("migrate", home, error);
    if version == 0 {
        connection.pragma_update(None, "journal_mode", "wal").map_err(fail)?;
    } else if (version as usize) < migrations.len() {
        back_up(connection, path, version)?;
    }
    for (step, statements) in migrations.iter().enumerate().skip(version as usize) {
        let transaction =
            connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(fail)?;
        transaction
            .execute_batch(statements)
            .and_then(|()| transaction.pragma_update(None, "user_version", step as u32 + 1))
            .and_then(|()| {
                transaction.execute(
                    "INSERT INTO meta (key, value) VALUES ('written_by', ?1)
                     ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                    [env!("CARGO_PKG_VERSION")],
                )
            })
            .and_then(|_| transaction.commit())
            .map_err(fail)?;
    }
    Ok(())
}

/// The version of the program that last changed the schema.
pub(super) fn written_by(connection: &Connection) -> Option<String> {
    connection.query_row("SELECT value FROM meta WHERE key = 'written_by'", [], |row| row.get(0)).ok()
}

/// Copies the database to `registry.db.bak-<version>`.
fn back_up(connection: &Connection, path: &Path, version: u32) -> Result<PathBuf> {
    let home = path.parent().unwrap_or(Path::new("/"));
    let target = path.with_extension(format!("db.bak-{version}"));
    let unfinished = path.with_extension(format!("db.bak-{version}.tmp"));
    // Of a migration that was cut short; SQLite copies only to a new file.
    if unfinished.exists() {
        fs::remove_file(&unfinished).map_err(|error| Error::io("remove", &unfinished, error))?;
    }
    connection
        .execute("VACUUM INTO ?1", [unfinished.to_string_lossy()])
        .map_err(|error| super::failure::of("back up", home, error))?;
    File::open(&unfinished)
        .and_then(|file| file.sync_all())
        .and_then(|()| fs::rename(&unfinished, &target))
        .map_err(|error| Error::io("write", &target, error))?;
    sync_dir(home)?;
    Ok(target)
}
