//! `mlx-cache completions`, and the answers to shells that complete.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::sync::Arc;

use clap::{Args, CommandFactory, ValueEnum};
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate, PathCompleter, ValueCompleter};
use clap_complete::env::{CompleteEnv, Shells};

use super::Cli;
use crate::error::{Error, Result};

/// The variable by which a shell asks this program for completions instead of running it.
const VARIABLE: &str = "MLX_CACHE_COMPLETE";

/// Print a shell's script that completes commands and models
///
/// Load it at the shell's start:
///
///     bash         source <(mlx-cache completions bash)
///     zsh          source <(mlx-cache completions zsh)
///     fish         mlx-cache completions fish | source
///     elvish       eval (mlx-cache completions elvish | slurp)
///     PowerShell   mlx-cache completions powershell | Out-String | Invoke-Expression
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Shells that can complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    Bash,
    Zsh,
    Fish,
    Elvish,
    #[value(name = "powershell", alias = "pwsh")]
    PowerShell,
}

impl Shell {
    pub const ALL: [Self; 5] = [Self::Bash, Self::Zsh, Self::Fish, Self::Elvish, Self::PowerShell];

    pub fn name(self) -> &'static str {
        match self {
            Self::Bash => "bash",
            Self::Zsh => "zsh",
            Self::Fish => "fish",
            Self::Elvish => "elvish",
            Self::PowerShell => "powershell",
        }
    }

    /// The name under which the shell's packages expect the script.
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Bash => "mlx-cache.bash",
            Self::Zsh => "_mlx-cache",
            Self::Fish => "mlx-cache.fish",
            Self::Elvish => "mlx-cache.elv",
            Self::PowerShell => "_mlx-cache.ps1",
        }
    }
}

/// The script for a shell. It asks the `mlx-cache` on the PATH, so it fits every version.
pub fn script(shell: Shell) -> Result<String> {
    let name = Cli::command().get_name().to_owned();
    let mut script = Vec::new();
    Shells::builtins()
        .completer(shell.name())
        .ok_or_else(|| io::Error::other("unknown shell"))
        .and_then(|completer| completer.write_registration(VARIABLE, &name, &name, &name, &mut script))
        .and_then(|()| String::from_utf8(script).map_err(io::Error::other))
        .map_err(|error| Error::internal(format!("no completions for {}: {error}", shell.name())))
        .map(|script| if shell == Shell::Zsh { autoloadable(&script) } else { script })
}

/// The script for zsh so that it also works as a file in a folder of `fpath`: there the file is the body of
/// the function that completes, and as it comes it would only register another one, which the first press of
/// the key would not see.
fn autoloadable(script: &str) -> String {
    const REGISTER: &str = "compdef _clap_dynamic_completer_mlx_cache mlx-cache";
    script.replace(
        REGISTER,
        &format!(
            "if [[ $funcstack[1] == _mlx-cache ]]; then\n    _clap_dynamic_completer_mlx_cache \"$@\"\nelse\n    \
             {REGISTER}\nfi"
        ),
    )
}

/// Answers a shell that asks for completions, on stdout; whether it was one. `models` gives the names
/// of models that can be completed.
pub fn answer(args: &[OsString], models: fn() -> Vec<String>) -> bool {
    let completer = ModelCompleter { models };
    let here = std::env::current_dir().ok();
    CompleteEnv::with_factory(|| with_model_names(&completer))
        .var(VARIABLE)
        .try_complete(args, here.as_deref())
        // A shell shows nothing better than nothing.
        .unwrap_or(true)
}

/// The command line, its arguments that are models completed by name.
fn with_model_names(completer: &ModelCompleter) -> clap::Command {
    let completer = Arc::new(completer.clone());
    Cli::command().mut_subcommands(|subcommand| {
        subcommand.mut_args(|argument| {
            if matches!(argument.get_id().as_str(), "model" | "models") {
                let completer = Arc::clone(&completer);
                return argument
                    .add(ArgValueCompleter::new(move |current: &OsStr| completer.complete(current)));
            }
            argument
        })
    })
}

/// Names of models, and paths once a path is begun.
#[derive(Clone)]
struct ModelCompleter {
    models: fn() -> Vec<String>,
}

impl ModelCompleter {
    fn complete(&self, current: &OsStr) -> Vec<CompletionCandidate> {
        let begun = current.to_string_lossy();
        if begun.starts_with(['.', '/', '~']) {
            return PathCompleter::any().complete(current);
        }
        let mut candidates: Vec<_> = (self.models)()
            .into_iter()
            .filter(|name| name.to_lowercase().starts_with(&begun.to_lowercase()))
            .map(CompletionCandidate::new)
            .collect();
        if !begun.is_empty() && Path::new(current).parent().is_some_and(Path::is_dir) {
            candidates.extend(PathCompleter::any().complete(current));
        }
        candidates
    }
}
