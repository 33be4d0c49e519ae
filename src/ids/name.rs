//! Full names of models.

use std::fmt;

use super::{invalid, is_deceptive};
use crate::error::Result;

/// What to do about a name that is none.
pub(super) const NAME_HINT: &str =
    "write a model as org/name, for example HuggingFaceTB/SmolLM2-135M-Instruct";

/// Stands between the host and the namespace of an Ollama model, so that both are one harmless folder name.
const HOST_MARK: char = ':';

/// Where a model's name comes from; the first folder under `models/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Host {
    /// A repository of the Hugging Face Hub: `org/name`.
    HuggingFace,
    /// A name that the user gave: `org/name` too.
    Local,
    /// `ollama:name:tag`.
    Ollama,
    /// `lmstudio:publisher/name`.
    LmStudio,
}

impl Host {
    const ALL: [Self; 4] = [Self::HuggingFace, Self::Local, Self::Ollama, Self::LmStudio];

    /// Name of the folder under `models/`, and in the registry.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HuggingFace => "huggingface.co",
            Self::Local => "local",
            Self::Ollama => "ollama",
            Self::LmStudio => "lmstudio",
        }
    }

    /// The host of a folder name, or nothing.
    pub fn from_folder(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|host| host.as_str() == name)
    }
}

/// A model's full name. Its parts are safe path components; its text is unique in a registry,
/// whatever the case of its letters.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ModelName {
    host: Host,
    org: String,
    name: String,
}

impl ModelName {
    /// Namespace of Ollama models whose name has none.
    const OLLAMA_LIBRARY: &str = "library";
    /// Host of Ollama models whose name has none.
    const OLLAMA_REGISTRY: &str = "registry.ollama.ai";

    /// Checks both parts by the rules of the host.
    pub fn new(host: Host, org: &str, name: &str) -> Result<Self> {
        let check = match host {
            Host::HuggingFace | Host::Local => check_hub_part,
            Host::Ollama => check_ollama_part,
            Host::LmStudio => check_folder_part,
        };
        check(org)?;
        check(name)?;
        Ok(Self { host, org: org.to_owned(), name: name.to_owned() })
    }

    /// `org/name`.
    pub fn parse_pair(host: Host, text: &str) -> Result<Self> {
        match text.split_once('/') {
            Some((org, name)) => Self::new(host, org, name),
            None => Err(invalid("model name", text, "expected org/name").hint(NAME_HINT)),
        }
    }

    /// `[[host/]namespace/]name[:tag]` as Ollama writes it; the tag is `latest` if there is none.
    pub fn parse_ollama(text: &str) -> Result<Self> {
        let (org, rest) = text.rsplit_once('/').unwrap_or((Self::OLLAMA_LIBRARY, text));
        let (name, tag) = rest.split_once(':').unwrap_or((rest, "latest"));
        check_ollama_part(tag)?;
        check_ollama_part(name)?;
        let (host, namespace) = match org.split_once('/') {
            Some((host, namespace)) => (Some(host), namespace),
            None => (None, org),
        };
        if name.contains(':') || tag.contains(':') || namespace.contains(':') {
            return Err(invalid("model name", text, "expected ollama:name:tag"));
        }
        let org = match host {
            // Its registry is the one that a name without a host means.
            Some(host) if !host.eq_ignore_ascii_case(Self::OLLAMA_REGISTRY) => {
                check_ollama_part(host)?;
                format!("{host}{HOST_MARK}{namespace}")
            }
            _ => namespace.to_owned(),
        };
        check_ollama_part(namespace)?;
        Self::new(Host::Ollama, &org, &format!("{name}:{tag}"))
    }

    /// Host, namespace, name and tag of an Ollama model, as its manifest's place has them.
    pub fn ollama_parts(&self) -> Option<[&str; 4]> {
        if self.host != Host::Ollama {
            return None;
        }
        let (host, namespace) = self.org.rsplit_once(HOST_MARK).unwrap_or((Self::OLLAMA_REGISTRY, &self.org));
        let (name, tag) = self.name.split_once(':')?;
        Some([host, namespace, name, tag])
    }

