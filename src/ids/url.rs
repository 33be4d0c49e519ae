//! Addresses of model pages and files on the Hugging Face Hub.

use super::name::NAME_HINT;
use super::reference::parse_hub_name;
use super::{FileChoice, Host, ModelName, ModelRef, RevisionSpec, invalid};
use crate::error::Result;

/// Hosts that are the hub.
const HOSTS: [&str; 3] = ["huggingface.co", "www.huggingface.co", "hf.co"];

/// Reads an address; `None` if the text is none (no scheme, and no hub host in front).
pub(super) fn parse(text: &str) -> Option<Result<ModelRef>> {
    let after_scheme = ["https://", "http://"].into_iter().find_map(|scheme| {
        text.get(..scheme.len()).filter(|start| start.eq_ignore_ascii_case(scheme))?;
        text.get(scheme.len()..)
    });
    let address = after_scheme.unwrap_or(text);
    let (host, path) = address.split_once('/').unwrap_or((address, ""));
    let hub = HOSTS.iter().any(|known| host.eq_ignore_ascii_case(known));
    match (hub, after_scheme) {
        (true, _) => Some(parse_path(text, path)),
        (false, Some(_)) => {
            Some(Err(
                invalid("model address", text, "only huggingface.co and hf.co are known").hint(NAME_HINT)
            ))
        }
        (false, None) => None,
    }
}

/// The part after the host: `org/name[suffixes]` or `org/name/{tree|blob|resolve}/revision[/file]`.
fn parse_path(text: &str, path: &str) -> Result<ModelRef> {
    let wrong = |why| Err(invalid("model address", text, why).hint(NAME_HINT));
    let path = path.split(['?', '#']).next().unwrap_or(path);
    let Some(segments) =
        path.trim_end_matches('/').split('/').map(percent_decoded).collect::<Option<Vec<_>>>()
    else {
        return wrong("a % is not followed by the code of a character");
    };
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    match segments[..] {
        ["datasets" | "spaces", ..] => wrong("it names a dataset or a space, not a model"),
        [org, name] => parse_hub_name(&format!("{org}/{name}")),
        [org, name, "tree", ref revision @ ..] => {
            let (revision, []) = split_revision(revision) else {
                return wrong("it names a folder inside a repository");
            };
            let revision = Some(revision.parse()?);
            Ok(ModelRef::Named { name: ModelName::new(Host::HuggingFace, org, name)?, revision, file: None })
        }
        [org, name, "blob" | "resolve", ref rest @ ..] => {
            let (revision, file) = split_revision(rest);
            let revision: RevisionSpec = revision.parse()?;
            let path = file.join("/");
            if !path.to_ascii_lowercase().ends_with(".gguf") {
                return wrong("it names a file that is not a GGUF");
            }
            let file = Some(FileChoice::Path(path.parse()?));
            let name = ModelName::new(Host::HuggingFace, org, name)?;
            Ok(ModelRef::Named { name, revision: Some(revision), file })
        }
        _ => wrong("expected https://huggingface.co/org/name"),
    }
}

/// Takes the revision off the front: one segment, or three where it starts with `refs` (the hub
/// writes those as one, `refs%2Fpr%2F1`, people do not).
fn split_revision<'a, 'b>(segments: &'a [&'b str]) -> (String, &'a [&'b str]) {
    let length = if segments.first() == Some(&"refs") { 3 } else { 1 };
    let (revision, rest) = segments.split_at(length.min(segments.len()));
    (revision.join("/"), rest)
}

/// Replaces each `%xx`; `None` if one is broken or the result is not UTF-8.
fn percent_decoded(segment: &str) -> Option<String> {
    let mut bytes = segment.bytes();
    let mut decoded = Vec::with_capacity(segment.len());
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
            let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
            decoded.push((high * 16 + low) as u8);
        } else {
            decoded.push(byte);
        }
    }
    String::from_utf8(decoded).ok()
}
