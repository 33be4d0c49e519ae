//! Layers in which tokens learn of those before them through a state of fixed size, not by attention.

use std::path::Path;

use crate::engine::cache::StateShape;
use crate::engine::config::limits::{MAX_HEAD_DIM, MAX_HEADS};
use crate::engine::format::file::damaged;
use crate::error::Result;

/// Most tokens that a convolution looks at.
const MAX_WIDTH: usize = 256;

/// What the recurrent layers of a model compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recurrent {
    Delta(Delta),
}

/// Sizes of the gated delta rule (arXiv:2412.06464) behind a short convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delta {
    /// Heads of queries and keys.
    pub key_heads: usize,
    /// Heads of values, a multiple: so many each share a query and a key.
    pub value_heads: usize,
    /// Elements of a query and of a key.
    pub key_dim: usize,
    /// Elements of a value.
    pub value_dim: usize,
    /// Tokens that the convolution looks at, the present one included.
    pub width: usize,
}

impl Recurrent {
    /// What a layer remembers.
    pub fn state(&self) -> Vec<StateShape> {
        match self {
            Self::Delta(delta) => vec![
                StateShape { name: "conv", shape: vec![delta.width - 1, delta.channels()] },
                StateShape { name: "state", shape: vec![delta.value_heads, delta.key_dim, delta.value_dim] },
            ],
        }
    }

    /// INTEGRITY_FAILED for sizes that no model has.
    pub fn check(&self, path: &Path) -> Result<()> {
        match self {
            Self::Delta(delta) => delta.check(path),
        }
    }
}

impl Delta {
    /// Elements of a token's queries, or keys.
    pub fn keys(&self) -> usize {
        self.key_heads * self.key_dim
    }

    /// Elements of a token's values.
    pub fn values(&self) -> usize {
        self.value_heads * self.value_dim
    }

    /// What the convolution runs over: queries, keys and values side by side.
    pub fn channels(&self) -> usize {
        2 * self.keys() + self.values()
    }

    fn check(&self, path: &Path) -> Result<()> {
        within(
            path,
            &[
                ("number of linear key heads", self.key_heads, MAX_HEADS),
                ("number of linear value heads", self.value_heads, MAX_HEADS),
                ("dimension of linear keys", self.key_dim, MAX_HEAD_DIM),
                ("dimension of linear values", self.value_dim, MAX_HEAD_DIM),
            ],
        )?;
        width(path, self.width)?;
        if !self.value_heads.is_multiple_of(self.key_heads) {
            return Err(damaged(
                path,
                &format!(
                    "has {} linear value heads for {} linear key heads",
                    self.value_heads, self.key_heads
                ),
            ));
        }
        Ok(())
    }
}

fn within(path: &Path, sizes: &[(&str, usize, usize)]) -> Result<()> {
    for &(what, value, most) in sizes {
        if value == 0 || value > most {
            return Err(damaged(path, &format!("has the impossible {what} {value}")));
        }
    }
    Ok(())
}

fn width(path: &Path, width: usize) -> Result<()> {
    if !(2..=MAX_WIDTH).contains(&width) {
        return Err(damaged(path, &format!("has the impossible width of a convolution {width}")));
    }
    Ok(())
}
