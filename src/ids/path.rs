//! Paths inside a snapshot.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use super::{invalid, is_deceptive};
use crate::error::Error;

/// The path of a file inside a snapshot, as a repository lists it: relative, `/` between its
/// components, none of them empty, `.` or `..`; no control characters and no backslash. Joined to a
/// folder it stays inside that folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotPath(String);

impl SnapshotPath {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn as_path(&self) -> &Path {
        Path::new(&self.0)
    }

    pub fn components(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/')
    }

    /// The last component.
    pub fn file_name(&self) -> &str {
        self.components().next_back().unwrap_or(&self.0)
    }

    /// Whether the file name ends with this extension (given without the dot), in any case.
    pub fn has_extension(&self, extension: &str) -> bool {
        self.as_path().extension().is_some_and(|own| own.eq_ignore_ascii_case(extension))
    }
}

impl FromStr for SnapshotPath {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = |why| {
            Err(invalid("file path", text, why)
                .hint("write the path of a file inside the model, as its list shows it"))
        };
        if text.len() > 1024 || text.split('/').any(|part| part.len() > 255) {
            return wrong("it is too long");
        }
        if text.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return wrong("it must be relative, without empty parts and without `.` or `..`");
        }
        if text.contains('\\') || text.chars().any(is_deceptive) {
            return wrong("it holds a backslash, a control character or an invisible one");
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for SnapshotPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl AsRef<Path> for SnapshotPath {
    fn as_ref(&self) -> &Path {
        self.as_path()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Component;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_of_real_repositories_pass() {
        for good in ["model.safetensors", "1_Pooling/config.json", "a b.gguf", "onnx/größe.json", "..."] {
            assert_eq!(good.parse::<SnapshotPath>().expect(good).as_str(), good);
        }
        let path: SnapshotPath = "a/Model.GGUF".parse().expect("a path");
        assert_eq!(path.file_name(), "Model.GGUF");
        assert!(path.has_extension("gguf"));
    }

    #[test]
    fn hostile_paths_do_not() {
        let long = "a/".repeat(600) + "a";
        for bad in
            ["", "/", "/etc/passwd", "..", "a/..", "../a", "a//b", "a/", "./a", "a\0b", "a\nb", "a\\b", &long]
        {
            assert!(bad.parse::<SnapshotPath>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn what_parses_stays_inside(text in "[./a\\\\\u{202e}\n ~]{0,12}") {
            if let Ok(path) = text.parse::<SnapshotPath>() {
                prop_assert!(path.as_path().components().all(|part| matches!(part, Component::Normal(_))));
                let joined = Path::new("/root").join(&path);
                let plain = format!("/root/{text}");
                prop_assert_eq!(joined.to_str(), Some(plain.as_str()));
            }
        }
    }
}
