//! Results of measurements.

use jiff::Timestamp;
use rusqlite::{Row, params};

use super::Registry;
use super::columns::time;
use super::models::wrong;
use crate::error::Result;

/// A kept result. What was measured and where are JSON, in the shape that the report has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Benchmark {
    pub number: i64,
    pub measured_at: Timestamp,
    pub reference: String,
    pub environment: String,
    pub model: String,
    pub results: String,
}

impl Registry {
    /// Keeps a result; returns its number.
    pub fn record_benchmark(
        &mut self,
        measured_at: Timestamp,
        reference: &str,
        environment: &str,
        model: &str,
        results: &str,
    ) -> Result<i64> {
        self.transaction(|transaction| {
            transaction.execute(
                "INSERT INTO benchmarks (measured_at, reference, environment, model, results)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
                params![measured_at.as_millisecond(), reference, environment, model, results],
            )?;
            Ok(transaction.last_insert_rowid())
        })
    }

    /// The results kept of a model, or of all, newest first.
    pub fn benchmarks(&self, reference: Option<&str>) -> Result<Vec<Benchmark>> {
        let read = || {
            self.connection
                .prepare(
                    "SELECT * FROM benchmarks WHERE ?1 IS NULL OR reference = ?1
                     ORDER BY measured_at DESC, id DESC",
                )?
                .query_map([reference], benchmark)?
                .collect::<rusqlite::Result<_>>()
        };
        read().map_err(|error| self.failure("read", error))
    }

    /// The result with this number.
    pub fn benchmark(&self, number: i64) -> Result<Option<Benchmark>> {
        let read = || {
            self.connection
                .prepare("SELECT * FROM benchmarks WHERE id = ?1")?
                .query_map([number], benchmark)?
                .next()
                .transpose()
        };
        read().map_err(|error| self.failure("read", error))
    }
}

fn benchmark(row: &Row<'_>) -> rusqlite::Result<Benchmark> {
    Ok(Benchmark {
        number: row.get("id")?,
        measured_at: time(row, "measured_at")?.ok_or_else(|| wrong("time"))?,
        reference: row.get("reference")?,
        environment: row.get("environment")?,
        model: row.get("model")?,
        results: row.get("results")?,
    })
}
