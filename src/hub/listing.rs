//! What a revision of a repository holds.

use std::collections::HashSet;

use reqwest::{Response, Url};
use serde::Deserialize;
use serde_json::Number;

use super::address;
use super::client::{Client, Trouble};
use super::patience::Tries;
use super::refusal::Asked;
use super::{Check, Hub};
use crate::error::{Code, Error, Result};
use crate::ids::{Checksum, ModelName, Revision, RevisionSpec, SnapshotPath};

/// A page of the hub has 1,000 files and takes some 300 kB.
const LARGEST_ANSWER: usize = 32 << 20;
/// More files than any model has.
const MOST_FILES: usize = 200_000;
const MOST_PAGES: usize = 2_000;
/// What a model is at that nobody asks for by name.
const DEFAULT_REVISION: &str = "main";

/// A file of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteFile {
    pub path: SnapshotPath,
    pub bytes: u64,
    /// SHA-256 of a file in large file storage, git's name of any other.
    pub checksum: Checksum,
    /// Whether the hub also has it in Xet storage.
    pub xet: bool,
}

/// The files of one commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    pub commit: Revision,
    pub files: Vec<RemoteFile>,
}

#[derive(Deserialize)]
struct ModelInfo {
    sha: String,
}

/// An entry of a tree, as the hub sends it; nothing of it is believed yet.
#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    size: Option<Number>,
    oid: Option<String>,
    lfs: Option<LargeFile>,
    #[serde(rename = "xetHash")]
    xet_hash: Option<String>,
}

#[derive(Deserialize)]
struct LargeFile {
    oid: Option<String>,
    size: Option<Number>,
}

impl Hub {
    /// Pins a revision (`main` if none is asked for) to a commit and lists its files.
    pub fn list(
        &self,
        model: &ModelName,
        revision: Option<&RevisionSpec>,
        check: Check<'_>,
    ) -> Result<Listing> {
        let asked = revision.map_or(DEFAULT_REVISION, RevisionSpec::as_str);
        self.wait(check, async {
            // A commit is what it is: nobody needs to be asked.
            let commit = match commit_named(asked) {
                Some(commit) => commit,
                None => self.client.commit(model, asked).await?,
            };
            let files = self.client.tree(model, &commit, asked).await?;
            Ok(Listing { commit, files })
        })
    }
}

/// The commit, if the text is all of its 40 hexadecimal digits.
fn commit_named(text: &str) -> Option<Revision> {
    let is_commit = text.len() == 40 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    if is_commit { text.to_ascii_lowercase().parse().ok() } else { None }
}

impl Client {
    async fn commit(&self, model: &ModelName, asked: &str) -> Result<Revision> {
        let url = address::revision(self.hub(), model, asked);
        let (info, _): (ModelInfo, _) = self.json(&url, model, Asked::Revision(asked)).await?;
        commit_named(&info.sha).ok_or_else(|| {
            let shown: String = info.sha.chars().take(60).flat_map(char::escape_debug).collect();
            self.nonsense(&format!("names the commit \"{shown}\""))
        })
    }

    async fn tree(&self, model: &ModelName, commit: &Revision, asked: &str) -> Result<Vec<RemoteFile>> {
        let in_list = |error: Error| error.context(format!("the list of files of {model}"));
        let mut files = Files::default();
        let mut url = address::tree(self.hub(), model, commit, None);
        let mut visited = HashSet::new();
        while visited.insert(url.clone()) {
            if visited.len() > MOST_PAGES {
                return Err(self.nonsense("lists files without end"));
            }
            let (entries, next): (Vec<Entry>, _) = self.json(&url, model, Asked::Revision(asked)).await?;
            files.add(entries).map_err(in_list)?;
            match next {
                Some(link) => url = self.next_page(&link, model, commit)?,
                None => return files.finish().map_err(in_list),
            }
        }
        Err(self.nonsense("lists files in circles"))
    }

    /// The address of a next page. A hub behind another address links to its own: its place in the
    /// list is what counts.
    fn next_page(&self, link: &str, model: &ModelName, commit: &Revision) -> Result<Url> {
        let url = self.hub().join(link).map_err(|_| self.nonsense("links to a next page that is none"))?;
        let cursor =
            url.query_pairs().find(|(name, _)| name == "cursor").map(|(_, cursor)| cursor.into_owned());
        match cursor {
            Some(cursor) => Ok(address::tree(self.hub(), model, commit, Some(&cursor))),
            None if address::same_origin(&url, self.hub()) && url.path().contains("/tree/") => Ok(url),
            None => Err(self.nonsense("links to a next page that is none")),
        }
    }

