//! The sequences of a step, each with a cache of its own.
//!
//! Products with weights take the rows of all tokens at once, whatever sequence they are of. What looks at a
//! cache goes sequence by sequence.

use mlx_rs::ops::indexing::IndexOp;
use mlx_rs::{Array, ops};

use crate::engine::cache::KvCache;
use crate::engine::ffi::{Operand, Tensor};
use crate::error::{Error, Result};

/// Which positions' logits are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logits {
    /// Of every position: `[L, vocabulary]`.
    All,
    /// Of the last position: `[1, vocabulary]`.
    Last,
    /// None: the step only fills the cache.
    None,
}

/// A sequence's part in a step.
#[derive(Debug)]
pub struct Sequence<'a> {
    /// How many of the step's tokens are its own.
    pub tokens: usize,
    pub cache: &'a mut KvCache,
    pub logits: Logits,
}

/// The sequences that are computed together. Their tokens' rows stand one sequence below the other.
#[derive(Debug)]
pub struct Step<'a, 'b> {
    sequences: &'a mut [Sequence<'b>],
}

impl<'a, 'b> Step<'a, 'b> {
    /// Makes room for `tokens` tokens in the caches of these sequences, which share them.
    ///
    /// # Errors
    /// INTERNAL if there are not as many tokens as the sequences say.
    pub fn begin(tokens: usize, sequences: &'a mut [Sequence<'b>]) -> Result<Self> {
        let shared: usize = sequences.iter().map(|sequence| sequence.tokens).sum();
        if shared != tokens || sequences.iter().any(|sequence| sequence.tokens == 0) {
            return Err(Error::internal("a step of other tokens than its sequences say"));
        }
        for sequence in sequences.iter_mut() {
            sequence.cache.reserve(sequence.tokens)?;
        }
        Ok(Self { sequences })
    }

    /// The sequences.
    pub fn sequences(&self) -> &[Sequence<'b>] {
        self.sequences
    }

    /// Whether no logits are wanted.
    pub fn only_fills(&self) -> bool {
        self.sequences.iter().all(|sequence| sequence.logits == Logits::None)
    }

    /// What `each` makes of every sequence's rows of these arrays `[L, …]` and of its cache, one below the other.
    pub fn each<const N: usize>(
        &mut self,
        rows: [&Array; N],
        mut each: impl FnMut([&Array; N], &mut KvCache) -> Result<Array>,
    ) -> Result<Array> {
        self.by(1, rows, |rows, sequences| match sequences {
            [only] => each(rows, only.cache),
            _ => Err(Error::internal("a step without a sequence")),
        })
    }

    /// The same for at most so many sequences at a time.
    pub fn by<X: Operand, const N: usize>(
        &mut self,
        most: usize,
        rows: [&X; N],
        mut some: impl FnMut([&X; N], &mut [Sequence<'b>]) -> Result<X>,
    ) -> Result<X> {
        if self.sequences.len() <= most {
            return some(rows, self.sequences);
        }
        let mut arrays = Vec::with_capacity(N);
        for rows in rows {
            arrays.push(rows.array()?);
        }
        let mut made = Vec::with_capacity(self.sequences.len().div_ceil(most));
        let mut start = 0;
        for sequences in self.sequences.chunks_mut(most) {
            let tokens: usize = sequences.iter().map(|sequence| sequence.tokens).sum();
            let end = start + tokens as i32;
            let own: [X; N] = std::array::from_fn(|at| X::from(arrays[at].index(start..end)));
            made.push(some(own.each_ref(), sequences)?.array()?);
            start = end;
        }
        Ok(X::from(ops::concatenate(&made, 0)?))
    }

    /// Counts the tokens, which every layer has taken in. The rows of `x` `[L, …]` whose logits are wanted.
    pub fn end(self, x: Tensor) -> Result<Option<Tensor>> {
        let (mut wanted, mut start) = (Vec::new(), 0);
        for sequence in self.sequences {
            sequence.cache.advance(sequence.tokens);
            let end = start + sequence.tokens as i32;
            match sequence.logits {
                Logits::All => wanted.extend(start..end),
                Logits::Last => wanted.push(end - 1),
                Logits::None => {}
            }
            start = end;
        }
        Ok(match wanted.as_slice() {
            [] => None,
            all if Some(all.len()) == x.shape().first().map(|&rows| rows as usize) => Some(x),
            [only] => Some(Tensor::from(x.array()?.index(*only..*only + 1))),
            rows => {
                let rows = Array::from_slice(rows, &[rows.len() as i32]);
                Some(Tensor::from(x.array()?.take_axis(rows, 0)?))
            }
        })
    }
}
