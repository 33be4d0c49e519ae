//! `mlx-cache recommend`

use clap::{Args, ValueEnum};

/// Show what this machine has, and well-known models that fit it
///
/// A model fits if it takes at most 70 % of the free memory with a context of 4096 tokens and, where the CPU
/// computes, if it is small enough to answer faster than one reads. Sizes are about right: nothing is asked on
/// the network:
///
///     mlx-cache recommend
///     mlx-cache recommend --use code
///     mlx-cache recommend --json | jq -r '.data.models[].reference'
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct RecommendArgs {
    /// Only models for this
    #[arg(long = "use", value_enum, value_name = "USE")]
    pub purpose: Option<Purpose>,

    /// Also models that do not fit this machine
    #[arg(long)]
    pub all: bool,
}

/// What a model is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Purpose {
    /// Small models that load and answer at once
    Quick,
    /// Conversation and general questions
    Chat,
    /// Programming
    Code,
    /// Vectors of texts, for `embed`
    Embed,
}
