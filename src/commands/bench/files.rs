//! What `--export` and `--plot` write.

use std::path::{Path, absolute};

use super::form;
use crate::cli::bench::BenchArgs;
use crate::context::Context;
use crate::error::{Code, Error, Result};
use crate::fs::write_atomic;
use crate::output::{bench, chart};
use crate::report::bench::BenchReport;

/// As for any file that a user makes.
const MODE: u32 = 0o644;

/// Refuses what could not be written, before anything is measured.
pub fn check(args: &BenchArgs) -> Result<()> {
    let paths = args.export.iter().map(|export| &export.path).chain(&args.plot);
    for path in paths {
        if path.is_dir() {
            return Err(Error::new(Code::InvalidRequest, format!("{} is a folder", path.display()))
                .detail("path", path.display().to_string())
                .hint("give the name of a file"));
        }
        let whole = absolute(path).map_err(|error| Error::io("find", path, error))?;
        if !whole.parent().is_some_and(Path::is_dir) {
            let message = format!("there is no folder for {}", path.display());
            return Err(Error::new(Code::FileNotFound, message)
                .detail("path", path.display().to_string())
                .hint("make the folder first"));
        }
    }
    Ok(())
}

/// Writes them, each as a whole or not at all.
pub fn write(report: &BenchReport, args: &BenchArgs, context: &Context) -> Result<()> {
    let put = |path: &Path, text: &str| {
        let whole = absolute(path).map_err(|error| Error::io("find", path, error))?;
        write_atomic(&whole, text.as_bytes(), MODE)?;
        context.output.detail(format!("written: {}", path.display()));
        Ok::<_, Error>(())
    };
    if let Some(export) = &args.export {
        put(&export.path, &bench::exported(report, form(export.format))?)?;
    }
    if let Some(path) = &args.plot {
        put(path, &chart::svg(report)?)?;
    }
    Ok(())
}
