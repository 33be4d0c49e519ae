//! Addresses at the hub.

use reqwest::Url;

use crate::error::{Code, Error, Result};
use crate::ids::{ModelName, Revision, SnapshotPath};

/// Reads the hub's address.
pub(super) fn parse(endpoint: &str) -> Result<Url> {
    Url::parse(endpoint).ok().filter(|url| url.has_host() && !url.cannot_be_a_base()).ok_or_else(|| {
        Error::new(Code::InvalidRequest, format!("'{}' is not the address of a hub", endpoint.escape_debug()))
            .hint("write HF_ENDPOINT as https://host")
    })
}

/// `{hub}/api/models/{org}/{name}/revision/{revision}`, asking for the commit only.
pub(super) fn revision(hub: &Url, model: &ModelName, revision: &str) -> Url {
    let mut url = below(hub, ["api", "models", model.org(), model.name(), "revision", revision]);
    url.query_pairs_mut().append_pair("expand", "sha");
    url
}

/// `{hub}/api/models/{org}/{name}/tree/{commit}`, one page of it.
pub(super) fn tree(hub: &Url, model: &ModelName, commit: &Revision, cursor: Option<&str>) -> Url {
    let mut url = below(hub, ["api", "models", model.org(), model.name(), "tree", commit.as_str()]);
    url.query_pairs_mut().append_pair("recursive", "true");
    if let Some(cursor) = cursor {
        url.query_pairs_mut().append_pair("cursor", cursor);
    }
    url
}

/// `{hub}/{org}/{name}/resolve/{commit}/{path}`.
pub(super) fn file(hub: &Url, model: &ModelName, commit: &Revision, path: &SnapshotPath) -> Url {
    let head = [model.org(), model.name(), "resolve", commit.as_str()];
    below(hub, head.into_iter().chain(path.components()))
}

/// Each segment is escaped: a slash in one stays inside it.
fn below<'a>(hub: &Url, segments: impl IntoIterator<Item = &'a str>) -> Url {
    let mut url = hub.clone();
    url.set_query(None);
    url.set_fragment(None);
    // An address that has a host has segments.
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(segments);
    }
    url
}

/// Whether both are the same server: only that one may see the token.
pub(super) fn same_origin(a: &Url, b: &Url) -> bool {
    (a.scheme(), a.host_str(), a.port_or_known_default())
        == (b.scheme(), b.host_str(), b.port_or_known_default())
}

/// The server as messages name it, without the password that an address may hold.
pub(super) fn shown(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{}://{host}:{port}", url.scheme()),
        None => format!("{}://{host}", url.scheme()),
    }
}

/// The address of the next page in a `Link` header (RFC 8288): `<address>; rel="next"`.
pub(super) fn next_page(link: &str) -> Option<&str> {
    link.split(',').find_map(|value| {
        let (address, parameters) = value.trim().strip_prefix('<')?.split_once('>')?;
        let is_next = |parameter: &str| {
            parameter.trim().split_once('=').is_some_and(|(name, value)| {
                name.trim().eq_ignore_ascii_case("rel")
                    && value.trim().trim_matches('"').split(' ').any(|rel| rel.eq_ignore_ascii_case("next"))
            })
        };
        parameters.split(';').any(is_next).then_some(address)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Host;

    #[test]
    fn every_part_of_an_address_is_escaped() {
        let hub = parse("https://hub.example/mirror/").expect("an address");
        let model = ModelName::parse_pair(Host::HuggingFace, "org/name").expect("a name");
        let commit: Revision = "0123456789012345678901234567890123456789".parse().expect("a commit");
        assert_eq!(
            revision(&hub, &model, "refs/pr/1").as_str(),
            "https://hub.example/mirror/api/models/org/name/revision/refs%2Fpr%2F1?expand=sha"
        );
        let path = "a b/c%20d?#.json".parse().expect("a path");
        assert_eq!(
            file(&hub, &model, &commit, &path).as_str(),
            format!("https://hub.example/mirror/org/name/resolve/{commit}/a%20b/c%2520d%3F%23.json")
        );
        assert!(tree(&hub, &model, &commit, Some("a&b")).as_str().ends_with("?recursive=true&cursor=a%26b"));
    }

    #[test]
    fn a_server_is_scheme_host_and_port() {
        let same = |a: &str, b: &str| same_origin(&parse(a).expect(a), &parse(b).expect(b));
        assert!(same("https://hub.example", "https://HUB.example:443/x"));
        assert!(!same("https://hub.example", "http://hub.example"));
        assert!(!same("https://hub.example", "https://hub.example:444"));
        assert!(!same("https://hub.example", "https://cdn.hub.example"));
        assert!(!same("http://127.0.0.1:80", "http://localhost:80"));
    }

    #[test]
    fn a_password_is_not_shown() {
        assert_eq!(
            shown(&parse("https://u:secret@hub.example:8443/x").expect("an address")),
            "https://hub.example:8443"
        );
    }

    #[test]
    fn the_next_page_is_found_among_links() {
        for (link, next) in [
            ("<https://h/api?cursor=x>; rel=\"next\"", Some("https://h/api?cursor=x")),
            ("<https://h/1>; rel=\"prev\", <https://h/2>; title=\"a\"; rel=next", Some("https://h/2")),
            ("<https://h/1>; rel=\"last\"", None),
            ("https://h/1; rel=next", None),
            ("<", None),
            ("", None),
        ] {
            assert_eq!(next_page(link), next, "{link}");
        }
    }
}
