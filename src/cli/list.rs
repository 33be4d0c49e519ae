//! `mlx-cache list`

use clap::{Args, ValueEnum};

/// List the models that are known
///
///     mlx-cache list --source all --sort size
///     mlx-cache list --kind embedding --format names
///     mlx-cache list --json | jq -r '.data.models[].reference'
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct ListArgs {
    /// Only models from there; those in another tool's cache that were not added are listed with it
    #[arg(long, value_enum)]
    pub source: Option<SourceFilter>,

    /// Only models of this kind
    #[arg(long, value_enum)]
    pub kind: Option<KindFilter>,

    /// Order
    #[arg(long, value_enum, default_value_t)]
    pub sort: SortKey,

    /// The other way round
    #[arg(long)]
    pub reverse: bool,

    /// How to print it
    #[arg(long, value_enum, default_value_t, conflicts_with = "json")]
    pub format: Format,
}

/// Form of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    #[default]
    Table,
    /// Comma-separated values, exact numbers
    Csv,
    /// One name a line
    Names,
}

/// Where a model lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SourceFilter {
    /// The known models and all that other tools have
    All,
    /// Copied or pulled into the store
    Store,
    /// In the Hugging Face cache
    Hf,
    /// Among Ollama's models
    Ollama,
    /// In LM Studio's folder
    Lmstudio,
    /// Adopted in any other folder
    Folder,
}

/// What a model is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum KindFilter {
    /// Answers with text
    Generation,
    /// Turns text into vectors
    Embedding,
    Other,
}

/// By what the list is sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum SortKey {
    #[default]
    Name,
    /// Largest first
    Size,
    /// Last used first
    Used,
    /// Last added first
    Added,
}