    /// Asks until there is an answer of JSON: its value, and the link to the next page.
    async fn json<T: for<'de> Deserialize<'de>>(
        &self,
        url: &Url,
        model: &ModelName,
        asked: Asked<'_>,
    ) -> Result<(T, Option<String>)> {
        let mut tries = Tries::default();
        loop {
            let trouble = match self.document(url, model, asked).await {
                Ok((body, next)) => {
                    // The parser's own words may quote what the server sent.
                    let value = serde_json::from_slice(&body).map_err(|error| {
                        let (line, column) = (error.line(), error.column());
                        self.nonsense(&format!(
                            "answers with something that is no list of files (line {line}, column {column})"
                        ))
                    })?;
                    return Ok((value, next));
                }
                Err(trouble) => trouble,
            };
            match tries.pause_after(trouble, self.patience()) {
                Ok((pause, _)) => tokio::time::sleep(pause).await,
                Err(Trouble::Passing(error, _) | Trouble::Mismatch(error) | Trouble::Final(error)) => {
                    return Err(error);
                }
            }
        }
    }

    /// The whole body of an answer, within bounds of size and time.
    async fn document(
        &self,
        url: &Url,
        model: &ModelName,
        asked: Asked<'_>,
    ) -> Result<(Vec<u8>, Option<String>), Trouble> {
        let read = async {
            let mut response = self.get(url.clone(), None).await?;
            if response.status().as_u16() != 200 {
                return Err(self.refusal(&response, model, asked));
            }
            let next = next_link(&response);
            let mut body = Vec::new();
            while let Some(piece) = self.next(&mut response).await? {
                body.extend_from_slice(piece.as_ref());
                if body.len() > LARGEST_ANSWER {
                    return Err(self.nonsense("answers without end").into());
                }
            }
            Ok((body, next))
        };
        // Who sends a byte now and then is not waited for for ever.
        match tokio::time::timeout(self.timeout.saturating_mul(4), read).await {
            Ok(result) => result,
            Err(_) => Err(Trouble::Passing(
                Error::new(Code::NetworkError, format!("{} is too slow", address::shown(self.hub())))
                    .hint("try again, or be more patient with MLX_CACHE_HTTP_TIMEOUT (seconds)"),
                None,
            )),
        }
    }

    fn nonsense(&self, what: &str) -> Error {
        Error::new(Code::HubUnavailable, format!("{} {what}", address::shown(self.hub())))
            .hint("check HF_ENDPOINT, and whether the network wants you to log in somewhere first")
    }
}

fn next_link(response: &Response) -> Option<String> {
    let links = response.headers().get_all(reqwest::header::LINK);
    links.iter().filter_map(|link| link.to_str().ok()).find_map(address::next_page).map(str::to_owned)
}

/// Files that were looked at.
#[derive(Default)]
struct Files {
    list: Vec<RemoteFile>,
    paths: HashSet<SnapshotPath>,
    bytes: u64,
}

impl Files {
    fn add(&mut self, entries: Vec<Entry>) -> Result<()> {
        for entry in entries.into_iter().filter(|entry| entry.kind == "file") {
            let file = remote_file(entry)?;
            if self.list.len() == MOST_FILES {
                return Err(dishonest(&format!("it has more than {MOST_FILES} entries")));
            }
            self.bytes = self
                .bytes
                .checked_add(file.bytes)
                .filter(|sum| i64::try_from(*sum).is_ok())
                .ok_or_else(|| dishonest("its sizes are larger than any disk"))?;
            if !self.paths.insert(file.path.clone()) {
                return Err(dishonest(&format!("it names {} twice", file.path)));
            }
            self.list.push(file);
        }
        Ok(())
    }

    /// The list, if it can be: a folder of one name and a file of the same cannot both be.
    fn finish(self) -> Result<Vec<RemoteFile>> {
        let inside_file = self.list.iter().find(|file| {
            let path = file.path.as_str();
            path.match_indices('/').any(|(at, _)| {
                path[..at].parse::<SnapshotPath>().is_ok_and(|folder| self.paths.contains(&folder))
            })
        });
        match inside_file {
            Some(file) => Err(dishonest(&format!("it has {} inside a file", file.path))),
            None => Ok(self.list),
        }
    }
}

