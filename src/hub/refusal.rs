//! What an answer without content means.

use std::time::SystemTime;

use reqwest::Response;

use super::address;
use super::client::{Client, Trouble};
use super::patience::{retry_after, unavailable};
use crate::error::{Code, Error};
use crate::ids::{ModelName, SnapshotPath};

/// What was asked for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Asked<'a> {
    Revision(&'a str),
    File(&'a SnapshotPath),
}

impl Client {
    /// The trouble that a status other than success is. The hub tells apart what is missing and what is
    /// forbidden by the header `X-Error-Code` (`huggingface_hub.utils.hf_raise_for_status`).
    pub(super) fn refusal(&self, response: &Response, model: &ModelName, asked: Asked<'_>) -> Trouble {
        let status = response.status().as_u16();
        let code = response.headers().get("x-error-code").and_then(|code| code.to_str().ok());
        let server = address::shown(response.url());
        let pause = retry_after(response.headers(), SystemTime::now());
        match (status, code) {
            (_, Some("GatedRepo")) => self.gated(model).into(),
            // Strangers are not told whether a private model exists.
            (401, Some("RepoNotFound")) if !self.has_token() => missing_or_private(model).into(),
            (401 | 403, _) => self.denied(model, status).into(),
            (404, Some("RevisionNotFound")) => no_revision(model, asked).into(),
            (404, Some("EntryNotFound")) => no_file(model, asked).into(),
            (404, Some("RepoNotFound")) => missing_or_private(model).into(),
            (404, _) => match asked {
                Asked::Revision(_) => no_revision(model, asked).into(),
                Asked::File(_) => no_file(model, asked).into(),
            },
            (429, _) => Trouble::Passing(
                Error::new(Code::QuotaExceeded, format!("{server} asks to slow down"))
                    .detail("status", status)
                    .hint("try again later, or give a token: the hub allows its users more than strangers"),
                pause,
            ),
            (416, _) => Trouble::Mismatch(
                Error::new(Code::IntegrityFailed, format!("{server} has less of {model} than it says"))
                    .detail("status", status),
            ),
            (408 | 500..=599, _) => Trouble::Passing(unavailable(&server, status), pause),
            _ => unavailable(&server, status).into(),
        }
    }

    fn gated(&self, model: &ModelName) -> Error {
        let page = self.page(model);
        let hint = if self.has_token() {
            format!("accept its terms at {page} with the account of your token, then try again")
        } else {
            format!("accept its terms at {page}, then log in with `hf auth login` or set HF_TOKEN")
        };
        denied(format!("{model} is gated: its owners want to know who uses it"), &page).hint(hint)
    }

    fn denied(&self, model: &ModelName, status: u16) -> Error {
        let page = self.page(model);
        let hint = if self.has_token() {
            format!("check at {page} that the account of your token may read it, and that the token is valid")
        } else {
            format!("log in with `hf auth login` or set HF_TOKEN, and look at {page} for terms to accept")
        };
        denied(format!("the hub refuses access to {model}"), &page).detail("status", status).hint(hint)
    }

    /// Where people see the model and accept its terms.
    fn page(&self, model: &ModelName) -> String {
        let hub = self.hub();
        format!("{}{}/{model}", address::shown(hub), hub.path().trim_end_matches('/'))
    }
}

fn denied(message: String, page: &str) -> Error {
    Error::new(Code::AccessDenied, message).detail("page", page)
}

fn missing_or_private(model: &ModelName) -> Error {
    Error::new(Code::ModelNotFound, format!("the hub has no model {model}, or it is private"))
        .detail("reference", model.to_string())
        .hint("check the name; for a private model log in with `hf auth login` or set HF_TOKEN")
}

fn no_revision(model: &ModelName, asked: Asked<'_>) -> Error {
    let message = match asked {
        Asked::Revision("main") => format!("the hub has no model {model}"),
        Asked::Revision(revision) => format!("{model} has no revision '{}'", revision.escape_debug()),
        Asked::File(_) => format!("the revision of {model} is gone from the hub"),
    };
    Error::new(Code::ModelNotFound, message)
        .detail("reference", model.to_string())
        .hint("check the name and the revision")
}

fn no_file(model: &ModelName, asked: Asked<'_>) -> Error {
    let message = match asked {
        Asked::File(path) => format!("the hub lists {path} in {model} but does not have it"),
        Asked::Revision(_) => format!("the hub has no list of the files of {model}"),
    };
    Error::new(Code::FileNotFound, message)
        .detail("reference", model.to_string())
        .hint("try again later, or leave the file out with --exclude")
}
