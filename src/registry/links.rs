//! Links into other tools' folders: what was made, from what, and how far it came.
//!
//! A row goes through `planned` (nothing of the other tool was touched), `staged` (what comes and what
//! goes may or may not have changed places: the disk tells), `done`, `undoing` and `undone`. Every
//! change is on disk when the method returns.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rusqlite::{Connection, Row, params};

use super::Registry;
use super::columns::{count, integer, stamp};
use super::models::{relative_text, wrong};
use super::record::words;
use crate::error::{Error, Result};
use crate::fs::FileStamp;
use crate::ids::Digest;

words! {
    /// How one copy comes to serve several places.
    LinkStrategy {
        /// The place is a symlink to a name of its own in the store.
        Symlink "symlink",
        /// The places are names of one file.
        Hardlink "hardlink",
        /// The places are files that share blocks.
        Reflink "reflink",
    }
}

words! {
    /// How far a link came.
    LinkState {
        Planned "planned",
        Staged "staged",
        Done "done",
        Undoing "undoing",
        Undone "undone",
    }
}

/// The regular file that was at a link's path before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Original {
    pub stamp: FileStamp,
    /// Permission bits.
    pub mode: u32,
    /// Extended attributes.
    pub attributes: Vec<(String, Vec<u8>)>,
}

/// A link to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewLink {
    /// The word for the kind of cache.
    pub source: String,
    /// The folder that `path` must not leave; absolute, without links in it.
    pub root: PathBuf,
    /// Absolute, below `root`.
    pub path: PathBuf,
    pub digest: Digest,
    pub bytes: u64,
    pub strategy: LinkStrategy,
    /// Nothing if nothing is replaced.
    pub original: Option<Original>,
    /// The copy that a clone shares its blocks with.
    pub kept: Option<Identity>,
}

impl NewLink {
    /// A symlink where nothing was.
    pub fn where_nothing_was(source: &str, root: &Path, path: &Path, digest: Digest, bytes: u64) -> Self {
        Self {
            source: source.to_owned(),
            root: root.to_owned(),
            path: path.to_owned(),
            digest,
            bytes,
            strategy: LinkStrategy::Symlink,
            original: None,
            kept: None,
        }
    }
}

/// What tells that a file is still the same one with the same content, whatever names it got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity {
    pub device: u64,
    pub inode: u64,
    pub modified_ns: i64,
}

impl Identity {
    pub fn of(stamp: &FileStamp) -> Self {
        Self { device: stamp.device, inode: stamp.inode, modified_ns: stamp.modified_ns }
    }
}

/// A link of the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its row; never used for another link.
    pub id: i64,
    pub new: NewLink,
    pub state: LinkState,
    /// Of a symlink: the name in the store that it points at; absolute.
    pub name: Option<PathBuf>,
    /// Where its counterpart lies while places are changed; absolute.
    pub stage: Option<PathBuf>,
    /// Identity of the hard link or clone that was put there.
    pub placed: Option<FileStamp>,
}

/// The names that a planned link is to have, made from its row.
pub type Names = (Option<PathBuf>, Option<PathBuf>);

