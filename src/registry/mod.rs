//! The registry: a SQLite database that says which models there are, where they lie and what they are.
//! All SQL of the program is here. What it says about the store's content can be made again from the
//! store itself.

mod benchmarks;
mod columns;
mod damage;
mod failure;
mod foreign;
mod hashes;
mod links;
mod models;
mod pulls;
mod record;
mod removal;
mod schema;
mod sessions;
mod verified;

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use crate::error::{Code, Error, Result};
use crate::fs::FileLock;

pub use benchmarks::Benchmark;
pub use damage::{Salvaged, replace};
pub use foreign::{KnownSource, Usage};
pub use hashes::Remembered;
pub use links::{Identity, Link, LinkState, LinkStrategy, NewLink, Original};
pub use models::Counts;
pub use record::{Facts, FileRecord, Kind, NewSnapshot, Origin, Snapshot};
pub use schema::SCHEMA_VERSION;
pub use sessions::NewSession;
pub use verified::Verified;

/// Name of the database in the store's folder.
pub const FILE_NAME: &str = "registry.db";

/// How long a statement waits for another process's transaction, and a migration for another's.
const PATIENCE: Duration = Duration::from_secs(20);

/// An open registry.
#[derive(Debug)]
pub struct Registry {
    connection: Connection,
    /// The store's folder: paths inside it are kept relative to it.
    home: PathBuf,
}

impl Registry {
    /// Opens the registry of the store in `home`, bringing an older one up to date; `None` if there
    /// is none, and nothing is made.
    ///
    /// A newer schema is INVALID_REQUEST, a damaged database INTEGRITY_FAILED.
    pub fn open(home: &Path) -> Result<Option<Self>> {
        let path = home.join(FILE_NAME);
        // An empty file is what a creation that was cut short leaves.
        let present = match fs::metadata(&path) {
            Ok(found) => found.len() > 0,
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(Error::io("open", &path, error)),
        };
        if !present {
            return check_nothing_lost(home).map(|()| None);
        }
        let mut registry = Self::connect(home, &path)?;
        match registry.schema_version()? {
            SCHEMA_VERSION => Ok(Some(registry)),
            0 if registry.is_empty()? => check_nothing_lost(home).map(|()| None),
            version if version > SCHEMA_VERSION => Err(registry.newer(version)),
            _ => {
                registry.migrate()?;
                Ok(Some(registry))
            }
        }
    }

    /// Opens the registry, making it if there is none. The store's folders exist already.
    pub fn create(home: &Path) -> Result<Self> {
        if let Some(registry) = Self::open(home)? {
            return Ok(registry);
        }
        let path = home.join(FILE_NAME);
        create_file(&path)?;
        let mut registry = Self::connect(home, &path)?;
        registry.migrate()?;
        Ok(registry)
    }