    /// `local/…` by the name of a folder or file, whose other characters become dashes; `None` if nothing
    /// usable is left.
    pub fn of_local(text: &str) -> Option<Self> {
        let mut kept = String::new();
        for c in text.chars() {
            let c = if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '-' };
            // The rules for names allow neither twice in a row.
            if !(matches!(c, '.' | '-') && kept.ends_with(c)) {
                kept.push(c);
            }
        }
        Self::new(Host::Local, "local", kept.trim_matches(['-', '.'])).ok()
    }

    /// Whether both are one name to a person and to the registry, which look neither at the case of
    /// letters nor at where the name comes from.
    pub fn is_same(&self, other: &Self) -> bool {
        self.to_string().eq_ignore_ascii_case(&other.to_string())
    }

    pub fn host(&self) -> Host {
        self.host
    }

    pub fn org(&self) -> &str {
        &self.org
    }

    /// The last part, with Ollama's tag.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, org, name } = self;
        let text = match host {
            Host::HuggingFace | Host::Local => format!("{org}/{name}"),
            Host::LmStudio => format!("lmstudio:{org}/{name}"),
            Host::Ollama if org == Self::OLLAMA_LIBRARY => format!("ollama:{name}"),
            // Of a host and a namespace, only the host may hold the mark.
            Host::Ollama => match org.rsplit_once(HOST_MARK) {
                Some((host, namespace)) => format!("ollama:{host}/{namespace}/{name}"),
                None => format!("ollama:{org}/{name}"),
            },
        };
        f.pad(&text)
    }
}

/// The hub's rules for names (`huggingface_hub.utils.validate_repo_id`): letters, digits, `-`, `_` and
/// `.`, at most 96, no `--` or `..`, no `-` or `.` at either end, no `.git` at the end.
fn check_hub_part(part: &str) -> Result<()> {
    let wrong = |why: &str| Err(invalid("model name", part, why).hint(NAME_HINT));
    if part.is_empty() || part.len() > 96 {
        return wrong("each part has 1 to 96 characters");
    }
    if !part.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.')) {
        return wrong("only ASCII letters, digits, `-`, `_` and `.` are allowed");
    }
    if part.contains("--") || part.contains("..") {
        return wrong("`--` and `..` are not allowed");
    }
    if part.starts_with(['-', '.']) || part.ends_with(['-', '.']) || is_git(part) {
        return wrong("a part neither starts nor ends with `-` or `.`, nor ends with `.git`");
    }
    Ok(())
}

fn is_git(part: &str) -> bool {
    std::path::Path::new(part).extension().is_some_and(|extension| extension == "git")
}

/// Ollama's rules for the parts of a name, and `:` before the tag.
fn check_ollama_part(part: &str) -> Result<()> {
    let fits = (1..=128).contains(&part.len())
        && part.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && part.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.' | b':'));
    if fits { Ok(()) } else { Err(invalid("model name", part, "expected ollama:name:tag")) }
}

/// LM Studio names models by folders: anything that is one harmless folder name.
fn check_folder_part(part: &str) -> Result<()> {
    let fits = (1..=200).contains(&part.len())
        && !part.starts_with('.')
        && part.trim() == part
        && !part.chars().any(|c| is_deceptive(c) || matches!(c, '/' | '\\' | ':' | '@'));
    if fits { Ok(()) } else { Err(invalid("model name", part, "expected lmstudio:publisher/name")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules_of_their_host() {
        for good in ["HuggingFaceTB/SmolLM2-135M-Instruct", "a/b", "_x/y_", "01-ai/Yi-1.5-6B"] {
            assert_eq!(ModelName::parse_pair(Host::HuggingFace, good).expect(good).to_string(), good);
        }
        let long = format!("org/{}", "n".repeat(97));
        for bad in
            ["", "a", "/", "a/", "/b", "a/b/c", "../b", "a/..", "a/.b", "a/b-", "a/b--c", "a/b.git", "a/b c"]
                .into_iter()
                .chain(["a/é", "a/b\0", "a/b\n", "a/b:c", &long])
        {
            assert!(ModelName::parse_pair(Host::HuggingFace, bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn ollama_names_get_their_defaults() {
        for (text, full) in [
            ("smollm2", "ollama:smollm2:latest"),
            ("smollm2:135m", "ollama:smollm2:135m"),
            ("me/mine:v1", "ollama:me/mine:v1"),
            ("hf.co/org/name:Q4_K_M", "ollama:hf.co/org/name:Q4_K_M"),
            ("registry.ollama.ai/library/smollm2", "ollama:smollm2:latest"),
            ("localhost:5000/me/mine", "ollama:localhost:5000/me/mine:latest"),
        ] {
            assert_eq!(ModelName::parse_ollama(text).expect(text).to_string(), full);
        }
        for bad in
            ["", ":", "a:", ":b", "a:b:c", "../a", "a/../b", "a/b/c/d", "../a/b", "a/b:c/d", "-a", "a b"]
        {
            assert!(ModelName::parse_ollama(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn folder_names_may_hold_spaces_but_nothing_that_leads_elsewhere() {
        let parse = |text| ModelName::parse_pair(Host::LmStudio, text);
        assert_eq!(parse("my org/größe (v2)").expect("a name").to_string(), "lmstudio:my org/größe (v2)");
        for bad in ["..", "../a", "a/..", "a/.b", "a/ b", "a/b/c", "a/b\\c", "a/b\u{202e}"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
