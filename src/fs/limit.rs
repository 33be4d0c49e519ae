//! Limits that the system sets.

use std::sync::Arc;

use signal_hook::consts::SIGXFSZ;

use crate::error::{Error, Result};

/// Makes a write past the limit of file sizes (`ulimit -f`) fail as one to a full disk does; without
/// this the system ends the process in the middle of its work.
pub fn file_size_limit_is_an_error() -> Result<()> {
    // A signal that has a handler is no longer deadly; nobody reads the flag.
    match signal_hook::flag::register(SIGXFSZ, Arc::default()) {
        Ok(_) => Ok(()),
        Err(error) => Err(Error::internal(format!("cannot listen to signals: {error}"))),
    }
}