    fn connect(home: &Path, path: &Path) -> Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let opened = Self::configured(home, Connection::open_with_flags(path, flags));
        match opened {
            // A database in WAL mode needs two more files beside it. On a disk that cannot be written
            // nobody else writes either, so it can be read without them.
            Err(error) if is_read_only(&error) && !has_log(path) => {
                let Some(address) = immutable_address(path) else {
                    return Err(failure::of("open", home, error));
                };
                let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
                    | OpenFlags::SQLITE_OPEN_NO_MUTEX
                    | OpenFlags::SQLITE_OPEN_URI;
                Self::configured(home, Connection::open_with_flags(address, flags))
            }
            other => other,
        }
        .map_err(|error| failure::of("open", home, error))
    }

    fn configured(home: &Path, opened: rusqlite::Result<Connection>) -> rusqlite::Result<Self> {
        let connection = opened?;
        connection.busy_timeout(PATIENCE)?;
        connection.pragma_update(None, "foreign_keys", true)?;
        // The table of links is a journal: what is written is on disk before anything is done by it.
        connection.pragma_update(None, "synchronous", "full")?;
        connection.pragma_update(None, "fullfsync", true)?;
        // No file for sorting in a folder that others use.
        connection.pragma_update(None, "temp_store", "memory")?;
        // The first look into the file: what cannot be read shows here.
        connection.pragma_query_value(None, "schema_version", |_| Ok(()))?;
        Ok(Self { connection, home: home.to_owned() })
    }

    /// Version of the schema in the file; 0 before the first migration.
    pub fn schema_version(&self) -> Result<u32> {
        self.connection
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .map_err(|error| self.failure("read", error))
    }

    /// What SQLite finds wrong with the database; nothing if it is sound.
    pub fn problems(&self) -> Result<Vec<String>> {
        damage::problems(&self.connection).map_err(|error| self.failure("check", error))
    }

    fn is_empty(&self) -> Result<bool> {
        self.connection
            .query_row("SELECT NOT EXISTS (SELECT 1 FROM sqlite_schema)", [], |row| row.get(0))
            .map_err(|error| self.failure("read", error))
    }

    fn migrate(&mut self) -> Result<()> {
        let locks = self.home.join("locks");
        crate::fs::create_private_dir(&locks)?;
        let _lock = FileLock::acquire(&locks.join("registry.lock"), PATIENCE)?;
        // Another process may have done it while this one waited.
        let version = self.schema_version()?;
        if version > SCHEMA_VERSION {
            return Err(self.newer(version));
        }
        schema::migrate(&mut self.connection, &self.home.join(FILE_NAME), version, &schema::MIGRATIONS)
            .map_err(|error| error.context("cannot bring the registry up to date"))
    }

    fn newer(&self, version: u32) -> Error {
        let writer = schema::written_by(&self.connection).unwrap_or_else(|| "a newer version".to_owned());
        let path = self.home.join(FILE_NAME);
        let message = format!(
            "{} was written by mlx-cache {writer}: its schema is {version}, this version knows {SCHEMA_VERSION}",
            path.display()
        );
        Error::new(Code::InvalidRequest, message)
            .detail("path", path.display().to_string())
            .detail("schema", version)
            .detail("written_by", writer)
            .hint("use that version of mlx-cache or a later one, or another store with MLX_CACHE_HOME")
    }

    /// Writes all of it or nothing.
    fn transaction<T>(&mut self, work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>) -> Result<T> {
        let write = || {
            let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let value = work(&transaction)?;
            transaction.commit()?;
            Ok(value)
        };
        write().map_err(|error| failure::of("write", &self.home, error))
    }

    fn failure(&self, action: &str, error: rusqlite::Error) -> Error {
        failure::of(action, &self.home, error)
    }
}

/// Makes an empty file that only its owner may read: SQLite would take what the umask leaves.
fn create_file(path: &Path) -> Result<()> {
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .and_then(|file| file.set_permissions(fs::Permissions::from_mode(0o600)))
        .map_err(|error| Error::io("create", path, error))
}

/// A store with models but no registry has lost it.
fn check_nothing_lost(home: &Path) -> Result<()> {
    let holds_models = fs::read_dir(home.join("models")).is_ok_and(|mut folders| folders.next().is_some());
    if !holds_models {
        return Ok(());
    }
    let path = home.join(FILE_NAME);
    let message = format!("{} is missing or empty, although the store holds models", path.display());
    Err(Error::new(Code::IntegrityFailed, message)
        .detail("path", path.display().to_string())
        .hint(failure::REPAIR_HINT))
}

fn is_read_only(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(rusqlite::ErrorCode::CannotOpen | rusqlite::ErrorCode::ReadOnly))
}

/// Whether committed transactions wait in the log beside the database.
fn has_log(path: &Path) -> bool {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    fs::metadata(log).is_ok_and(|found| found.len() > 0)
}

/// The URI by which SQLite reads a file that does not change; nothing for a path that is not UTF-8.
fn immutable_address(path: &Path) -> Option<String> {
    let escaped = path.to_str()?.replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    Some(format!("file:{escaped}?immutable=1"))
}

#[cfg(test)]
mod tests;
