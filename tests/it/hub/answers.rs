//! What the hub and its storage answer.

use serde_json::json;

use super::connection::{Answer, Body, Request, encode};
use super::content::Content;
use super::fault::{Fault, Host, On};
use super::repository::{Access, Commit, File, Repository};
use super::server::State;

/// Entries of a tree on a page, as the real hub has it.
pub(super) const PAGE: usize = 1000;

/// A request taken apart.
pub(super) struct Asked<'a> {
    pub request: &'a Request,
    pub on: On,
    /// `org/name`.
    repository: String,
    revision: String,
}

impl<'a> Asked<'a> {
    pub(super) fn new(host: Host, request: &'a Request) -> Self {
        let path = request.path();
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let (on, pair, revision) = match (host, parts.as_slice()) {
            (Host::Hub, ["api", "models", org, name]) => (On::Info, [*org, *name], "main".to_owned()),
            (Host::Hub, ["api", "models", org, name, "revision", revision @ ..]) => {
                (On::Info, [*org, *name], revision.join("/"))
            }
            (Host::Hub, ["api", "models", org, name, "tree", revision @ ..]) => {
                (On::Tree, [*org, *name], revision.join("/"))
            }
            (Host::Hub, ["api", "resolve-cache", "models", org, name, commit, file @ ..])
            | (Host::Storage, [org, name, commit, file @ ..]) => {
                (On::Payload(file.join("/")), [*org, *name], (*commit).to_owned())
            }
            (Host::Hub, [org, name, "resolve", revision, file @ ..]) => {
                (On::Address(file.join("/")), [*org, *name], (*revision).to_owned())
            }
            _ => (On::Everything, ["", ""], String::new()),
        };
        Self { request, on, repository: pair.join("/"), revision }
    }

    /// The answer, without what may go wrong on its way.
    pub(super) fn answer(&self, host: Host, state: &State, fault: Option<&Fault>) -> Answer {
        match fault {
            Some(Fault::Answer { status, headers, body }) => {
                let answer = Answer::new(*status, Body::Bytes(body.clone()));
                return headers.iter().fold(answer, |answer, (name, value)| answer.with(name, value));
            }
            Some(Fault::Endless { first, then }) => {
                return Answer::new(200, Body::Endless { first: first.clone(), then: then.clone() });
            }
            _ => {}
        }
        if host == Host::Storage && self.request.header("authorization").is_some() {
            // As S3 does: the address is signed already.
            return Answer::new(400, Body::Bytes(b"Only one auth mechanism allowed".to_vec()));
        }
        let repositories = state.repositories();
        let Some(repository) = repositories.get(&self.repository) else {
            if self.on == On::Everything {
                return Answer::new(200, Body::Bytes(b"a hub".to_vec()));
            }
            return self.not_found();
        };
        // Storage trusts whoever has the address.
        if host == Host::Hub
            && let Some(refusal) = self.refusal(repository)
        {
            return refusal;
        }
        let Some(commit) = repository.commit(&self.revision) else {
            let message = format!("Invalid rev id: {}", self.revision);
            return refused(404, "RevisionNotFound", &message);
        };
        match &self.on {
            On::Info => Answer::new(200, Body::Bytes(repository.info(commit).to_string().into_bytes()))
                .with("Content-Type", "application/json; charset=utf-8"),
            On::Tree => self.tree(commit, state),
            On::Address(path) | On::Payload(path) => match commit.files.get(path) {
                None => refused(404, "EntryNotFound", "Entry not found").with("X-Repo-Commit", &commit.id),
                Some(file) if matches!(self.on, On::Address(_)) => {
                    self.address(path, file, commit, state, fault)
                }
                Some(file) => self.payload(host, file, commit, fault),
            },
            On::Payloads | On::Everything => Answer::new(404, Body::Bytes(Vec::new())),
        }
    }

    /// A repository that is not there and one that must not be seen look alike.
    fn not_found(&self) -> Answer {
        match self.request.token() {
            None => refused(401, "RepoNotFound", "Invalid username or password."),
            Some(_) => refused(404, "RepoNotFound", "Repository not found"),
        }
    }

    fn refusal(&self, repository: &Repository) -> Option<Answer> {
        let token = self.request.token();
        let wants_file = matches!(self.on, On::Address(_) | On::Payload(_));
        match &repository.access {
            Access::Private(own) if token != Some(own) => Some(self.not_found()),
            Access::Gated(own) if wants_file && token != Some(own) => {
                let name = &repository.name;
                Some(if token.is_none() {
                    let message = format!(
                        "Access to model {name} is restricted. You must have access to it and be authenticated to access it. Please log in."
                    );
                    refused(401, "GatedRepo", &message)
                } else {
                    let message = format!(
                        "Access to model {name} is restricted and you are not in the authorized list. Visit https://huggingface.co/{name} to ask for access."
                    );
                    refused(403, "GatedRepo", &message)
                })
            }
            _ => None,
        }
    }

