//! A link where nothing was: content of the store shown to another tool.

use super::settle::settle_one;
use crate::error::{Code, Error, Result};
use crate::fs::{Place, entry_at};
use crate::registry::{Link, LinkState, LinkStrategy, NewLink, Registry};
use crate::store::Store;

/// Makes a symlink at a path where nothing is, to a name of its own for content that the store has. The
/// folder of the path exists. What is there already is INVALID_REQUEST.
///
/// `new` says `symlink` and has no original. [`super::undo`] removes the link again.
pub fn make_link(store: &Store, registry: &mut Registry, new: NewLink) -> Result<Link> {
    let NewLink { digest, bytes, .. } = new;
    if new.strategy != LinkStrategy::Symlink || new.original.is_some() {
        return Err(Error::internal("a new link is a symlink and replaces nothing"));
    }
    if !store.has_blob(&digest, bytes) {
        let message = format!("the content for {} is not in the store", new.path.display());
        return Err(Error::new(Code::FileNotFound, message).detail("digest", digest.to_string()));
    }
    let place = Place::find(&new.root, &new.path)?;
    let lock = store.lock()?;
    if place.entry()?.is_some() {
        let message = format!("{} is there already", new.path.display());
        return Err(Error::new(Code::InvalidRequest, message)
            .detail("path", new.path.display().to_string())
            .hint("remove it or choose another folder"));
    }
    // Its tool has taken an earlier one away.
    if let Some(gone) = registry.link_at(&new.path)? {
        if let Some(name) = &gone.name {
            store.free_link_name(&lock, name)?;
        }
        registry.forget_link(gone.id)?;
    }
    let source = new.source.clone();
    let link = registry.plan_link(new, |id| (Some(store.link_name(&source, id, &digest)), None))?;
    let make = || {
        let Some(name) = &link.name else { return Err(Error::internal("a symlink has no name")) };
        store.make_link_name(&lock, name, &digest)?;
        let blob = store.blob(&digest);
        let entry = entry_at(&blob).map_err(|error| Error::io("read", &blob, error))?;
        place.dir.symlink(name, &place.name, entry.stamp.modified_ns)?;
        place.dir.sync()
    };
    match make() {
        Ok(()) => {
            registry.set_link_state(link.id, LinkState::Done, None)?;
            Ok(Link { state: LinkState::Done, ..link })
        }
        Err(error) => {
            // What is left is found at the next start.
            let _ = settle_one(store, registry, &lock, &link);
            Err(error)
        }
    }
}
