//! `mlx-cache add`

use std::path::PathBuf;

use clap::{Args, ValueHint};

/// Make a model on this machine known, without copying it
///
/// PATH is a folder with safetensors and config.json, or a .gguf file. Its headers are checked and its
/// files hashed; they stay where they are. With --copy they are copied into the store (cloned where the
/// filesystem can), and the original is no longer needed:
///
///     mlx-cache add ~/models/SmolLM2-135M-Instruct
///     mlx-cache add ./llama-3.2-1b.Q4_0.gguf --copy --name meta/llama-3.2-1b
///
/// PATH may also be a model of another tool by its full name, or hf, ollama or lmstudio: all models that
/// the tool has, which then run from where they lie (a folder of such a name is written ./ollama):
///
///     mlx-cache add ollama
///     mlx-cache add ollama:smollm2:135m
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct AddArgs {
    /// Folder or .gguf file of a model, a name such as ollama:NAME, or hf, ollama or lmstudio
    #[arg(required = true, value_hint = ValueHint::AnyPath)]
    pub path: Vec<PathBuf>,

    /// Copy the files into the store
    #[arg(long)]
    pub copy: bool,

    /// Name of the model, as org/name [default: from the path]
    #[arg(long, value_name = "ORG/NAME")]
    pub name: Option<String>,
}
