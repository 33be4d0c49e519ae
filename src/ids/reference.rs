//! How a person names a model.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::name::NAME_HINT;
use super::{Host, ModelName, RevisionSpec, SnapshotPath, invalid, is_deceptive, url};
use crate::error::{Error, Result};

/// A model reference, parsed but not looked up: nothing says yet that there is such a model.
///
/// | text | meaning |
/// | --- | --- |
/// | `org/name`, `org/name@revision`, `org/name:Q4_K_M` | [`ModelRef::Named`] |
/// | `hf.co/org/name`, `https://huggingface.co/org/name/…` | [`ModelRef::Named`] |
/// | `ollama:name[:tag]`, `lmstudio:publisher/name` | [`ModelRef::Named`] |
/// | `/…`, `./…`, `../…`, `~…`, `….gguf` | [`ModelRef::Path`] |
/// | anything else: an alias or a part of an installed name | [`ModelRef::Short`] |
///
/// That a text without any of these forms happens to be an existing path is for the caller to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelRef {
    /// A full name, perhaps narrowed to a revision or one file.
    Named { name: ModelName, revision: Option<RevisionSpec>, file: Option<FileChoice> },
    /// A local directory or file, as written: `~` is not expanded.
    Path(PathBuf),
    /// An alias, or a part of an installed name: no `/`, at least one letter or digit.
    Short { text: String, revision: Option<RevisionSpec>, file: Option<FileChoice> },
}

/// Which of a repository's GGUF files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileChoice {
    /// The one whose name holds this quantization, such as `Q4_K_M`, in any case.
    Quantization(String),
    /// This one.
    Path(SnapshotPath),
}

impl FileChoice {
    /// Whether a file of a snapshot is the one that is meant.
    pub fn matches(&self, path: &SnapshotPath) -> bool {
        match self {
            Self::Path(own) => own == path,
            // `model-Q4_K.gguf` is not `Q4_K_M` and the other way round: the tag stands between
            // separators.
            Self::Quantization(tag) => {
                let stem = path.file_name().to_ascii_lowercase();
                let Some(stem) = stem.strip_suffix(".gguf") else { return false };
                let tag = tag.to_ascii_lowercase();
                stem.match_indices(&tag).any(|(at, _)| {
                    let (before, after) = (&stem[..at], &stem[at + tag.len()..]);
                    let separates = |c: char| matches!(c, '-' | '.' | '_');
                    (before.is_empty() || before.ends_with(separates))
                        && (after.is_empty() || after.starts_with(['-', '.']))
                })
            }
        }
    }
}

impl FromStr for FileChoice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text.to_ascii_lowercase().ends_with(".gguf") {
            let path = text.parse().map_err(|error: Error| error.hint("name a GGUF file of the model"));
            return Ok(Self::Path(path?));
        }
        let fits = (1..=64).contains(&text.len())
            && text.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-' | b'.'));
        if fits {
            Ok(Self::Quantization(text.to_owned()))
        } else {
            Err(invalid("file tag", text, "expected a quantization such as Q4_K_M, or a GGUF file")
                .hint("write nothing behind the model's name, or what you want of it, as in org/name:Q4_K_M"))
        }
    }
}

impl fmt::Display for FileChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quantization(tag) => f.write_str(tag),
            Self::Path(path) => path.fmt(f),
        }
    }
}

impl FromStr for ModelRef {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |why| Err(invalid("model reference", text, why).hint(NAME_HINT));
        if text.trim().is_empty() {
            return wrong("it is empty");
        }
        if text.len() > 4096 {
            return wrong("it is too long");
        }
        if text.chars().any(is_deceptive) {
            return wrong("it holds control characters or invisible ones");
        }
        if let Some(reference) = url::parse(text) {
            return reference;
        }
        if let Some(name) = text.strip_prefix("ollama:") {
            return Ok(Self::Named { name: ModelName::parse_ollama(name)?, revision: None, file: None });
        }
        if let Some(rest) = text.strip_prefix("lmstudio:") {
            let (name, file) = match rest.split_once(':') {
                Some((name, tag)) => (name, Some(tag.parse()?)),
                None => (rest, None),
            };
            let name = ModelName::parse_pair(Host::LmStudio, name)?;
            return Ok(Self::Named { name, revision: None, file });
        }
        if is_path(text) {
            return Ok(Self::Path(PathBuf::from(text)));
        }
        let (base, revision, file) = split_suffixes(text)?;
        if base.contains('/') {
            let name = ModelName::parse_pair(Host::HuggingFace, base)?;
            return Ok(Self::Named { name, revision, file });
        }
        if base.len() > 200 || base.contains('\\') || !base.chars().any(char::is_alphanumeric) {
            return wrong("it is neither a name nor a path");
        }
        Ok(Self::Short { text: base.to_owned(), revision, file })
    }
}

