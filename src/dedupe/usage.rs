//! Which tool uses which content, and what could be reclaimed as far as names tell.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use super::look::{Look, below};
use super::{Equals, File};
use crate::error::Result;
use crate::ids::{Bytes, Digest};
use crate::registry::{KnownSource, Registry, Usage};

/// Writes down which models of the caches use which content, as far as it is known.
pub fn record(registry: &mut Registry, look: &Look, equals: &Equals) -> Result<()> {
    let mut known: HashMap<&Path, Digest> = HashMap::new();
    for (at, file) in look.files.iter().enumerate() {
        if let Some(digest) = equals.known.get(&at).copied().or(file.claimed) {
            known.insert(&file.path, digest);
        }
    }
    known.extend(look.linked.iter().filter_map(|(path, digest)| Some((&**path, (*digest)?))));
    for root in &look.roots {
        let mut used = Vec::new();
        for model in &root.scan.models {
            for file in &model.files {
                let Ok(content) = &file.content else { continue };
                let content = below(content, &root.named, &root.path);
                if let Some(digest) = content.and_then(|path| known.get(&*path)) {
                    used.push(Usage {
                        digest: *digest,
                        model: model.name.to_string(),
                        path: file.place.to_path_buf(),
                    });
                }
            }
        }
        let source = KnownSource {
            app: root.source.to_owned(),
            root: root.path.to_path_buf(),
            models: root.survey.models,
            bytes: Bytes(root.survey.bytes),
        };
        registry.record_source(&source, &used)?;
    }
    Ok(())
}

/// What could be reclaimed as far as names and what is remembered tell: nothing is read, so that equal
/// files of which nothing is known are missing.
pub fn estimate(files: &[File], registry: Option<&Registry>) -> Result<Bytes> {
    let unknown: Vec<&File> = files.iter().filter(|file| file.claimed.is_none()).collect();
    let stamps: Vec<_> = unknown.iter().map(|file| file.entry.stamp).collect();
    let remembered = registry.map_or(Ok(Vec::new()), |registry| registry.remembered(&stamps))?;
    let remembered = unknown.iter().zip(remembered).filter_map(|(file, known)| Some((*file, known.digest?)));
    let claimed = files.iter().filter_map(|file| Some((file, file.claimed?)));
    let mut seen = HashSet::new();
    let mut contents: HashMap<Digest, (u64, u64)> = HashMap::new();
    for (file, digest) in claimed.chain(remembered) {
        let stamp = file.entry.stamp;
        if seen.insert((stamp.device, stamp.inode)) {
            let content = contents.entry(digest).or_insert((stamp.bytes, 0));
            content.1 += 1;
        }
    }
    Ok(contents.values().map(|(bytes, copies)| Bytes(bytes * (copies - 1))).sum())
}
