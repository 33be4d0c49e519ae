//! Which tool uses which content, and what could be reclaimed as far as names tell.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use super::look::{Look, below, blobs};
use super::{Equals, MIN_BYTES};
use crate::error::Result;
use crate::fs::FileStamp;
use crate::ids::{Bytes, Digest};
use crate::registry::{KnownSource, Registry, Usage};
use crate::sources::{Checksum, Scan};
use crate::store::Store;

/// Writes down which models of the caches use which content, as far as it is known.
pub fn record(registry: &mut Registry, look: &Look, equals: &Equals) -> Result<()> {
    if look.roots.is_empty() {
        return Ok(());
    }
    let mut known: HashMap<&Path, Digest> = HashMap::new();
    for (at, file) in look.files.iter().enumerate() {
        if let Some(digest) = equals.known.get(at).copied().flatten().or(file.claimed) {
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

/// What could be reclaimed of these caches and the store, as far as names and what is remembered tell:
/// nothing is read, so that equal files of which nothing is known are missing.
pub fn estimate(scans: &[Scan], store: &Store, registry: Option<&Registry>) -> Result<Bytes> {
    let mut files: Vec<(FileStamp, Option<Digest>)> =
        blobs(store).into_iter().map(|file| (file.entry.stamp, file.claimed)).collect();
    for payload in scans.iter().flat_map(|scan| &scan.payloads) {
        let claimed = match payload.claimed {
            Some(Checksum::Sha256(digest)) => Some(digest),
            _ => None,
        };
        // Smaller ones are left alone unless somebody asks for them.
        if payload.linked_to.is_none()
            && payload.replaceable.is_ok()
            && payload.entry.stamp.bytes >= MIN_BYTES
        {
            files.push((payload.entry.stamp, claimed));
        }
    }
    let unknown: Vec<FileStamp> =
        files.iter().filter(|(_, claimed)| claimed.is_none()).map(|(stamp, _)| *stamp).collect();
    let remembered = registry.map_or(Ok(Vec::new()), |registry| registry.remembered(&unknown))?;
    let remembered =
        unknown.into_iter().zip(remembered).filter_map(|(stamp, known)| Some((stamp, known.digest?)));
    let claimed = files.into_iter().filter_map(|(stamp, claimed)| Some((stamp, claimed?)));
    let mut seen = HashSet::new();
    let mut contents: HashMap<Digest, (u64, u64)> = HashMap::new();
    for (stamp, digest) in claimed.chain(remembered) {
        if seen.insert((stamp.device, stamp.inode)) {
            contents.entry(digest).or_insert((stamp.bytes, 0)).1 += 1;
        }
    }
    Ok(contents.values().map(|(bytes, copies)| Bytes(bytes.saturating_mul(copies - 1))).sum())
}