impl fmt::Display for ModelRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (revision, file) = match self {
            Self::Path(path) => return path.display().fmt(f),
            Self::Named { name, revision, file } => {
                write!(f, "{name}")?;
                (revision, file)
            }
            Self::Short { text, revision, file } => {
                f.write_str(text)?;
                (revision, file)
            }
        };
        if let Some(revision) = revision {
            write!(f, "@{revision}")?;
        }
        if let Some(file) = file {
            write!(f, ":{file}")?;
        }
        Ok(())
    }
}

fn is_path(text: &str) -> bool {
    text.starts_with(['/', '~'])
        || text.starts_with("./")
        || text.starts_with("../")
        || matches!(text, "." | "..")
        || (text.to_ascii_lowercase().ends_with(".gguf") && !text.contains([':', '@']))
}

/// Splits `base[@revision][:file]`; the two suffixes come in either order, each at most once.
fn split_suffixes(text: &str) -> Result<(&str, Option<RevisionSpec>, Option<FileChoice>)> {
    let mark = |text: &str| text.find(['@', ':']);
    let Some(at) = mark(text) else { return Ok((text, None, None)) };
    let (base, mut rest) = text.split_at(at);
    let (mut revision, mut file) = (None, None);
    while let Some(sign) = rest.chars().next() {
        let body = &rest[1..];
        let (part, next) = body.split_at(mark(body).unwrap_or(body.len()));
        let twice = if sign == '@' {
            revision.replace(part.parse()?).is_some()
        } else {
            file.replace(part.parse()?).is_some()
        };
        if twice {
            return Err(invalid("model reference", text, "it has two revisions or two file tags"));
        }
        rest = next;
    }
    Ok((base, revision, file))
}

/// `org/name` with its suffixes, as the short URLs `hf.co/org/name:Q4_K_M` have it.
pub(super) fn parse_hub_name(text: &str) -> Result<ModelRef> {
    let (base, revision, file) = split_suffixes(text)?;
    Ok(ModelRef::Named { name: ModelName::parse_pair(Host::HuggingFace, base)?, revision, file })
}

