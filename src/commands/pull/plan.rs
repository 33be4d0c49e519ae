//! What is to be done for each file, before anything is fetched.

use std::collections::HashMap;
use std::path::PathBuf;

use super::request::Wanted;
use super::reuse::Elsewhere;
use super::selection::select;
use crate::context::Context;
use crate::error::{Code, Error, Result};
use crate::fs::{Part, hash_contents, space};
use crate::hub::{Hub, RemoteFile};
use crate::ids::{Bytes, Checksum, Digest, ModelName, Revision, RevisionSpec, SnapshotPath};
use crate::registry::Registry;
use crate::store::{KeptPart, Store};

/// Content up to this size is fetched into memory.
pub const SMALL: u64 = 1 << 20;
/// Content of the store is compared with git's name of a file only up to this size: git itself keeps
/// larger files elsewhere.
const LARGEST_IN_GIT: u64 = 64 << 20;

/// Everything that pulling one model takes.
#[derive(Debug)]
pub struct Plan {
    pub name: ModelName,
    pub commit: Revision,
    /// The branch, tag or commit that was asked for.
    pub requested: String,
    /// The choice of files, in words of the registry.
    pub choice: String,
    pub files: Vec<RemoteFile>,
    /// Each content once, the largest first.
    pub items: Vec<Item>,
}

/// Content that one file or several have.
#[derive(Debug)]
pub struct Item {
    /// The first of the files.
    pub file: RemoteFile,
    pub paths: Vec<SnapshotPath>,
    pub found: Found,
}

/// Where content is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    InStore(Digest),
    /// Fetched before, and not yet part of a model.
    Kept(KeptPart),
    /// In these places, by their names; which of them is right shows when one is copied.
    Elsewhere(Vec<PathBuf>),
    /// So many bytes of it were fetched before.
    Partly(u64),
    Nowhere,
}

impl Plan {
    /// Asks the hub what there is, chooses, and looks for it on this machine. With `force` everything
    /// is to be fetched.
    pub fn new(
        wanted: &Wanted,
        hub: &Hub,
        store: &Store,
        registry: Option<&Registry>,
        elsewhere: &mut Elsewhere<'_>,
        force: bool,
        context: &Context,
    ) -> Result<Self> {
        let listing = {
            let label = format!("asking for {}", wanted.name);
            let _bar = context.output.progress(&label, None, crate::output::progress::Unit::Items);
            hub.list(&wanted.name, wanted.revision.as_ref(), &|| context.cancel.check())?
        };
        let selected = select(&wanted.name, &listing.files, &wanted.choice)?;
        if let Some(remark) = &selected.remark {
            context.output.note(remark);
        }
        let mut items: Vec<Item> = Vec::new();
        let mut known: HashMap<Checksum, usize> = HashMap::new();
        for file in &selected.files {
            context.cancel.check()?;
            if let Some(item) = known.get(&file.checksum).and_then(|at| items.get_mut(*at)) {
                if item.file.bytes != file.bytes {
                    return Err(Error::new(
                        Code::IntegrityFailed,
                        format!(
                            "{} and {} of {} are the same but differ in size",
                            item.file.path, file.path, wanted.name
                        ),
                    )
                    .hint("do not use this model: its list of files is not an honest one"));
                }
                item.paths.push(file.path.clone());
                continue;
            }
            known.insert(file.checksum, items.len());
            let found = if force { Found::Nowhere } else { find(file, store, registry, elsewhere)? };
            items.push(Item { file: file.clone(), paths: vec![file.path.clone()], found });
        }
        items.sort_by_key(|item| std::cmp::Reverse(item.file.bytes));
        Ok(Self {
            name: wanted.name.clone(),
            commit: listing.commit,
            requested: wanted.revision.as_ref().map_or("main", RevisionSpec::as_str).to_owned(),
            choice: wanted.choice.key(),
            files: selected.files,
            items,
        })
    }

