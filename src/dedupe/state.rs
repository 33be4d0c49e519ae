//! Whether links are still what they were made as.

use std::collections::HashSet;
use std::path::PathBuf;

use super::swap::is_ours;
use crate::error::{Code, Result};
use crate::fs::{Entry, EntryKind, Place, entry_at};
use crate::registry::{Identity, Link, LinkState, LinkStrategy, Registry};
use crate::store::Store;

/// How a finished link is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// As it was made.
    Whole,
    /// Its tool has deleted it.
    Deleted,
    /// Its tool has put something else there, or written to it.
    Rewritten,
    /// It leads nowhere: its tool has deleted through it.
    Dangling,
    /// Its folder cannot be reached; why.
    Unreachable(String),
}

/// A link and how it is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkCheck {
    pub link: Link,
    pub condition: Condition,
}

/// Looks at every finished link, by path.
pub fn check_links(registry: &Registry) -> Result<Vec<LinkCheck>> {
    let links = registry.links()?.into_iter().filter(|link| link.state == LinkState::Done);
    Ok(links
        .map(|link| {
            let condition = look_at(&link).map_or_else(|condition| condition, |(_, _, condition)| condition);
            LinkCheck { link, condition }
        })
        .collect())
}

/// The files that are known to share blocks, each with what it was cloned from.
pub fn cloned(registry: &Registry) -> Result<HashSet<Identity>> {
    let mut known = HashSet::new();
    for LinkCheck { link, condition } in check_links(registry)? {
        if condition == Condition::Whole
            && let (Some(placed), Some(kept)) = (link.placed, link.new.kept)
        {
            known.extend([Identity::of(&placed), kept]);
        }
    }
    Ok(known)
}

/// Where a link is and what is there, with its condition; only that if nothing is there.
pub(super) fn look_at(link: &Link) -> Result<(Place, Entry, Condition), Condition> {
    let unreachable = |error: crate::error::Error| Condition::Unreachable(error.message().to_owned());
    let place = match Place::find(&link.new.root, &link.new.path) {
        Ok(place) => place,
        // A root that is gone may be on a disk that is not there now.
        Err(error) if error.code() == Code::FileNotFound && link.new.root.exists() => {
            return Err(Condition::Deleted);
        }
        Err(error) => return Err(unreachable(error)),
    };
    let Some(entry) = place.entry().map_err(unreachable)? else { return Err(Condition::Deleted) };
    let condition = if is_ours(link, &place, &entry).map_err(unreachable)? {
        own_condition(link, &entry)
    } else {
        Condition::Rewritten
    };
    Ok((place, entry, condition))
}

/// The condition of a link that is the one that was made.
fn own_condition(link: &Link, entry: &Entry) -> Condition {
    match link.new.strategy {
        LinkStrategy::Symlink => {
            let leads = |name: &PathBuf| entry_at(name).is_ok_and(|found| found.kind == EntryKind::File);
            if link.name.as_ref().is_some_and(leads) { Condition::Whole } else { Condition::Dangling }
        }
        LinkStrategy::Hardlink => Condition::Whole,
        LinkStrategy::Reflink => {
            let same = |placed| Identity::of(&placed) == Identity::of(&entry.stamp);
            if link.placed.is_some_and(same) { Condition::Whole } else { Condition::Rewritten }
        }
    }
}

/// Forgets a link that its tool has deleted or rewritten, and takes its name in the store away. One that
/// dangles is removed, as its tool meant to.
///
/// The content stays until nothing uses it and it is collected.
pub fn forget(store: &Store, registry: &mut Registry, check: &LinkCheck) -> Result<()> {
    let lock = store.lock()?;
    // It may have changed again.
    match look_at(&check.link) {
        Ok((place, _, Condition::Dangling)) => {
            place.dir.remove(&place.name)?;
            place.dir.sync()?;
        }
        Ok((_, _, Condition::Rewritten)) | Err(Condition::Deleted) => {}
        _ => return Ok(()),
    }
    if let Some(name) = &check.link.name {
        store.free_link_name(&lock, name)?;
    }
    registry.forget_link(check.link.id)
}
