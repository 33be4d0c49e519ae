//! Models that a command needs and that are not here.

use super::request::{Wanted, of_reference};
use super::{JOBS, Manner, pull};
use crate::commands::resolve::{Resolved, resolve};
use crate::context::Context;
use crate::error::{Code, Error, Result};
use crate::settings::value::AutoPull;

/// Finds the model that is meant, and pulls it if it is not here but names a repository of the hub, as
/// far as the setting `auto_pull` allows; `yes` is an answer given beforehand.
pub fn resolve_or_pull(reference: &str, yes: bool, context: &Context) -> Result<Resolved> {
    let missing = match resolve(reference, context) {
        Err(error) if matches!(error.code(), Code::ModelNotFound | Code::FileNotFound) => error,
        result => return result,
    };
    let Ok(Some(wanted)) = of_reference(reference, context) else { return Err(missing) };
    if context.settings.offline.value {
        return Err(Error::new(
            Code::Offline,
            format!("{reference} is not on this machine, and offline mode is on"),
        )
        .detail("reference", reference)
        .hint("mlx-cache list shows what is here; without MLX_CACHE_OFFLINE it can be pulled"));
    }
    if !may_pull(&wanted, yes, context)? {
        let hint = match context.settings.auto_pull.value {
            AutoPull::Never => format!("fetch it with: mlx-cache pull {reference}"),
            _ => format!("fetch it with: mlx-cache pull {reference}, or give --yes"),
        };
        return Err(missing.hint(hint));
    }
    let endpoint = &context.settings.hf_endpoint.value;
    context.output.note(format!("{} is not on this machine: pulling it from {endpoint}", wanted.name));
    let manner = Manner { token: None, jobs: JOBS, dry_run: false, force: false, events: false };
    pull(&[wanted], &manner, context)?;
    resolve(reference, context)
}

fn may_pull(wanted: &Wanted, yes: bool, context: &Context) -> Result<bool> {
    match context.settings.auto_pull.value {
        AutoPull::Never => return Ok(false),
        AutoPull::Always => return Ok(true),
        AutoPull::Ask if yes => return Ok(true),
        AutoPull::Ask if !context.output.can_ask() => return Ok(false),
        AutoPull::Ask => {}
    }
    let question = format!(
        "{} is not on this machine. Pull it from {}?",
        wanted.name, context.settings.hf_endpoint.value
    );
    context.cancel.while_waiting(|| context.output.confirm(&question))
}
