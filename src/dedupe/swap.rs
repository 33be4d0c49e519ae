//! Two names change places, and what comes out is what was expected, or they change back.

use std::collections::HashSet;
use std::path::Path;

use super::reason;
use crate::error::{Code, Error, Result};
use crate::fs::{Dir, Entry, EntryKind, Place};
use crate::registry::{Link, LinkStrategy};
use crate::store::Store;

/// Why a file is not replaced.
#[derive(Debug)]
pub(super) enum Stop {
    /// The next file may do better.
    Skip(String),
    /// All of the work ends.
    Fatal(Error),
}

impl Stop {
    pub(super) fn skip(reason: impl Into<String>) -> Self {
        Self::Skip(reason.into())
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        match error.code() {
            Code::Interrupted | Code::Internal => Self::Fatal(error),
            _ => Self::Skip(reason(&error)),
        }
    }
}

/// How often two names are changed at most until the newest content is where it belongs.
const MOST_CHANGES: usize = 16;

/// Lets the file at `place` and the one in `stage` change places; whether they did. They did not if what
/// came out is not `expected`: then both are where they were, or, if yet another file appeared meanwhile,
/// that one is at its place and the one it replaced in the stage.
pub(super) fn swap(place: &Place, stage: &Place, expected: impl Fn(&Entry) -> bool) -> Result<bool> {
    let ours = entry_in(stage)?;
    place.dir.exchange(&place.name, &stage.dir, &stage.name)?;
    let mut out = entry_in(stage)?;
    if expected(&out) {
        place.dir.sync()?;
        stage.dir.sync()?;
        return Ok(true);
    }
    // What is superseded may stay in the stage; the newest goes back to its place.
    let mut superseded = HashSet::from([identity(&ours)]);
    for _ in 0..MOST_CHANGES {
        if superseded.contains(&identity(&out)) {
            break;
        }
        match place.dir.exchange(&place.name, &stage.dir, &stage.name) {
            Ok(()) => {}
            // Its owner took away what was there: that is the newest state.
            Err(error) if error.code() == Code::FileNotFound => break,
            Err(error) => return Err(error),
        }
        let next = entry_in(stage)?;
        if !superseded.contains(&identity(&next)) {
            superseded.insert(identity(&out));
        }
        out = next;
    }
    place.dir.sync()?;
    stage.dir.sync()?;
    Ok(false)
}

fn entry_in(stage: &Place) -> Result<Entry> {
    stage
        .entry()?
        .ok_or_else(|| Error::internal(format!("the staged file {} is gone", stage.path().display())))
}

/// Device and inode.
pub(super) fn identity(entry: &Entry) -> (u64, u64) {
    (entry.stamp.device, entry.stamp.inode)
}

/// Whether an entry is the file that had this stamp, with the content that it had then. Its other names
/// may have come and gone.
pub(super) fn is_same_file(entry: &Entry, stamp: &crate::fs::FileStamp) -> bool {
    entry.kind == EntryKind::File
        && identity(entry) == (stamp.device, stamp.inode)
        && (entry.stamp.bytes, entry.stamp.modified_ns) == (stamp.bytes, stamp.modified_ns)
}

/// Whether what is at a place is what this link put there, or would.
pub(super) fn is_ours(link: &Link, place: &Place, entry: &Entry) -> Result<bool> {
    match link.new.strategy {
        LinkStrategy::Symlink => {
            Ok(entry.kind == EntryKind::Link && Some(place.dir.read_link(&place.name)?) == link.name)
        }
        LinkStrategy::Hardlink | LinkStrategy::Reflink => Ok(entry.kind == EntryKind::File
            && link.placed.is_some_and(|placed| identity(entry) == (placed.device, placed.inode))),
    }
}

/// The stage of a link, wherever it is.
pub(super) fn stage_of(store: &Store, link: &Link, stage: &Path) -> Result<Place> {
    if stage.parent() == Some(&store.staging()) {
        return staged(store, stage);
    }
    Place::find(&link.new.root, stage)
}

/// A name in the store's staging folder.
pub(super) fn staged(store: &Store, path: &Path) -> Result<Place> {
    let name = path.file_name().ok_or_else(|| Error::internal("a stage has no name"))?;
    Ok(Place { dir: Dir::open(&store.staging())?, name: name.to_owned() })
}
