//! Repositories: commits, branches, files, and who may have them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::content::{Content, git_sha1};

/// A model's repository. It is built step by step: each file goes into the newest commit.
#[derive(Debug, Clone)]
pub struct Repository {
    pub name: String,
    commits: Vec<Commit>,
    branches: BTreeMap<String, String>,
    pub access: Access,
}

/// Who may have the files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    Open,
    /// Everybody sees what there is; who has this token may fetch it.
    Gated(String),
    /// Only who has this token sees that it exists.
    Private(String),
}

#[derive(Debug, Clone)]
pub(super) struct Commit {
    pub id: String,
    pub files: BTreeMap<String, File>,
}

#[derive(Debug, Clone)]
pub(super) struct File {
    pub content: Content,
    /// Whether it is kept in large file storage, at the second host.
    pub is_large: bool,
    /// Whether the hub says that it is in Xet storage too.
    pub is_xet: bool,
}

impl Repository {
    /// An empty repository whose branch `main` has one commit.
    pub fn new(name: &str) -> Self {
        let first = Commit { id: commit_id(name, 0), files: BTreeMap::new() };
        Self { name: name.to_owned(), commits: vec![first], branches: BTreeMap::new(), access: Access::Open }
    }

    /// The files of a folder, weights in large file storage.
    pub fn of_folder(name: &str, folder: &Path) -> Self {
        let mut repository = Self::new(name);
        for entry in walkdir::WalkDir::new(folder) {
            let entry = entry.expect("a folder that can be read");
            if entry.file_type().is_file() {
                let path = entry.path().strip_prefix(folder).expect("below it").to_str().expect("UTF-8");
                let content = fs::read(entry.path()).expect("a file");
                let is_large =
                    entry.path().extension().is_some_and(|end| end == "safetensors" || end == "gguf");
                repository = repository.put(path, content, is_large);
            }
        }
        repository
    }

    /// A tiny model of fixtures/tiny that can run.
    pub fn tiny(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/tiny/llama_tied");
        let mut repository = Self::of_folder(name, &folder);
        repository.newest().files.remove("golden.safetensors");
        repository
    }

    /// Adds or replaces a regular file.
    #[must_use]
    pub fn file(self, path: &str, content: impl Into<Content>) -> Self {
        self.put(path, content, false)
    }

    /// Adds or replaces a file in large file storage.
    #[must_use]
    pub fn large(self, path: &str, content: impl Into<Content>) -> Self {
        self.put(path, content, true)
    }

    fn put(mut self, path: &str, content: impl Into<Content>, is_large: bool) -> Self {
        let file = File { content: content.into(), is_large, is_xet: false };
        self.newest().files.insert(path.to_owned(), file);
        self
    }

    /// The hub says of all large files that they are in Xet storage too.
    #[must_use]
    pub fn in_xet(mut self) -> Self {
        for file in self.newest().files.values_mut() {
            file.is_xet = file.is_large;
        }
        self
    }

    /// Names the newest commit and begins another one with the same files, which is `main`.
    #[must_use]
    pub fn commit_as(mut self, branch: &str) -> Self {
        let newest = self.newest().clone();
        self.branches.insert(branch.to_owned(), newest.id);
        let id = commit_id(&self.name, self.commits.len());
        self.commits.push(Commit { id, ..newest });
        self
    }

    #[must_use]
    pub fn gated(mut self, token: &str) -> Self {
        self.access = Access::Gated(token.to_owned());
        self
    }

    #[must_use]
    pub fn private(mut self, token: &str) -> Self {
        self.access = Access::Private(token.to_owned());
        self
    }

    /// The commit that `main` is.
    pub fn main(&self) -> String {
        self.commits.last().expect("a commit").id.clone()
    }

    /// The content of a file of `main`.
    pub fn content(&self, path: &str) -> Vec<u8> {
        let content = &self.commits.last().expect("a commit").files[path].content;
        let mut bytes = vec![0; content.len() as usize];
        content.read(0, &mut bytes);
        bytes
    }

