//! A registry that is damaged: told, kept, and read as far as it goes.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags};

use super::links::{self, Link};
use super::models::{SNAPSHOTS, snapshot};
use super::record::{NewSnapshot, Snapshot};
use super::{FILE_NAME, Registry, schema};
use crate::error::{Error, Result};

/// Enough to say what is wrong; a badly damaged file has thousands.
const MOST_PROBLEMS: usize = 20;

/// What could still be read from a damaged registry.
#[derive(Debug, Default)]
pub struct Salvaged {
    /// Adopted snapshots, which the store's folders do not show.
    pub adopted: Vec<NewSnapshot>,
    /// Links in other tools' folders.
    pub links: Vec<Link>,
    /// Whether all of both could be read.
    pub complete: bool,
}

/// Puts a new registry with these snapshots and links in place of the one there is, which is kept under the name
/// that this returns. A crash on the way leaves the old one, or none, which is noticed.
pub fn replace(home: &Path, snapshots: &[NewSnapshot], links: &[Link]) -> Result<Option<PathBuf>> {
    let path = home.join(FILE_NAME);
    let new = home.join(format!("{FILE_NAME}.new"));
    // Of a replacement that was cut short.
    for suffix in FILES {
        match fs::remove_file(with_suffix(&new, suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io("remove", &new, error));
            }
            _ => {}
        }
    }
    super::create_file(&new)?;
    let mut registry = Registry::connect(home, &new)?;
    schema::migrate(&mut registry.connection, &new, 0, &schema::MIGRATIONS)?;
    for snapshot in snapshots {
        registry.register(snapshot, &[])?;
    }
    for link in links {
        links::restore(&registry.connection, home, link)?;
    }
    // Brings the log into the file, so that the file is all there is.
    registry.connection.close().map_err(|(_, error)| super::failure::of("close", home, error))?;
    let kept = set_aside(home)?;
    fs::rename(&new, &path).map_err(|error| Error::io("write", &path, error))?;
    crate::fs::sync_dir(home)?;
    Ok(kept)
}

/// Renames the registry to `registry.db.damaged-<time>`, its log files too. Nothing if there is none.
fn set_aside(home: &Path) -> Result<Option<PathBuf>> {
    let path = home.join(FILE_NAME);
    let time = Timestamp::now().strftime("%Y%m%dT%H%M%S%.6fZ");
    let kept = home.join(format!("{FILE_NAME}.damaged-{time}"));
    let mut found = false;
    for suffix in FILES {
        let (from, to) = (with_suffix(&path, suffix), with_suffix(&kept, suffix));
        match fs::rename(&from, &to) {
            Ok(()) => found |= suffix.is_empty(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io("rename", &from, error)),
        }
    }
    crate::fs::sync_dir(home)?;
    Ok(found.then_some(kept))
}

/// What SQLite adds to a database's name for the files beside it, after nothing for itself.
const FILES: [&str; 3] = ["", "-wal", "-shm"];

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

impl Salvaged {
    /// Reads what the registry in `home` still tells about adopted models and links. Rows that cannot be read are
    /// left out. The file is not changed.
    pub fn read(home: &Path) -> Self {
        Self::try_read(home).unwrap_or_default()
    }

    fn try_read(home: &Path) -> rusqlite::Result<Self> {
        let path = home.join(FILE_NAME);
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let registry =
            Registry { connection: Connection::open_with_flags(path, flags)?, home: home.to_owned() };
        let mut salvaged = Self { adopted: Vec::new(), links: Vec::new(), complete: true };
        match links::read(&registry.connection, home, "state <> 'undone'", []) {
            Ok(links) => salvaged.links = links,
            // An older schema has no links.
            Err(_) => salvaged.complete = registry.schema_version().is_ok_and(|version| version == 1),
        }
        let mut statement = registry.connection.prepare(&format!("{SNAPSHOTS} WHERE NOT s.stored"))?;
        let mut rows = statement.query([])?;
        loop {
            let row = match rows.next() {
                Ok(Some(row)) => row,
                Ok(None) => break,
                Err(_) => {
                    salvaged.complete = false;
                    break;
                }
            };
            let Ok(snapshot) = snapshot(row, home) else {
                salvaged.complete = false;
                continue;
            };
            let Snapshot { id, name, revision, origin, root, entry, facts, file_count, .. } = snapshot;
            match registry.files(id) {
                Ok(files) if files.len() as u64 == file_count => {
                    salvaged.adopted.push(NewSnapshot { name, revision, origin, root, entry, facts, files });
                }
                _ => salvaged.complete = false,
            }
        }
        Ok(salvaged)
    }
}

/// What `PRAGMA integrity_check` and `foreign_key_check` find.
pub(super) fn problems(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut problems: Vec<String> = connection
        .prepare(&format!("PRAGMA integrity_check({MOST_PROBLEMS})"))?
        .query_map([], |row| row.get::<_, String>(0))?
        .filter(|line| !matches!(line, Ok(line) if line == "ok"))
        .collect::<rusqlite::Result<_>>()?;
    let dangling: Vec<String> = connection
        .prepare("PRAGMA foreign_key_check")?
        .query_map([], |row| Ok(format!("a row of {} belongs to nothing", row.get::<_, String>(0)?)))?
        .take(MOST_PROBLEMS)
        .collect::<rusqlite::Result<_>>()?;
    problems.extend(dangling);
    Ok(problems)
}
