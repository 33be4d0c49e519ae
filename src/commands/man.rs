//! `man`: the manual's pages, written into a folder.

use std::fs;

use crate::cli::man::{ManArgs, pages};
use crate::error::{Error, Result};
use crate::fs::{plain_path, write_atomic};
use crate::report::man::ManReport;

/// Anybody may read a manual.
const MODE: u32 = 0o644;

pub fn run(args: &ManArgs) -> Result<ManReport> {
    let folder = plain_path(&args.dir).map_err(|error| Error::io("resolve", &args.dir, error))?;
    fs::create_dir_all(&folder).map_err(|error| Error::io("create", &folder, error))?;
    let mut files = Vec::new();
    for page in pages()? {
        write_atomic(&folder.join(&page.file_name), page.text.as_bytes(), MODE)?;
        files.push(page.file_name);
    }
    Ok(ManReport { path: folder.display().to_string(), files })
}
