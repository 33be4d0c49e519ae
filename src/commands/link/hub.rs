//! The Hugging Face cache (see [`crate::sources::HuggingFace`] for its layout).

use std::fs;
use std::path::{Path, PathBuf};

use super::Model;
use super::plan::{Plan, What};
use crate::error::{Code, Error, Result};
use crate::fs::{Wanted, checksums};
use crate::ids::{Checksum, Host};
use crate::registry::FileRecord;

/// The hub keeps larger files in LFS, whatever their names.
const LARGEST_IN_GIT: u64 = 10 << 20;
/// Endings of files that the hub keeps in LFS whatever their size, of those that models have
/// (`.gitattributes` of a new repository).
const LFS: [&str; 12] =
    ["safetensors", "gguf", "bin", "pt", "pth", "onnx", "h5", "msgpack", "npz", "model", "ckpt", "tflite"];

/// A snapshot as the hub's client would have made it: blobs by their etags, a snapshot of links to them.
pub(super) fn plan(model: &Model, hub: &Path) -> Result<Plan> {
    let snapshot = &model.snapshot;
    let commit = snapshot.revision.as_str();
    let is_commit = commit.len() == 40 && commit.bytes().all(|c| c.is_ascii_hexdigit());
    if snapshot.name.host() != Host::HuggingFace || !is_commit {
        return Err(Error::new(
            Code::InvalidRequest,
            format!("{} is not known to be a commit of a repository of the hub", snapshot.name),
        )
        .hint("pull the model from the hub, or link it to a folder with --to DIR"));
    }
    let mut plan = Plan::new("hf", hub, snapshot.name.to_string())?;
    let repository = PathBuf::from(format!("models--{}--{}", snapshot.name.org(), snapshot.name.name()));
    let mut inner = Vec::new();
    for file in &model.files {
        let etag = etag(model, file)?;
        let content = What::Content { digest: file.digest, bytes: file.bytes };
        plan.add(repository.join("blobs").join(&etag), content);
        let up: PathBuf = file.path.components().map(|_| "..").collect();
        let place = repository.join("snapshots").join(commit).join(&file.path);
        inner.push((place, Path::new("..").join(up).join("blobs").join(etag)));
    }
    for (place, target) in inner {
        plan.add(place, What::Inner(target));
    }
    let main = repository.join("refs/main");
    match fs::read_to_string(plan.root.join(&main)) {
        Ok(other) if other != commit => plan
            .notes
            .push(format!("the cache has another commit as main: load this one with revision=\"{commit}\"")),
        _ => plan.add(main, What::Record(commit.as_bytes().to_vec())),
    }
    Ok(plan)
}

/// The name that the hub gives a file's content: the SHA-256 of a file in LFS, git's SHA-1 of another.
fn etag(model: &Model, file: &FileRecord) -> Result<String> {
    if file.bytes > LARGEST_IN_GIT || LFS.iter().any(|extension| file.path.has_extension(extension)) {
        return Ok(file.digest.to_string());
    }
    let path = model.path_of(file);
    let wanted = Wanted { git_sha1: true, sha256: false };
    let checksums = checksums(&path, wanted, &|_| Ok(()))?;
    let sha1 = checksums.git_sha1.ok_or_else(|| Error::internal("git's checksum was not made"))?;
    Ok(Checksum::GitSha1(sha1).to_string())
}
