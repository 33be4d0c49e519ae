//! Records of foreign caches: small files that are read whole, and that anybody may have written.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

/// The content of a regular file of at most `limit` bytes. A link is an error, whatever it leads to.
pub(super) fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    if metadata.len() > limit {
        return Err(io::Error::other(format!("it is longer than {limit} bytes")));
    }
    let mut content = Vec::with_capacity(metadata.len() as usize);
    // It may grow while it is read.
    file.take(limit).read_to_end(&mut content)?;
    Ok(content)
}