fn remote_file(entry: Entry) -> Result<RemoteFile> {
    let path: SnapshotPath = entry.path.parse().map_err(|error: Error| {
        let leads_out = entry.path.starts_with('/') || entry.path.split(['/', '\\']).any(|part| part == "..");
        let code = if leads_out { Code::BoundaryViolation } else { Code::IntegrityFailed };
        Error::new(code, error.message()).hint(DISHONEST_HINT)
    })?;
    let bytes = |size: Option<&Number>| {
        size.and_then(Number::as_u64)
            .ok_or_else(|| dishonest(&format!("{path} has no size that a file can have")))
    };
    let size = bytes(entry.size.as_ref())?;
    let checksum = match &entry.lfs {
        Some(large) => {
            if bytes(large.size.as_ref().or(entry.size.as_ref()))? != size {
                return Err(dishonest(&format!("{path} has two sizes")));
            }
            let digest =
                large.oid.as_deref().and_then(|oid| oid.strip_prefix("sha256:").unwrap_or(oid).parse().ok());
            digest.map(Checksum::Sha256)
        }
        None => entry.oid.as_deref().filter(|oid| oid.len() == 40).and_then(|oid| oid.parse().ok()),
    };
    let Some(checksum) = checksum else {
        return Err(dishonest(&format!("{path} has no checksum")));
    };
    let xet =
        entry.xet_hash.is_some_and(|hash| hash.len() == 64 && hash.bytes().all(|c| c.is_ascii_hexdigit()));
    Ok(RemoteFile { path, bytes: size, checksum, xet })
}

const DISHONEST_HINT: &str = "do not use this model: its list of files is not an honest one";

fn dishonest(why: &str) -> Error {
    Error::new(Code::IntegrityFailed, why).hint(DISHONEST_HINT)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn files(entries: &Value) -> Result<Vec<RemoteFile>> {
        let entries: Vec<Entry> = serde_json::from_value(entries.clone()).expect("entries");
        let mut files = Files::default();
        files.add(entries)?;
        files.finish()
    }

    fn entry(path: &str, size: &Value) -> Value {
        json!({"type": "file", "path": path, "size": size, "oid": "1".repeat(40)})
    }

    #[test]
    fn files_have_a_size_and_one_of_two_checksums() {
        let large = json!({"type": "file", "path": "a/model.safetensors", "size": 7, "oid": "2".repeat(40),
            "lfs": {"oid": "3".repeat(64), "size": 7, "pointerSize": 130}, "xetHash": "4".repeat(64)});
        let folder = json!({"type": "directory", "path": "a", "size": 0, "oid": "5".repeat(40)});
        let list = files(&json!([folder, large, entry("config.json", &json!(2))])).expect("a list");
        let [large, small] = &list[..] else { panic!("two files: {list:?}") };
        assert_eq!((large.bytes, large.xet), (7, true));
        assert_eq!(large.checksum, "3".repeat(64).parse().expect("a checksum"));
        assert_eq!(small.checksum, Checksum::GitSha1([0x11; 20]));
    }

    #[test]
    fn a_list_that_is_not_honest_is_refused() {
        let size = json!(1);
        let mut without_oid = entry("a", &size);
        without_oid["oid"] = Value::Null;
        let two_sizes =
            json!({"type": "file", "path": "a", "size": 7, "lfs": {"oid": "3".repeat(64), "size": 8}});
        for (entries, code) in [
            (json!([entry("../a", &size)]), Code::BoundaryViolation),
            (json!([entry("/etc/passwd", &size)]), Code::BoundaryViolation),
            (json!([entry("a/../../b", &size)]), Code::BoundaryViolation),
            (json!([entry("a\u{0}", &size)]), Code::IntegrityFailed),
            (json!([entry(&"a".repeat(5000), &size)]), Code::IntegrityFailed),
            (json!([entry("a", &json!(-1))]), Code::IntegrityFailed),
            (json!([entry("a", &json!(1.5))]), Code::IntegrityFailed),
            (json!([entry("a", &Value::Null)]), Code::IntegrityFailed),
            (json!([entry("a", &json!(u64::MAX))]), Code::IntegrityFailed),
            (json!([entry("a", &json!(i64::MAX)), entry("b", &json!(i64::MAX))]), Code::IntegrityFailed),
            (json!([entry("a", &size), entry("a", &size)]), Code::IntegrityFailed),
            (json!([entry("a", &size), entry("a/b", &size)]), Code::IntegrityFailed),
            (json!([without_oid]), Code::IntegrityFailed),
            (json!([two_sizes]), Code::IntegrityFailed),
        ] {
            assert_eq!(files(&entries).expect_err("not honest").code(), code, "{entries}");
        }
    }

    proptest! {
        /// Whatever a server calls a file, the file lies inside the folder or is refused.
        #[test]
        fn no_listed_path_leads_out(path in "\\PC{0,40}|(\\.\\.|a|/|\\\\){0,8}") {
            if let Ok(list) = files(&json!([entry(&path, &json!(1))])) {
                let inside = list[0].path.as_path();
                prop_assert!(inside.components().all(|part| matches!(part, std::path::Component::Normal(_))));
            }
        }
    }

    #[test]
    fn only_all_of_a_commit_is_one() {
        assert!(commit_named(&"aB".repeat(20)).is_some_and(|commit| commit.as_str() == "ab".repeat(20)));
        assert!(commit_named("main").is_none());
        assert!(commit_named(&"a".repeat(39)).is_none());
    }
}
