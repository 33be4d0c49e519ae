//! What SQLite's errors mean here.

use std::path::Path;

use rusqlite::ErrorCode;
use rustix::process::{Resource, getrlimit};

use super::FILE_NAME;
use crate::error::{Code, Error};

pub(super) const REPAIR_HINT: &str =
    "run `mlx-cache doctor --fix`: it keeps the old file and makes a new registry from the store";

/// A failed statement on the registry of the store in `home`: "cannot {action} the registry {path}".
pub(super) fn of(action: &str, home: &Path, error: rusqlite::Error) -> Error {
    let path = home.join(FILE_NAME);
    let (code, hint) = classify(&error);
    let reason = match &error {
        rusqlite::Error::SqliteFailure(inner, None) => inner.to_string(),
        rusqlite::Error::SqliteFailure(_, Some(text)) => text.clone(),
        other => other.to_string(),
    };
    let message = format!("cannot {action} the registry {}: {reason}", path.display());
    Error::new(code, message).detail("path", path.display().to_string()).hint(hint).with_source(error)
}

fn classify(error: &rusqlite::Error) -> (Code, &'static str) {
    use rusqlite::Error as E;
    const DISK: &str = "free some disk space and try again";
    const ACCESS: &str =
        "check the permissions of the store and its folders, or choose another with MLX_CACHE_HOME";
    match error {
        E::SqliteFailure(inner, _) => match inner.code {
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => {
                (Code::Locked, "wait until the other mlx-cache is done, then try again")
            }
            ErrorCode::DiskFull => (Code::InsufficientDisk, DISK),
            // SQLite hides why a write failed; past a limit of file sizes it always does.
            ErrorCode::SystemIoFailure if getrlimit(Resource::Fsize).current.is_some() => {
                (Code::InsufficientDisk, "raise the limit of file sizes (`ulimit -f`) and try again")
            }
            ErrorCode::SystemIoFailure
            | ErrorCode::ReadOnly
            | ErrorCode::PermissionDenied
            | ErrorCode::CannotOpen => (Code::IoError, ACCESS),
            // A statement that does not fit the tables: they are not those of this schema.
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown => {
                (Code::IntegrityFailed, REPAIR_HINT)
            }
            _ => (Code::Internal, "please report it with the command you ran"),
        },
        E::FromSqlConversionFailure(..)
        | E::InvalidColumnType(..)
        | E::IntegralValueOutOfRange(..)
        | E::Utf8Error(..) => (Code::IntegrityFailed, REPAIR_HINT),
        _ => (Code::Internal, "please report it with the command you ran"),
    }
}