    /// Paths of the files of `main`.
    pub fn paths(&self) -> Vec<String> {
        self.commits.last().expect("a commit").files.keys().cloned().collect()
    }

    /// What the files of `main` hold in all.
    pub fn bytes(&self) -> u64 {
        self.commits.last().expect("a commit").files.values().map(|file| file.content.len()).sum()
    }

    fn newest(&mut self) -> &mut Commit {
        self.commits.last_mut().expect("a commit")
    }

    /// The commit of a branch, of a commit's name or the beginning of one.
    pub(super) fn commit(&self, revision: &str) -> Option<&Commit> {
        let revision = if revision == "main" || revision == "HEAD" {
            self.main()
        } else {
            self.branches.get(revision).map_or(revision, String::as_str).to_owned()
        };
        self.commits.iter().find(|commit| revision.len() >= 7 && commit.id.starts_with(&revision))
    }

    /// What `/api/models/…` answers.
    pub(super) fn info(&self, commit: &Commit) -> Value {
        let siblings: Vec<Value> = commit.files.keys().map(|path| json!({"rfilename": path})).collect();
        json!({
            "_id": &commit.id[..24],
            "id": self.name,
            "modelId": self.name,
            "author": self.name.split('/').next(),
            "sha": commit.id,
            "lastModified": "2026-10-01T12:00:00.000Z",
            "createdAt": "2026-09-01T12:00:00.000Z",
            "private": matches!(self.access, Access::Private(_)),
            "gated": if matches!(self.access, Access::Gated(_)) { json!("manual") } else { json!(false) },
            "disabled": false,
            "downloads": 7,
            "likes": 1,
            "tags": ["safetensors", "llama"],
            "pipeline_tag": "text-generation",
            "library_name": "transformers",
            "siblings": siblings,
            "usedStorage": commit.files.values().fold(0, |sum: u64, file| sum.saturating_add(file.content.len())),
        })
    }
}

impl Commit {
    /// The entries of `/api/models/…/tree/…?recursive=true`: folders and files.
    pub(super) fn entries(&self) -> Vec<Value> {
        let mut folders = BTreeSet::new();
        let mut entries = Vec::new();
        for (path, file) in &self.files {
            for (at, _) in path.match_indices('/') {
                if folders.insert(&path[..at]) {
                    let oid = git_sha1(&path.as_bytes()[..at]);
                    entries.push(json!({"type": "directory", "oid": oid, "size": 0, "path": &path[..at]}));
                }
            }
            entries.push(file.entry(path));
        }
        entries
    }
}

impl File {
    /// A file as a tree lists it. Of a large one git itself has a pointer only, to which the `oid` belongs.
    pub(super) fn entry(&self, path: &str) -> Value {
        let size = self.content.len();
        if !self.is_large {
            return json!({"type": "file", "oid": self.content.git_sha1(), "size": size, "path": path});
        }
        let digest = self.content.sha256();
        let pointer =
            format!("version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {size}\n");
        let mut entry = json!({
            "type": "file",
            "oid": git_sha1(pointer.as_bytes()),
            "size": size,
            "path": path,
            "lfs": {"oid": digest, "size": size, "pointerSize": pointer.len()},
        });
        if let Some(hash) = self.xet_hash() {
            entry["xetHash"] = hash.into();
        }
        entry
    }

    /// Some hash: that of Xet is not made here.
    pub(super) fn xet_hash(&self) -> Option<String> {
        self.is_xet.then(|| self.content.sha256().chars().rev().collect())
    }

    /// What the hub's `ETag` says of it.
    pub(super) fn etag(&self) -> String {
        if self.is_large { self.content.sha256() } else { self.content.git_sha1() }
    }
}

fn commit_id(name: &str, number: usize) -> String {
    git_sha1(format!("{name} {number}").as_bytes())
}
