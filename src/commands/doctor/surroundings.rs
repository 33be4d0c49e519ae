//! Settings, other tools' caches, and the hub.

use crate::hub;
use crate::output::progress::Unit;
use crate::output::units;
use crate::settings::value::Origin;

use super::{Cache, Subject, Verdict};

pub(super) fn settings(subject: &Subject<'_>) -> Verdict {
    let settings = &subject.context.settings;
    match &subject.context.problem {
        Some(problem) => Verdict::fail(
            problem.message(),
            problem.hint_text().unwrap_or("correct the value, or unset the variable"),
        ),
        None if settings.config_file().exists() => {
            Verdict::ok(format!("{} is sound", settings.config_file().display()))
        }
        None => Verdict::ok("no config.toml; the environment and the defaults hold"),
    }
}

pub(super) fn caches(subject: &Subject<'_>) -> Verdict {
    let mut found = Vec::new();
    let mut unreadable = false;
    for Cache { source, scan } in subject.caches() {
        let Some(scan) = scan else {
            unreadable = true;
            continue;
        };
        let survey = scan.survey();
        unreadable |= survey.unreadable > 0;
        let owner = if source.is_own() { "" } else { ", another user's" };
        let models = if survey.models == 1 { "model" } else { "models" };
        found.push(format!(
            "{} with {} {models} and {} at {}{owner}",
            source.name(),
            survey.models,
            units::bytes(survey.bytes),
            source.root().display()
        ));
    }
    if found.is_empty() {
        return Verdict::ok("no other tool's cache is found");
    }
    let detail = found.join("; ");
    if unreadable {
        return Verdict::warn(
            format!("{detail}; not all of it can be read"),
            "check the permissions of the folders",
        );
    }
    Verdict::ok(detail)
}

/// Whether there is a token, never which.
pub(super) fn token(subject: &Subject<'_>) -> Verdict {
    let token = &subject.context.settings.hf_token;
    let place = match token.origin {
        Origin::Environment(variable) => variable.name,
        Origin::File | Origin::Default => "Hugging Face's token file",
    };
    match &token.value {
        None => Verdict::ok("none; only public models can be fetched"),
        Some(token) if token.is_well_formed() => Verdict::ok(format!("present, from {place}")),
        Some(_) => Verdict::warn(
            format!("the one from {place} holds characters that no token has"),
            "write it anew with `hf auth login`",
        ),
    }
}

pub(super) fn hub(subject: &Subject<'_>) -> Verdict {
    let context = subject.context;
    let endpoint = &context.settings.hf_endpoint.value;
    if context.settings.offline.value {
        return Verdict::ok(format!("{endpoint} is not asked: offline mode is on"));
    }
    let _progress = context.output.progress(&format!("asking {endpoint}"), None, Unit::Items);
    match context.cancel.while_waiting(|| hub::reach(endpoint)) {
        Ok(reached) => Verdict::ok(format!("{endpoint} answers in {:.1} s", reached.seconds)),
        // What is in the store works without it.
        Err(error) => Verdict::warn(error.message(), error.hint_text().unwrap_or("try again later")),
    }
}
