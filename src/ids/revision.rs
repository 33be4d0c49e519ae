//! Revisions of a model: pinned ones, and what a person calls them.

use std::fmt;
use std::str::FromStr;

use sha2::Digest as _;

use super::{Digest, SnapshotPath, invalid, is_deceptive};
use crate::error::Error;

/// A pinned revision: the commit of a hub repository, or the name that content gives itself. One
/// path component: ASCII letters, digits, `.`, `_` and `-`, at most 64 of them, no dot in front.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(String);

impl Revision {
    /// The revision of files that no repository gave one: 40 hexadecimal digits of a SHA-256 over
    /// their paths and digests, in order of the paths.
    pub fn of_content<'a>(files: impl IntoIterator<Item = (&'a SnapshotPath, &'a Digest)>) -> Self {
        let mut files: Vec<_> = files.into_iter().collect();
        files.sort_unstable();
        let mut hasher = sha2::Sha256::new();
        for (path, digest) in files {
            // No path holds a NUL or a line feed: different lists never give the same text.
            hasher.update(format!("{digest}\0{path}\n"));
        }
        let mut text = Digest::from_bytes(hasher.finalize().into()).to_string();
        text.truncate(40);
        Self(text)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is written as git writes a commit.
    pub fn is_commit(&self) -> bool {
        self.0.len() == 40 && self.0.bytes().all(|digit| digit.is_ascii_hexdigit())
    }

    /// Whether a person who writes `spec` may mean this revision: all of it, or its start (7 digits
    /// at least, as git abbreviates).
    pub fn matches(&self, spec: &RevisionSpec) -> bool {
        self.0 == spec.0 || (spec.0.len() >= 7 && self.0.starts_with(&spec.0.to_ascii_lowercase()))
    }
}

impl FromStr for Revision {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if text.is_empty() || text.len() > 64 || text.starts_with('.') || !text.chars().all(plain) {
            return Err(invalid("revision", text, "expected a commit"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What a person asks for: a branch, a tag, a commit or the start of one. It follows git's rules
/// for reference names (git-check-ref-format) and never names a path of ours.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RevisionSpec(String);

impl RevisionSpec {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RevisionSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong =
            |why| Err(invalid("revision", text, why).hint("name a branch, a tag or a commit of the model"));
        if text.is_empty() {
            return wrong("it is empty");
        }
        if text.len() > 250 {
            return wrong("it is too long");
        }
        if text.chars().any(|c| {
            is_deceptive(c) || c.is_whitespace() || matches!(c, '~' | '^' | ':' | '?' | '*' | '[' | '\\')
        }) {
            return wrong("git allows no such character");
        }
        if text.contains("..") || text.contains("@{") || text.starts_with('-') || text.ends_with('.') {
            return wrong("git allows no such name");
        }
        let refused =
            |part: &str| part.is_empty() || part.starts_with('.') || part.strip_suffix(".lock").is_some();
        if text.split('/').any(refused) {
            return wrong("git allows no such name");
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for RevisionSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pinned_revisions_are_one_path_component() {
        for good in ["main", "12fd25f77366fa6b3b4b768ec3050bf629380bac", "v1.0"] {
            assert_eq!(good.parse::<Revision>().expect(good).as_str(), good);
        }
        let long = "a".repeat(65);
        for bad in ["", ".", "..", ".hidden", "a/b", "a b", "a\0", "é", &long] {
            assert!(bad.parse::<Revision>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn asked_revisions_follow_the_rules_of_git() {
        for good in ["main", "refs/pr/1", "v1.0", "feature/x-y"] {
            assert_eq!(good.parse::<RevisionSpec>().expect(good).as_str(), good);
        }
        for bad in ["", "..", "a..b", "/a", "a/", "a//b", "a/.b", "-a", "a.lock", "a b", "a\n", "a@{1}", "a."]
        {
            assert!(bad.parse::<RevisionSpec>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_start_of_a_commit_names_it_from_seven_digits_on() {
        let revision: Revision = "12fd25f77366fa6b3b4b768ec3050bf629380bac".parse().expect("a commit");
        let matches = |text: &str| revision.matches(&text.parse().expect("a revision"));
        assert!(matches("12fd25f77366fa6b3b4b768ec3050bf629380bac"));
        assert!(matches("12fd25f"));
        assert!(matches("12FD25F7"));
        assert!(!matches("12fd25"));
        assert!(!matches("22fd25f"));
    }

    #[test]
    fn content_gives_itself_a_revision_whatever_the_order() {
        let path = |text: &str| text.parse::<SnapshotPath>().expect("a path");
        let (a, b) = (path("a"), path("b/c"));
        let (one, two) = (Digest::from_bytes([1; 32]), Digest::from_bytes([2; 32]));
        let revision = Revision::of_content([(&a, &one), (&b, &two)]);
        assert_eq!(revision, Revision::of_content([(&b, &two), (&a, &one)]));
        assert_ne!(revision, Revision::of_content([(&a, &two), (&b, &one)]));
        assert_eq!(revision.as_str().len(), 40);
    }
}