    /// Looks for everything anew.
    pub fn look_again(
        &mut self,
        store: &Store,
        registry: &Registry,
        elsewhere: &mut Elsewhere<'_>,
    ) -> Result<()> {
        for item in &mut self.items {
            item.found = find(&item.file, store, Some(registry), elsewhere)?;
        }
        Ok(())
    }

    /// Size of all content.
    pub fn bytes(&self) -> u64 {
        self.items.iter().map(|item| item.file.bytes).sum()
    }

    /// What has to come over the network.
    pub fn to_download(&self) -> u64 {
        self.items.iter().map(Item::to_download).sum()
    }

    /// What is put into the store anew, as far as it can be told: a clone takes no space.
    fn to_write(&self) -> u64 {
        let writes = |item: &Item| match item.found {
            Found::Partly(_) | Found::Nowhere => item.to_download(),
            Found::InStore(_) | Found::Kept(_) | Found::Elsewhere(_) => 0,
        };
        self.items.iter().map(writes).sum()
    }
}

impl Item {
    /// What has to come over the network.
    pub fn to_download(&self) -> u64 {
        match self.found {
            Found::Nowhere => self.file.bytes,
            Found::Partly(present) => self.file.bytes.saturating_sub(present),
            Found::InStore(_) | Found::Kept(_) | Found::Elsewhere(_) => 0,
        }
    }
}

/// Refuses what the disk has no room for, before anything is fetched.
pub fn check_space<'a>(plans: impl Iterator<Item = &'a Plan>, store: &Store) -> Result<()> {
    let needed: u64 = plans.map(Plan::to_write).sum();
    let free = space(store.home())?.free;
    if needed <= free {
        return Ok(());
    }
    let message = format!(
        "{} has too little free space: {} needed, {} free",
        store.home().display(),
        Bytes(needed),
        Bytes(free)
    );
    Err(Error::new(Code::InsufficientDisk, message)
        .detail("path", store.home().display().to_string())
        .detail("bytes_needed", needed)
        .detail("bytes_free", free)
        .hint(format!(
            "free {} of disk space, or choose another disk with MLX_CACHE_HOME",
            Bytes(needed - free)
        )))
}

fn find(
    file: &RemoteFile,
    store: &Store,
    registry: Option<&Registry>,
    elsewhere: &mut Elsewhere<'_>,
) -> Result<Found> {
    if let Some(digest) = in_store(file, store, registry)? {
        return Ok(Found::InStore(digest));
    }
    if file.bytes <= SMALL
        && let Some(kept) = store.kept(&file.checksum, file.bytes)?
    {
        return Ok(Found::Kept(kept));
    }
    let places = elsewhere.places(file, registry)?;
    if !places.is_empty() {
        return Ok(Found::Elsewhere(places));
    }
    if file.bytes > SMALL {
        let present = Part::left_over(&store.part_path(&file.checksum), file.bytes);
        if present > 0 {
            return Ok(Found::Partly(present));
        }
    }
    Ok(Found::Nowhere)
}

/// The content, if the store has it. By git's name it is found among what has the same size.
pub fn in_store(file: &RemoteFile, store: &Store, registry: Option<&Registry>) -> Result<Option<Digest>> {
    match (&file.checksum, registry) {
        (Checksum::Sha256(digest), _) => Ok(store.has_blob(digest, file.bytes).then_some(*digest)),
        (Checksum::GitSha1(_), Some(registry)) if file.bytes <= LARGEST_IN_GIT => {
            for digest in registry.blobs_of_size(file.bytes)? {
                if !store.has_blob(&digest, file.bytes) {
                    continue;
                }
                match hash_contents(&store.blob(&digest), &file.checksum, &|_| Ok(())) {
                    Ok(hashes) if hashes.are(&file.checksum) => return Ok(Some(digest)),
                    Ok(_) => {}
                    // Another process has just removed it.
                    Err(error) if error.code() == Code::FileNotFound => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(None)
        }
        (Checksum::GitSha1(_), _) => Ok(None),
    }
}
