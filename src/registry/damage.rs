//! A registry that is damaged: told, kept, and read as far as it goes.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags};

use super::models::snapshot;
use super::record::{NewSnapshot, Snapshot};
use super::{FILE_NAME, Registry};
use crate::error::{Error, Result};

/// Enough to say what is wrong; a badly damaged file has thousands.
const MOST_PROBLEMS: usize = 20;

/// What could still be read from a damaged registry.
#[derive(Debug, Default)]
pub struct Salvaged {
    /// Adopted snapshots, which the store's folders do not show.
    pub adopted: Vec<NewSnapshot>,
    /// Whether all of them could be read.
    pub complete: bool,
}

/// Renames the registry to `registry.db.damaged-<time>`, its log files too. Nothing if there is none.
pub fn set_aside(home: &Path) -> Result<Option<PathBuf>> {
    let path = home.join(FILE_NAME);
    let time = Timestamp::now().strftime("%Y%m%dT%H%M%S%.6fZ");
    let kept = home.join(format!("{FILE_NAME}.damaged-{time}"));
    let with = |path: &Path, suffix: &str| {
        let mut name = OsString::from(path);
        name.push(suffix);
        PathBuf::from(name)
    };
    let mut found = false;
    for suffix in ["", "-wal", "-shm"] {
        let (from, to) = (with(&path, suffix), with(&kept, suffix));
        match fs::rename(&from, &to) {
            Ok(()) => found |= suffix.is_empty(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io("rename", &from, error)),
        }
    }
    crate::fs::sync_dir(home)?;
    Ok(found.then_some(kept))
}

impl Salvaged {
    /// Reads what a registry that was set aside still tells about adopted models of the store in
    /// `home`. Rows that cannot be read are left out.
    pub fn read(damaged: &Path, home: &Path) -> Self {
        Self::try_read(damaged, home).unwrap_or_default()
    }

    fn try_read(damaged: &Path, home: &Path) -> rusqlite::Result<Self> {
        // Read-only: the file is kept as it was found.
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let registry =
            Registry { connection: Connection::open_with_flags(damaged, flags)?, home: home.to_owned() };
        let mut salvaged = Self { adopted: Vec::new(), complete: true };
        let mut statement = registry.connection.prepare(
            "SELECT s.*, m.host, m.org, m.name FROM snapshots s JOIN models m ON m.id = s.model_id
             WHERE NOT s.stored",
        )?;
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
