//! `mlx-cache link`

use clap::{Args, ValueHint};

/// Show a model of the store to another tool, by links
///
/// The tool then lists and loads the model as if it had fetched it. Nothing that is there already is
/// replaced; what would be made is shown first. --undo takes the links away again:
///
///     mlx-cache link org/name --to hf
///     mlx-cache link org/name:Q4_K_M --to ollama --yes
///     mlx-cache link org/name --to ~/models
///     mlx-cache link org/name --to hf --undo
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct LinkArgs {
    /// A name, or a part of one that is unambiguous
    pub model: String,

    /// hf, lmstudio, ollama, or a folder, in which the model gets a folder of its own
    #[arg(long, value_name = "TOOL|DIR", value_hint = ValueHint::DirPath)]
    pub to: String,

    /// Take the links of this model away again
    #[arg(long)]
    pub undo: bool,

    /// Only show what would be done
    #[arg(long)]
    pub dry_run: bool,

    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
}