impl Registry {
    /// Writes a planned link down; `names` gives the link's name and the stage's, both absolute, from
    /// the row's number. An undone link of the same path gives way.
    pub fn plan_link(&mut self, new: NewLink, names: impl FnOnce(i64) -> Names) -> Result<Link> {
        let path = relative_text(&new.path, &self.home)?;
        let root = relative_text(&new.root, &self.home)?;
        let home = self.home.clone();
        let mut made = None;
        self.transaction(|transaction| {
            transaction.execute("DELETE FROM links WHERE path = ?1 AND state = 'undone'", [&path])?;
            let original = new.original.as_ref();
            let attributes = original.map(|original| json(&original.attributes));
            transaction.execute(
                "INSERT INTO links (source, root, path, digest, bytes, strategy, state, device, inode,
                     modified_ns, changed_ns, mode, attributes, changed_at, kept_device, kept_inode,
                     kept_modified_ns)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'planned', ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
                params![
                    new.source,
                    root,
                    path,
                    new.digest,
                    integer(new.bytes),
                    new.strategy.as_str(),
                    original.map(|original| original.stamp.device as i64),
                    original.map(|original| original.stamp.inode as i64),
                    original.map(|original| original.stamp.modified_ns),
                    original.map(|original| original.stamp.changed_ns),
                    original.map(|original| original.mode),
                    attributes,
                    Timestamp::now().as_millisecond(),
                    new.kept.map(|kept| kept.device as i64),
                    new.kept.map(|kept| kept.inode as i64),
                    new.kept.map(|kept| kept.modified_ns),
                ],
            )?;
            let id = transaction.last_insert_rowid();
            let (name, stage) = names(id);
            let text = |path: &Option<PathBuf>| path.as_deref().map(|path| relative_text(path, &home));
            let (name_text, stage_text) = (text(&name).transpose(), text(&stage).transpose());
            let (name_text, stage_text) = (name_text.map_err(foreign)?, stage_text.map_err(foreign)?);
            transaction.execute(
                "UPDATE links SET name = ?2, stage = ?3 WHERE id = ?1",
                params![id, name_text, stage_text],
            )?;
            made = Some((id, name, stage));
            Ok(())
        })?;
        let Some((id, name, stage)) = made else { return Err(Error::internal("a link has no row")) };
        Ok(Link { id, new, state: LinkState::Planned, name, stage, placed: None })
    }

    /// Moves a link on; `placed` is the identity of a hard link or clone, once it is there.
    pub fn set_link_state(&mut self, id: i64, state: LinkState, placed: Option<FileStamp>) -> Result<()> {
        self.transaction(|transaction| {
            transaction.execute(
                "UPDATE links SET state = ?2, changed_at = ?3,
                     placed_device = COALESCE(?4, placed_device), placed_inode = COALESCE(?5, placed_inode),
                     placed_modified_ns = COALESCE(?6, placed_modified_ns),
                     placed_changed_ns = COALESCE(?7, placed_changed_ns)
                 WHERE id = ?1",
                params![
                    id,
                    state.as_str(),
                    Timestamp::now().as_millisecond(),
                    placed.map(|stamp| stamp.device as i64),
                    placed.map(|stamp| stamp.inode as i64),
                    placed.map(|stamp| stamp.modified_ns),
                    placed.map(|stamp| stamp.changed_ns),
                ],
            )?;
            Ok(())
        })
    }

    /// Sets where the counterpart of a link lies during its undoing, and that it is being undone.
    pub fn begin_undo(&mut self, id: i64, stage: &Path) -> Result<()> {
        let stage = relative_text(stage, &self.home)?;
        self.transaction(|transaction| {
            transaction.execute(
                "UPDATE links SET state = 'undoing', stage = ?2, changed_at = ?3 WHERE id = ?1",
                params![id, stage, Timestamp::now().as_millisecond()],
            )?;
            Ok(())
        })
    }

    /// Forgets a link: it was never made, or its tool has taken it away.
    pub fn forget_link(&mut self, id: i64) -> Result<()> {
        self.transaction(|transaction| transaction.execute("DELETE FROM links WHERE id = ?1", [id]))
            .map(|_| ())
    }

    /// Writes down that content is in the store, with its identity.
    pub fn record_blob(&mut self, digest: &Digest, stamp: &FileStamp) -> Result<()> {
        self.transaction(|transaction| {
            transaction.execute(
                "INSERT INTO blobs VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                 ON CONFLICT (digest) DO UPDATE SET verified_at = excluded.verified_at,
                     device = excluded.device, inode = excluded.inode,
                     modified_ns = excluded.modified_ns, changed_ns = excluded.changed_ns",
                params![
                    digest,
                    integer(stamp.bytes),
                    Timestamp::now().as_millisecond(),
                    stamp.device as i64,
                    stamp.inode as i64,
                    stamp.modified_ns,
                    stamp.changed_ns,
                ],
            )?;
            Ok(())
        })
    }

    /// Whether a snapshot of the store uses this content.
    pub fn is_stored(&self, digest: &Digest) -> Result<bool> {
        self.connection
            .query_row(
                "SELECT EXISTS (SELECT 1 FROM files f JOIN snapshots s ON s.id = f.snapshot_id
                 WHERE f.digest = ?1 AND s.stored)",
                [digest],
                |row| row.get(0),
            )
            .map_err(|error| self.failure("read", error))
    }

    /// Forgets content that is no longer in the store.
    pub fn forget_blob(&mut self, digest: &Digest) -> Result<()> {
        self.transaction(|transaction| transaction.execute("DELETE FROM blobs WHERE digest = ?1", [digest]))
            .map(|_| ())
    }

    /// All links that are or may be there, by path; those that were undone are not among them.
    pub fn links(&self) -> Result<Vec<Link>> {
        self.read_links("state <> 'undone'", [])
    }

    /// Links whose making or undoing was cut short.
    pub fn unfinished_links(&self) -> Result<Vec<Link>> {
        self.read_links("state IN ('planned', 'staged', 'undoing')", [])
    }

    /// The link at a path, if there is one.
    pub fn link_at(&self, path: &Path) -> Result<Option<Link>> {
        let path = relative_text(path, &self.home)?;
        Ok(self.read_links("state <> 'undone' AND path = ?1", [path])?.pop())
    }

    /// The links that any of these contents serves.
    pub fn links_of(&self, digests: &[Digest]) -> Result<Vec<Link>> {
        let list = digests.iter().map(ToString::to_string).collect::<serde_json::Value>().to_string();
        let these = "state <> 'undone' AND digest IN (SELECT value FROM json_each(?1))";
        self.read_links(these, [list])
    }

    /// The contents that links point at: other tools lose their files if these go.
    pub fn linked_digests(&self) -> Result<Vec<Digest>> {
        let read = || {
            self.connection
                .prepare(
                    "SELECT DISTINCT digest FROM links WHERE state <> 'undone' AND strategy = 'symlink'
                     ORDER BY digest",
                )?
                .query_map([], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()
        };
        read().map_err(|error| self.failure("read", error))
    }

    fn read_links(&self, which: &str, arguments: impl rusqlite::Params) -> Result<Vec<Link>> {
        read(&self.connection, &self.home, which, arguments).map_err(|error| self.failure("read", error))
    }
}

