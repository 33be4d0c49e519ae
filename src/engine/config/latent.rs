//! Latent attention: what configurations say about it.

use std::path::Path;

use crate::engine::config::fields::Fields;
use crate::engine::config::limits::{MAX_HEAD_DIM, MAX_HIDDEN, within};
use crate::engine::format::file::damaged;
use crate::error::Result;

/// Sizes of latent attention (DeepSeek-V2, arXiv:2405.04434): the keys and values of all heads are made of
/// one latent of each token, which is all that is remembered of it beside one rotated key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Latent {
    /// Elements that queries are squeezed into on their way; `None`: they are not.
    pub query_rank: Option<usize>,
    /// Elements of the latent.
    pub rank: usize,
    /// Elements of a head's query that are rotated, and of the key beside the latent.
    pub rotated: usize,
    /// Elements of a head's query that are not, and of what the latent says a head's key to be.
    pub plain: usize,
    /// Elements of a head's value.
    pub value: usize,
}

impl Latent {
    /// Reads DeepSeek's fields, with these defaults.
    pub(super) fn read(fields: &Fields, defaults: &Self) -> Result<Self> {
        let size =
            |name: &str, default: usize| -> Result<usize> { Ok(fields.number(name)?.unwrap_or(default)) };
        Ok(Self {
            query_rank: match fields.number("q_lora_rank")? {
                None if !fields.has("q_lora_rank") => defaults.query_rank,
                rank => rank,
            },
            rank: size("kv_lora_rank", defaults.rank)?,
            rotated: size("qk_rope_head_dim", defaults.rotated)?,
            plain: size("qk_nope_head_dim", defaults.plain)?,
            value: size("v_head_dim", defaults.value)?,
        })
    }

    /// Elements of what is remembered of a token, and of what a query becomes to be compared with it.
    pub fn key_dim(&self) -> usize {
        self.rotated.saturating_add(self.rank)
    }

    /// Elements of a head's query.
    pub fn query_dim(&self) -> usize {
        self.plain.saturating_add(self.rotated)
    }

    /// Elements of a head's key and value that are made of the latent.
    pub fn made(&self) -> usize {
        self.plain + self.value
    }

    /// INTEGRITY_FAILED for sizes that no model has; `rotated` are the elements that the rope turns.
    pub(super) fn check(&self, rotated: usize, path: &Path) -> Result<()> {
        within(
            path,
            &[
                ("rank of queries", self.query_rank.unwrap_or(1), MAX_HIDDEN),
                ("rank of keys and values", self.rank, MAX_HEAD_DIM),
                ("dimension of rotated keys", self.rotated, MAX_HEAD_DIM),
                ("dimension of other keys", self.plain, MAX_HEAD_DIM),
                ("dimension of values", self.value, MAX_HEAD_DIM),
            ],
        )?;
        if rotated != self.rotated {
            return Err(damaged(path, &format!("rotates {rotated} of {} dimensions of a key", self.rotated)));
        }
        Ok(())
    }
}
