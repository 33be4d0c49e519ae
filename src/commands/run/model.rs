//! Which model runs: the one that is named, the default one, or the only one there is.

use std::collections::BTreeSet;
use std::path::Path;

use crate::commands::pull::auto::resolve_or_pull;
use crate::commands::resolve::{Resolved, resolve};
use crate::context::Context;
use crate::error::{Code, Error, Result};
use crate::registry::{Kind, Registry};

/// The model for `run MODEL`; `alone` tells that no prompt follows it, `yes` that it may be pulled.
pub fn choose(argument: Option<&str>, alone: bool, yes: bool, context: &Context) -> Result<Resolved> {
    match (argument, context.settings.default_model.value.as_deref()) {
        (Some(text), _) if alone && is_prose(text) => Err(prompt_first(text)),
        (Some(reference), _) => resolve_or_pull(reference, yes, context),
        (None, Some(default)) => {
            resolve_or_pull(default, yes, context).map_err(|error| error.context("the default model"))
        }
        (None, None) => resolve(&only_model(&context.settings.home.value)?, context),
    }
}

/// Whether the text is a prompt in the place of a model: no model's name has blanks, some paths do.
fn is_prose(text: &str) -> bool {
    text.trim().contains(char::is_whitespace) && !Path::new(text).exists()
}

fn prompt_first(text: &str) -> Error {
    let begin: String = text.chars().take(40).collect();
    Error::new(Code::ModelNotFound, format!("no model is called '{}'", begin.escape_debug()))
        .hint("the first argument is the model: mlx-cache run MODEL \"PROMPT\"; without a model, pipe the prompt in")
}

/// The name of the only model in the store that generates text.
fn only_model(home: &Path) -> Result<String> {
    let snapshots = Registry::open(home)?.map_or(Ok(Vec::new()), |registry| registry.snapshots())?;
    // Revisions of one model count once: its name stands for the newest.
    let names: BTreeSet<String> = snapshots
        .iter()
        .filter(|snapshot| snapshot.facts.kind == Kind::Generation)
        .map(|snapshot| snapshot.name.to_string())
        .collect();
    let names: Vec<_> = names.into_iter().collect();
    match names.as_slice() {
        [] => Err(Error::new(
            Code::ModelNotFound,
            "no model is named, and the store holds none that generates text",
        )
        .hint("name a model's folder or .gguf file, or register one with: mlx-cache add PATH")),
        [only] => Ok(only.clone()),
        several => Err(Error::new(
            Code::ModelNotFound,
            format!("no model is named, and there are several: {}", several.join(", ")),
        )
        .hint("name one, or make it the default with: mlx-cache config set default_model NAME")
        .detail("models", several.to_vec())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_in_the_place_of_the_model_is_seen() {
        assert!(is_prose("What is this?"));
        assert!(!is_prose("org/name") && !is_prose(" smollm2\n"));
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("my models");
        std::fs::create_dir(&path).expect("a folder");
        assert!(!is_prose(path.to_str().expect("UTF-8")));
    }
}
