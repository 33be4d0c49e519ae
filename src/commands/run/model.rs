//! Which model runs when none is named.

use crate::commands::resolve::{Resolved, resolve};
use crate::context::Context;
use crate::error::{Code, Error, Result};
use crate::registry::Kind;
use crate::store::Store;

/// The model named; else the default of the settings; else the only one that generates text. `alone`
/// tells that no prompt was given either, so that the one argument may have been meant as it.
pub fn choose(argument: Option<&str>, alone: bool, context: &Context) -> Result<Resolved> {
    if let Some(reference) = argument {
        return resolve(reference, context).map_err(|error| {
            if alone && error.code() == Code::ModelNotFound && reference.contains(char::is_whitespace) {
                return error.hint("the first argument is the model: mlx-cache run MODEL \"PROMPT\"");
            }
            error
        });
    }
    if let Some(reference) = &context.settings.default_model.value {
        return resolve(reference, context)
            .map_err(|error| error.context(format!("the default model {reference}")));
    }
    let mut snapshots = Store::at(&context.settings.home.value).snapshots()?;
    snapshots.retain(|snapshot| snapshot.facts.kind == Kind::Generation);
    let mut names: Vec<String> = snapshots.iter().map(|snapshot| snapshot.name.to_string()).collect();
    names.dedup();
    match (names.as_slice(), snapshots.first()) {
        ([_], Some(snapshot)) => Ok(Resolved::from(snapshot)),
        ([], _) => Err(Error::new(Code::ModelNotFound, "there is no model to run")
            .hint("add one with: mlx-cache add PATH")),
        _ => Err(Error::new(
            Code::ModelNotFound,
            format!("no model is named, and there are several: {}", names.join(", ")),
        )
        .detail("models", names)
        .hint("name one, or choose a default with: mlx-cache config set default_model MODEL")),
    }
}