    fn tree(&self, commit: &Commit, state: &State) -> Answer {
        let entries = commit.entries();
        let page = state.page();
        let from = self.request.parameter("cursor").and_then(|text| text.parse().ok()).unwrap_or(0);
        let until = entries.len().min(from + page);
        let body = serde_json::to_vec(&entries[from.min(until)..until]).expect("JSON");
        let answer =
            Answer::new(200, Body::Bytes(body)).with("Content-Type", "application/json; charset=utf-8");
        if until == entries.len() {
            return answer;
        }
        let path = format!("/api/models/{}/tree/{}", self.repository, commit.id);
        let next =
            format!("{}{path}?expand=false&recursive=true&limit={page}&cursor={until}", state.url(Host::Hub));
        answer.with("Link", format!("<{next}>; rel=\"next\""))
    }

    /// Where the content is: for large files at the storage, for others at another path here.
    fn address(
        &self,
        path: &str,
        file: &File,
        commit: &Commit,
        state: &State,
        fault: Option<&Fault>,
    ) -> Answer {
        let (repository, id) = (&self.repository, &commit.id);
        let (etag, size) = (file.etag(), file.content.len());
        let (status, location) = if file.is_large {
            let query = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Expires=3600&X-Amz-Signature=secret";
            (302, format!("{}/{repository}/{id}/{}?{query}", state.url(Host::Storage), encode(path)))
        } else {
            (307, format!("/api/resolve-cache/models/{repository}/{id}/{}?etag=%22{etag}%22", encode(path)))
        };
        let mut answer = Answer::new(status, Body::Bytes(b"Found. Redirecting.".to_vec()))
            .with("Location", location)
            .with("Accept-Ranges", "bytes")
            .with("X-Linked-Size", size.to_string())
            .with("X-Repo-Commit", stated_commit(commit, fault));
        if !matches!(fault, Some(Fault::NoEtag)) {
            answer = answer.with("X-Linked-ETag", format!("\"{etag}\"")).with("ETag", format!("\"{etag}\""));
        }
        if let Some(hash) = file.xet_hash() {
            answer = answer.with("X-Xet-Hash", hash);
        }
        answer
    }

    fn payload(&self, host: Host, file: &File, commit: &Commit, fault: Option<&Fault>) -> Answer {
        let (content, mut etag) = (disturbed(&file.content, fault), file.etag());
        if let Some(Fault::Instead(bytes)) = fault {
            etag = Content::from(bytes).sha256();
        }
        let length = content.len();
        let range = self.request.range(length).filter(|_| !matches!(fault, Some(Fault::IgnoreRange)));
        let mut answer = match range {
            None => Answer::new(200, Body::File(content, 0, length)),
            Some(Err(())) => {
                return Answer::new(416, Body::Bytes(Vec::new()))
                    .with("Content-Range", format!("bytes */{length}"));
            }
            Some(Ok((from, until))) => {
                let from = match fault {
                    Some(Fault::OtherRange(before)) => from.saturating_sub(*before),
                    _ => from,
                };
                Answer::new(206, Body::File(content, from, until))
                    .with("Content-Range", format!("bytes {from}-{}/{length}", until - 1))
            }
        };
        answer = answer.with("Accept-Ranges", "bytes").with("Content-Type", "application/octet-stream");
        if host == Host::Hub {
            answer = answer.with("X-Repo-Commit", stated_commit(commit, fault));
        } else {
            // The storage knows the file by a name of its own.
            etag = etag.chars().rev().take(32).collect();
        }
        if matches!(fault, Some(Fault::NoEtag)) { answer } else { answer.with("ETag", format!("\"{etag}\"")) }
    }
}

/// The content that is sent in place of the file's own.
fn disturbed(content: &Content, fault: Option<&Fault>) -> Content {
    let head = |length: u64| {
        let mut bytes = vec![0; length.min(content.len()) as usize];
        content.read(0, &mut bytes);
        bytes
    };
    match fault {
        Some(Fault::Short(bytes)) => head(*bytes).into(),
        Some(Fault::Longer(more)) => {
            let mut bytes = head(content.len());
            bytes.resize((content.len() + more) as usize, b'+');
            bytes.into()
        }
        Some(Fault::Instead(bytes)) => bytes.into(),
        _ => content.clone(),
    }
}

fn stated_commit<'a>(commit: &'a Commit, fault: Option<&'a Fault>) -> &'a str {
    match fault {
        Some(Fault::Commit(other)) => other,
        _ => &commit.id,
    }
}

/// A refusal as the real hub words it: clients go by the headers.
fn refused(status: u16, code: &str, message: &str) -> Answer {
    Answer::new(status, Body::Bytes(json!({"error": message}).to_string().into_bytes()))
        .with("Content-Type", "application/json; charset=utf-8")
        .with("X-Error-Code", code)
        .with("X-Error-Message", message)
}
