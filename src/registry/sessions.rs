//! What was run.

use jiff::Timestamp;
use rusqlite::params;

use super::Registry;
use super::columns::integer;
use crate::error::Result;

/// One use of a model.
#[derive(Debug, Clone, Copy)]
pub struct NewSession<'a> {
    /// The registered snapshot, if it was one.
    pub snapshot: Option<i64>,
    /// What was run, as shown to the user.
    pub reference: &'a str,
    /// The subcommand.
    pub command: &'a str,
    pub started_at: Timestamp,
    pub prompt_tokens: u64,
    pub cached_tokens: u64,
    pub generated_tokens: u64,
    /// Durations in seconds.
    pub load_s: f64,
    pub ttft_s: f64,
    pub total_s: f64,
}

impl Registry {
    /// Writes a session down and when its snapshot was last used.
    pub fn record_session(&mut self, session: &NewSession<'_>) -> Result<()> {
        let started_at = session.started_at.as_millisecond();
        self.transaction(|transaction| {
            transaction.execute(
                "INSERT INTO sessions (reference, command, started_at, prompt_tokens, cached_tokens,
                     generated_tokens, load_s, ttft_s, total_s)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
                params![
                    session.reference,
                    session.command,
                    started_at,
                    integer(session.prompt_tokens),
                    integer(session.cached_tokens),
                    integer(session.generated_tokens),
                    session.load_s,
                    session.ttft_s,
                    session.total_s,
                ],
            )?;
            transaction.execute(
                "UPDATE snapshots SET last_used_at = MAX(COALESCE(last_used_at, 0), ?2) WHERE id = ?1",
                params![session.snapshot, started_at],
            )?;
            Ok(())
        })
    }
}
