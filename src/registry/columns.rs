//! How our types lie in columns.

use std::str::FromStr;

use jiff::Timestamp;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, ValueRef};
use rusqlite::{Row, RowIndex};

use crate::fs::FileStamp;
use crate::ids::{Digest, Revision, SnapshotPath};

fn parsed<T: FromStr<Err = crate::error::Error>>(value: ValueRef<'_>) -> FromSqlResult<T> {
    value.as_str()?.parse().map_err(FromSqlError::other)
}

macro_rules! text_columns {
    ($($type:ty),*) => {$(
        impl FromSql for $type {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                parsed(value)
            }
        }

        impl rusqlite::ToSql for $type {
            fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                Ok(ToSqlOutput::from(self.to_string()))
            }
        }
    )*};
}

text_columns!(Digest, Revision, SnapshotPath);

/// SQLite's integers are signed; nothing we count reaches their end.
pub(super) fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A column that holds a count.
pub(super) fn count(row: &Row<'_>, column: impl RowIndex) -> rusqlite::Result<u64> {
    Ok(optional_count(row, column)?.unwrap_or_default())
}

pub(super) fn optional_count(row: &Row<'_>, column: impl RowIndex) -> rusqlite::Result<Option<u64>> {
    Ok(row.get::<_, Option<i64>>(column)?.map(|value| u64::try_from(value).unwrap_or_default()))
}

/// A column that holds a time.
pub(super) fn time(row: &Row<'_>, column: impl RowIndex) -> rusqlite::Result<Option<Timestamp>> {
    let Some(milliseconds) = row.get::<_, Option<i64>>(column)? else { return Ok(None) };
    Ok(Timestamp::from_millisecond(milliseconds).ok())
}

/// The four columns of a file's identity, if they are there.
pub(super) fn stamp(row: &Row<'_>) -> rusqlite::Result<Option<FileStamp>> {
    let Some(inode) = row.get::<_, Option<i64>>("inode")? else { return Ok(None) };
    Ok(Some(FileStamp {
        // Bits, not amounts: both may use the sign.
        device: row.get::<_, i64>("device")? as u64,
        inode: inode as u64,
        bytes: count(row, "bytes")?,
        modified_ns: row.get("modified_ns")?,
        changed_ns: row.get("changed_ns")?,
    }))
}
