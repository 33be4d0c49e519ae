//! `mlx-cache rm`

use clap::Args;

/// Remove models: forget adopted ones, delete copied ones
///
/// What is done is shown first. The files of an adopted model are never touched; those of a copied one
/// are deleted as far as no other model uses them.
///
///     mlx-cache rm org/name --dry-run
///     mlx-cache rm org/name --yes
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct RmArgs {
    /// Names, or parts of names that are unambiguous
    #[arg(required = true)]
    pub model: Vec<String>,

    /// Where other tools' files are links to the content, give them files of their own first
    #[arg(long)]
    pub restore_links: bool,

    /// Only show what would be done
    #[arg(long)]
    pub dry_run: bool,

    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
}