/// The links for which this condition holds.
pub(super) fn read(
    connection: &Connection,
    home: &Path,
    which: &str,
    arguments: impl rusqlite::Params,
) -> rusqlite::Result<Vec<Link>> {
    connection
        .prepare(&format!("SELECT * FROM links WHERE {which} ORDER BY path"))?
        .query_map(arguments, |row| link(row, home))?
        .collect()
}

/// Brings links of another registry over, numbers included: names in the store are made of them.
pub(super) fn restore(connection: &Connection, home: &Path, link: &Link) -> Result<()> {
    let text = |path: &Path| relative_text(path, home);
    let new = &link.new;
    let original = new.original.as_ref();
    let (root, path) = (text(&new.root)?, text(&new.path)?);
    let name = link.name.as_deref().map(text).transpose()?;
    let stage = link.stage.as_deref().map(text).transpose()?;
    let stamp = original.map(|original| original.stamp);
    connection
        .execute(
            "INSERT OR IGNORE INTO links VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14,
                 ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24)",
            params![
                link.id,
                new.source,
                root,
                path,
                new.digest,
                integer(new.bytes),
                new.strategy.as_str(),
                link.state.as_str(),
                name,
                stage,
                stamp.map(|stamp| stamp.device as i64),
                stamp.map(|stamp| stamp.inode as i64),
                stamp.map(|stamp| stamp.modified_ns),
                stamp.map(|stamp| stamp.changed_ns),
                original.map(|original| original.mode),
                original.map(|original| json(&original.attributes)),
                link.placed.map(|stamp| stamp.device as i64),
                link.placed.map(|stamp| stamp.inode as i64),
                link.placed.map(|stamp| stamp.modified_ns),
                link.placed.map(|stamp| stamp.changed_ns),
                new.kept.map(|kept| kept.device as i64),
                new.kept.map(|kept| kept.inode as i64),
                new.kept.map(|kept| kept.modified_ns),
                Timestamp::now().as_millisecond(),
            ],
        )
        .and_then(|_| match new.strategy {
            LinkStrategy::Symlink => connection.execute(
                "INSERT OR IGNORE INTO blobs (digest, bytes) VALUES (?1, ?2)",
                params![new.digest, integer(new.bytes)],
            ),
            LinkStrategy::Hardlink | LinkStrategy::Reflink => Ok(0),
        })
        .map(|_| ())
        .map_err(|error| super::failure::of("write", home, error))
}

fn link(row: &Row<'_>, home: &Path) -> rusqlite::Result<Link> {
    let bytes = count(row, "bytes")?;
    let path = |column| -> rusqlite::Result<Option<PathBuf>> {
        Ok(row.get::<_, Option<String>>(column)?.map(|text| home.join(text)))
    };
    let original = match stamp(row)? {
        None => None,
        Some(stamp) => Some(Original {
            stamp,
            mode: row.get::<_, Option<u32>>("mode")?.unwrap_or(0o644),
            attributes: attributes(row.get::<_, Option<String>>("attributes")?.as_deref())?,
        }),
    };
    let placed = row.get::<_, Option<i64>>("placed_inode")?;
    let placed = match placed {
        None => None,
        Some(inode) => Some(FileStamp {
            device: row.get::<_, i64>("placed_device")? as u64,
            inode: inode as u64,
            bytes,
            modified_ns: row.get("placed_modified_ns")?,
            changed_ns: row.get("placed_changed_ns")?,
        }),
    };
    let kept = match row.get::<_, Option<i64>>("kept_inode")? {
        None => None,
        Some(inode) => Some(Identity {
            device: row.get::<_, i64>("kept_device")? as u64,
            inode: inode as u64,
            modified_ns: row.get("kept_modified_ns")?,
        }),
    };
    let state: String = row.get("state")?;
    let strategy: String = row.get("strategy")?;
    Ok(Link {
        id: row.get("id")?,
        new: NewLink {
            source: row.get("source")?,
            root: path("root")?.ok_or_else(|| wrong("root"))?,
            path: path("path")?.ok_or_else(|| wrong("path"))?,
            digest: row.get("digest")?,
            bytes,
            strategy: LinkStrategy::from_word(&strategy).ok_or_else(|| wrong("strategy"))?,
            original,
            kept,
        },
        state: LinkState::from_word(&state).ok_or_else(|| wrong("state"))?,
        name: path("name")?,
        stage: path("stage")?,
        placed,
    })
}

fn json(attributes: &[(String, Vec<u8>)]) -> String {
    serde_json::to_string(attributes).unwrap_or_default()
}

fn attributes(text: Option<&str>) -> rusqlite::Result<Vec<(String, Vec<u8>)>> {
    match text {
        None | Some("") => Ok(Vec::new()),
        Some(text) => serde_json::from_str(text).map_err(|_| wrong("attributes")),
    }
}

/// Our own error inside a transaction.
fn foreign(error: Error) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(Box::new(error))
}
