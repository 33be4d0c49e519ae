//! What is to be pulled: from what a person wrote to a repository and a choice of its files.

use crate::cli::pull::PullArgs;
use crate::commands::aliases;
use crate::context::Context;
use crate::error::{Code, Error, Result};
use crate::ids::{FileChoice, Host, ModelName, ModelRef, RevisionSpec};

/// A repository, and what is wanted of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub name: ModelName,
    /// `main` if there is none.
    pub revision: Option<RevisionSpec>,
    pub choice: Choice,
}

/// Which files of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Choice {
    /// One GGUF.
    pub file: Option<FileChoice>,
    pub include: Vec<String>,
    pub exclude: Vec<String>,
    pub all: bool,
}

impl Choice {
    /// A text that two choices share only if they choose the same files of a list.
    pub fn key(&self) -> String {
        let file = self.file.as_ref().map(|file| match file {
            FileChoice::Quantization(tag) => tag.to_ascii_lowercase(),
            FileChoice::Path(path) => path.to_string(),
        });
        let mut key = match (self.all, file) {
            (true, _) => "all".to_owned(),
            (false, Some(file)) => format!("file {file}"),
            (false, None) if self.include.is_empty() => "needed".to_owned(),
            (false, None) => String::new(),
        };
        for (word, globs) in [("include", &self.include), ("exclude", &self.exclude)] {
            for glob in globs {
                key = format!("{key}\n{word} {glob}");
            }
        }
        key
    }
}

/// What a reference means at the hub; nothing if it does not name a repository there.
pub fn of_reference(reference: &str, context: &Context) -> Result<Option<Wanted>> {
    let parsed: ModelRef = reference.parse()?;
    Ok(match parsed {
        ModelRef::Named { name, revision, file } if name.host() == Host::HuggingFace => {
            Some(Wanted { name, revision, choice: Choice { file, ..Choice::default() } })
        }
        ModelRef::Short { text, revision, file } => {
            let own = context.settings.aliases.get(&text).map(String::as_str);
            let Some(target) = own.or_else(|| aliases::repository(&text)) else { return Ok(None) };
            match target.parse()? {
                ModelRef::Named { name, revision: known_revision, file: known_file }
                    if name.host() == Host::HuggingFace =>
                {
                    let file = file.or(known_file);
                    let choice = Choice { file, ..Choice::default() };
                    Some(Wanted { name, revision: revision.or(known_revision), choice })
                }
                _ => None,
            }
        }
        ModelRef::Named { .. } | ModelRef::Path(_) => None,
    })
}

/// What the arguments of `pull` mean.
pub fn of_arguments(args: &PullArgs, context: &Context) -> Result<Vec<Wanted>> {
    let of_one = |reference: &String| {
        let mut wanted = of_reference(reference, context)?.ok_or_else(|| not_at_the_hub(reference))?;
        match (&wanted.revision, &args.revision) {
            (Some(own), Some(flag)) if own != flag => {
                return Err(Error::new(
                    Code::InvalidRequest,
                    format!("{reference} names the revision {}, --revision another one", own.as_str()),
                )
                .hint("name one revision"));
            }
            (None, Some(flag)) => wanted.revision = Some(flag.clone()),
            _ => {}
        }
        wanted.choice.include.clone_from(&args.include);
        wanted.choice.exclude.clone_from(&args.exclude);
        wanted.choice.all = args.all_files;
        Ok(wanted)
    };
    args.model.iter().map(of_one).collect()
}

fn not_at_the_hub(reference: &str) -> Error {
    let (code, hint) = match reference.parse() {
        Ok(ModelRef::Short { .. }) => {
            (Code::ModelNotFound, "write it as org/name, for example HuggingFaceTB/SmolLM2-135M-Instruct")
        }
        _ => (
            Code::InvalidRequest,
            "pull fetches org/name from the hub; models on this machine are for `mlx-cache add`",
        ),
    };
    Error::new(code, format!("'{}' names no repository of the hub", reference.escape_debug()))
        .detail("reference", reference)
        .hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_choices_have_different_keys() {
        let globs = |list: &[&str]| list.iter().map(|glob| (*glob).to_owned()).collect::<Vec<_>>();
        let choices = [
            Choice::default(),
            Choice { all: true, ..Choice::default() },
            Choice { file: Some("Q4_0".parse().expect("a tag")), ..Choice::default() },
            Choice { file: Some("a.gguf".parse().expect("a file")), ..Choice::default() },
            Choice { include: globs(&["*"]), ..Choice::default() },
            Choice { exclude: globs(&["*"]), ..Choice::default() },
            Choice { include: globs(&["a", "b"]), ..Choice::default() },
            Choice { include: globs(&["a"]), exclude: globs(&["b"]), ..Choice::default() },
        ];
        let keys: std::collections::BTreeSet<_> = choices.iter().map(Choice::key).collect();
        assert_eq!(keys.len(), choices.len());
        let lower = Choice { file: Some("q4_0".parse().expect("a tag")), ..Choice::default() };
        assert_eq!(lower.key(), choices[2].key());
    }
}