#[cfg(test)]
mod tests {
    use std::path::{Component, Path};

    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> ModelRef {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn every_form_is_understood() {
        for (text, shown) in [
            ("org/name", "org/name"),
            ("org/name@v1", "org/name@v1"),
            ("org/name@refs/pr/1", "org/name@refs/pr/1"),
            ("org/name:Q4_K_M", "org/name:Q4_K_M"),
            ("org/name:Q4_K_M@main", "org/name@main:Q4_K_M"),
            ("org/name:sub/a.gguf", "org/name:sub/a.gguf"),
            ("hf.co/org/name", "org/name"),
            ("hf.co/org/name:Q8_0", "org/name:Q8_0"),
            ("huggingface.co/org/name@main", "org/name@main"),
            ("https://huggingface.co/org/name", "org/name"),
            ("https://huggingface.co/org/name/", "org/name"),
            ("http://www.huggingface.co/org/name?library=mlx#usage", "org/name"),
            ("https://huggingface.co/org/name/tree/main", "org/name@main"),
            ("https://huggingface.co/org/name/tree/refs%2Fpr%2F3", "org/name@refs/pr/3"),
            ("https://huggingface.co/org/name/blob/main/a-Q4_0.gguf", "org/name@main:a-Q4_0.gguf"),
            ("https://hf.co/org/name/resolve/main/x/a.gguf?download=true", "org/name@main:x/a.gguf"),
            ("ollama:smollm2", "ollama:smollm2:latest"),
            ("ollama:smollm2:135m", "ollama:smollm2:135m"),
            ("lmstudio:pub/some name", "lmstudio:pub/some name"),
            ("lmstudio:pub/name:Q4_0", "lmstudio:pub/name:Q4_0"),
        ] {
            let reference = parse(text);
            assert!(matches!(reference, ModelRef::Named { .. }), "{text}");
            assert_eq!(reference.to_string(), shown, "{text}");
            assert_eq!(parse(shown), reference, "{shown}");
        }
        for text in ["/models/x", "./x", "../x", "~/x", ".", "..", "x.gguf", "dir/x.GGUF"] {
            assert_eq!(parse(text), ModelRef::Path(text.into()), "{text}");
        }
        for text in ["smollm2", "llama-3.2-1b", "smollm2:Q8_0", "smollm2@main"] {
            assert!(matches!(parse(text), ModelRef::Short { .. }), "{text}");
            assert_eq!(parse(text).to_string(), text);
        }
    }

    #[test]
    fn hostile_and_broken_references_are_refused() {
        let long = "a".repeat(5000);
        for bad in
            ["", " ", "a\0b", "a\nb", "org/na\u{202e}me", "org/../name", "org/..", "org//name", "a/b/c/d"]
                .into_iter()
                .chain([
                    "org/name@",
                    "org/name:",
                    "org/name@a@b",
                    "org/name:a:b",
                    "org/name@..",
                    "org/name:../x.gguf",
                ])
                .chain([
                    "https://example.com/org/name",
                    "https://huggingface.co/",
                    "https://huggingface.co/gpt2",
                ])
                .chain([
                    "https://huggingface.co/datasets/org/name",
                    "https://huggingface.co/org/name/blob/main",
                ])
                .chain([
                    "https://huggingface.co/%2e%2e/name",
                    "https://huggingface.co/org/name/blob/main/%2e%2e/x.gguf",
                ])
                .chain([
                    "https://huggingface.co/org/na%00me",
                    "https://huggingface.co/org/name/blob/main/config.json",
                ])
                .chain([
                    "ollama:",
                    "ollama:../x",
                    "lmstudio:x",
                    "lmstudio:../x",
                    "---",
                    "\\\\server\\share",
                    &long,
                ])
        {
            let error = bad.parse::<ModelRef>().expect_err(bad);
            assert_eq!(error.code(), crate::error::Code::InvalidRequest, "{bad:?}");
            assert!(!error.message().chars().any(char::is_control), "{bad:?}");
            assert!(error.message().len() < 800, "{bad:?}");
        }
    }

    #[test]
    fn a_quantization_names_one_file() {
        let matches =
            |tag: &str, file: &str| tag.parse::<FileChoice>().expect(tag).matches(&file.parse().expect(file));
        assert!(matches("Q4_K_M", "SmolLM2-135M-Instruct-Q4_K_M.gguf"));
        assert!(matches("q4_k_m", "smollm2.Q4_K_M.gguf"));
        assert!(matches("Q4_K_M", "sub/Q4_K_M.gguf"));
        assert!(matches("Q4_K_M", "m-Q4_K_M-00001-of-00002.gguf"));
        assert!(!matches("Q4_K", "m-Q4_K_M.gguf"));
        assert!(!matches("Q4_K_M", "m-IQ4_K_M.gguf"));
        assert!(!matches("Q4_K_M", "m-Q4_K_M.safetensors"));
        assert!(matches("sub/x.gguf", "sub/x.gguf"));
    }

    proptest! {
        /// Whatever parses as a name gives a path below the root, as text and after joining.
        #[test]
        fn names_stay_inside_the_store(text in "(ollama:|lmstudio:|hf\\.co/|https://hf\\.co/)?[a-z./:@~\\\\%2eE\\-_ \u{0}\n]{0,24}") {
            if let Ok(ModelRef::Named { name, file, .. }) = text.parse::<ModelRef>() {
                for part in [name.host().as_str(), name.org(), name.name()] {
                    let mut components = Path::new(part).components();
                    prop_assert_eq!(components.next(), Some(Component::Normal(part.as_ref())));
                    prop_assert_eq!(components.next(), None);
                }
                if let Some(FileChoice::Path(path)) = file {
                    prop_assert!(path.as_path().components().all(|part| matches!(part, Component::Normal(_))));
                }
            }
        }

        #[test]
        fn no_text_panics_and_none_gives_back_control_characters(text in "\\PC{0,40}|[\\x00-\\x7f]{0,40}") {
            if let Ok(reference) = text.parse::<ModelRef>() {
                prop_assert!(!reference.to_string().chars().any(char::is_control));
            }
        }

        #[test]
        fn what_is_shown_parses_to_the_same(
            org in "[A-Za-z0-9_]{1,8}", name in "[A-Za-z0-9_]([-.]?[A-Za-z0-9_]){0,8}",
            revision in proptest::option::of("[a-z0-9]{1,8}(/[a-z0-9]{1,4})?"),
            tag in proptest::option::of("[A-Z0-9_]{1,8}"),
        ) {
            let extension = Path::new(&name).extension().map(std::ffi::OsStr::to_ascii_lowercase);
            prop_assume!(!extension.is_some_and(|extension| extension == "git" || extension == "gguf"));
            let revision = revision.map(|revision| format!("@{revision}")).unwrap_or_default();
            let tag = tag.map(|tag| format!(":{tag}")).unwrap_or_default();
            let text = format!("{org}/{name}{revision}{tag}");
            prop_assert_eq!(parse(&text).to_string(), text);
        }
    }
}
