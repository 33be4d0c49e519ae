//! `path`: where a model lies.

use super::resolve::resolve;
use crate::cli::path::PathArgs;
use crate::context::Context;
use crate::error::{Code, Error, Result};
use crate::report::path::PathReport;

pub fn run(args: &PathArgs, context: &Context) -> Result<PathReport> {
    let resolved = resolve(&args.model, context)?;
    if !resolved.path.exists() {
        return Err(Error::new(
            Code::FileNotFound,
            format!("{} is gone from {}", resolved.reference, resolved.path.display()),
        )
        .hint(format!("add it again, or forget it with: mlx-cache rm {}", resolved.reference)));
    }
    Ok(PathReport { path: resolved.path.display().to_string() })
}
