//! Content that other tools have on this machine.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::commands::status::present_sources;
use crate::context::Context;
use crate::error::Result;
use crate::hub::RemoteFile;
use crate::ids::Checksum;
use crate::output::progress::Unit;
use crate::registry::Registry;

/// Content without a checksum is looked at only from this size on, and only under the same name.
const WORTH_HASHING: u64 = 1 << 20;

/// What the caches of other tools claim to hold. They are looked into when it is first needed.
pub struct Elsewhere<'a> {
    context: &'a Context,
    index: Option<Index>,
}

#[derive(Default)]
struct Index {
    claimed: HashMap<(Checksum, u64), Vec<Arc<Path>>>,
    /// Files without a checksum, by size and name.
    unnamed: HashMap<(u64, String), Vec<Arc<Path>>>,
}

impl<'a> Elsewhere<'a> {
    pub fn new(context: &'a Context) -> Self {
        Self { context, index: None }
    }

    /// Where a file's content may lie.
    pub fn places(&mut self, file: &RemoteFile, registry: Option<&Registry>) -> Result<Vec<PathBuf>> {
        if file.bytes == 0 {
            return Ok(Vec::new());
        }
        let mut places = Vec::new();
        if let (Checksum::Sha256(digest), Some(registry)) = (&file.checksum, registry) {
            let is_file = |place: &PathBuf| {
                std::fs::metadata(place).is_ok_and(|found| found.is_file() && found.len() == file.bytes)
            };
            places.extend(registry.adopted_places(digest)?.into_iter().filter(is_file));
        }
        let index = match &mut self.index {
            Some(index) => index,
            None => self.index.insert(Index::new(self.context)?),
        };
        let claimed = index.claimed.get(&(file.checksum, file.bytes)).into_iter().flatten();
        let name = file.path.file_name().to_ascii_lowercase();
        let unnamed = index.unnamed.get(&(file.bytes, name)).into_iter().flatten();
        for place in claimed.chain(unnamed) {
            if !places.iter().any(|known| **known == **place) {
                places.push(place.to_path_buf());
            }
        }
        Ok(places)
    }
}

impl Index {
    fn new(context: &Context) -> Result<Self> {
        let mut index = Self::default();
        let _bar = context.output.progress("looking into other caches", None, Unit::Items);
        for source in present_sources(&context.settings) {
            let scan = match source.scan(&context.cancel) {
                Ok(scan) => scan,
                Err(error) => {
                    context.cancel.check()?;
                    // What cannot be looked into is fetched.
                    context.output.detail(format!("{}: {}", source.root().display(), error.message()));
                    continue;
                }
            };
            for payload in scan.payloads {
                let bytes = payload.entry.stamp.bytes;
                match payload.claimed {
                    Some(checksum) => index.claimed.entry((checksum, bytes)).or_default().push(payload.path),
                    None if bytes >= WORTH_HASHING => {
                        let name = payload
                            .path
                            .file_name()
                            .and_then(|name| name.to_str())
                            .map(str::to_ascii_lowercase);
                        if let Some(name) = name {
                            index.unnamed.entry((bytes, name)).or_default().push(payload.path);
                        }
                    }
                    None => {}
                }
            }
        }
        Ok(index)
    }
}
