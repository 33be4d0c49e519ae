//! Layers in which tokens learn of those before them through a state of fixed size, not by attention.

use std::path::Path;

use crate::engine::cache::StateShape;
use crate::engine::config::limits::{MAX_HEAD_DIM, MAX_HEADS, within};
use crate::engine::format::file::damaged;
use crate::error::Result;

/// Most tokens that a convolution looks at.
const MAX_WIDTH: usize = 256;

/// What the recurrent layers of a model compute.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Recurrent {
    Delta(Delta),
    ShortConv(ShortConv),
    Mamba(Mamba),
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

/// Sizes of a gated short convolution over the hidden states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShortConv {
    pub channels: usize,
    /// Tokens that the convolution looks at, the present one included.
    pub width: usize,
    /// Whether the convolution and the matrices around it have biases.
    pub bias: bool,
}

/// Sizes of Mamba 2's state space (arXiv:2405.21060) behind a short convolution.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mamba {
    pub heads: usize,
    /// Elements of a value.
    pub head_dim: usize,
    /// Queries and keys ("C" and "B"), each of which so many heads share.
    pub groups: usize,
    /// Elements of a query and of a key.
    pub state_dim: usize,
    /// Tokens that the convolution looks at, the present one included.
    pub width: usize,
    /// Whether the matrices have biases ...
    pub bias: bool,
    /// ... and the convolution.
    pub conv_bias: bool,
    /// Least and most time that a token lasts.
    pub time_limit: [f32; 2],
}

impl Recurrent {
    /// What a layer remembers.
    pub fn state(&self) -> Vec<StateShape> {
        match self {
            Self::Delta(delta) => vec![
                StateShape { name: "conv", shape: vec![delta.width - 1, delta.channels()] },
                StateShape { name: "state", shape: vec![delta.value_heads, delta.key_dim, delta.value_dim] },
            ],
            Self::Mamba(mamba) => vec![
                StateShape { name: "conv", shape: vec![mamba.width - 1, mamba.channels()] },
                StateShape { name: "state", shape: vec![mamba.heads, mamba.state_dim, mamba.head_dim] },
            ],
            Self::ShortConv(conv) => {
                vec![StateShape { name: "conv", shape: vec![conv.width - 1, conv.channels] }]
            }
        }
    }

    /// INTEGRITY_FAILED for sizes that no model has.
    pub fn check(&self, path: &Path) -> Result<()> {
        match self {
            Self::Delta(delta) => delta.check(path),
            Self::ShortConv(conv) => width(path, conv.width),
            Self::Mamba(mamba) => mamba.check(path),
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

impl Mamba {
    /// Elements of a token's values.
    pub fn values(&self) -> usize {
        self.heads * self.head_dim
    }

    /// What the convolution runs over: values, keys and queries side by side.
    pub fn channels(&self) -> usize {
        self.values() + 2 * self.groups * self.state_dim
    }

    fn check(&self, path: &Path) -> Result<()> {
        within(
            path,
            &[
                ("number of state space heads", self.heads, MAX_HEADS),
                ("dimension of state space heads", self.head_dim, MAX_HEAD_DIM),
                ("number of state space groups", self.groups, MAX_HEADS),
                ("state size", self.state_dim, MAX_HEAD_DIM),
            ],
        )?;
        width(path, self.width)?;
        if !self.heads.is_multiple_of(self.groups) {
            return Err(damaged(
                path,
                &format!("has {} state space heads for {} groups", self.heads, self.groups),
            ));
        }
        let [least, most] = self.time_limit;
        if least.is_nan() || most.is_nan() || least > most {
            return Err(damaged(path, &format!("has time steps from {least} to {most}")));
        }
        Ok(())
    }
}

fn width(path: &Path, width: usize) -> Result<()> {
    if !(2..=MAX_WIDTH).contains(&width) {
        return Err(damaged(path, &format!("has the impossible width of a convolution {width}")));
    }
    Ok(())
}
