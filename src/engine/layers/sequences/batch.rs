//! Texts that are computed together.

use std::cell::RefCell;

use mlx_rs::{Array, Dtype};

use crate::engine::layers::Backend;
use crate::error::{Error, Result};

/// The tokens of several texts, one after the other.
pub struct Batch<'a> {
    texts: &'a [&'a [u32]],
    tokens: usize,
    longest: usize,
    /// int32 `[B + 1]`: where each text begins, and at last L.
    #[cfg(target_os = "linux")]
    starts: Array,
    padding: Option<Padding>,
}

/// How MLX's own attention, which wants equal lengths, sees a batch of B texts, the longest of P tokens.
pub(super) struct Padding {
    /// `[B * P]`: which token stands where; padding repeats token 0.
    pub(super) spread: Array,
    /// `[L]`: where each token stands.
    pub(super) gather: Array,
    /// Masks that were asked for: reach, causal, and `[B, 1, P, P]` to be added to scores.
    masks: RefCell<Vec<(Option<usize>, bool, Array)>>,
    lengths: Vec<usize>,
}

impl<'a> Batch<'a> {
    /// # Errors
    /// INTERNAL if there is no text or an empty one.
    pub fn new(texts: &'a [&'a [u32]], backend: Backend) -> Result<Self> {
        let tokens: usize = texts.iter().map(|text| text.len()).sum();
        let longest = texts.iter().map(|text| text.len()).max().unwrap_or(0);
        let spread = longest.checked_mul(texts.len()).and_then(|all| i32::try_from(all).ok());
        if texts.iter().any(|text| text.is_empty()) || longest == 0 || spread.is_none() {
            return Err(Error::internal("a batch without tokens, or one that is too large"));
        }
        Ok(Self {
            texts,
            tokens,
            longest,
            padding: (backend == Backend::Stock).then(|| Padding::new(texts, longest)),
            #[cfg(target_os = "linux")]
            starts: starts(texts),
        })
    }

    pub fn texts(&self) -> &'a [&'a [u32]] {
        self.texts
    }

    /// L, of all texts.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Tokens of the longest text.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// Which code it was made for.
    pub fn backend(&self) -> Backend {
        if self.padding.is_some() { Backend::Stock } else { Backend::Kernels }
    }

    #[cfg(target_os = "linux")]
    pub(super) fn starts(&self) -> &Array {
        &self.starts
    }

    pub(super) fn padding(&self) -> Result<&Padding> {
        self.padding.as_ref().ok_or_else(|| Error::internal("a batch that was made for the kernels"))
    }
}

/// Where each text begins, and where the last one ends.
#[cfg(target_os = "linux")]
fn starts(texts: &[&[u32]]) -> Array {
    let mut starts = vec![0];
    for text in texts {
        starts.push(starts.last().copied().unwrap_or(0) + text.len() as i32);
    }
    Array::from_slice(&starts, &[starts.len() as i32])
}

impl Padding {
    fn new(texts: &[&[u32]], longest: usize) -> Self {
        let mut spread = vec![0; texts.len() * longest];
        let mut gather = Vec::new();
        for (text, rows) in texts.iter().zip(spread.chunks_exact_mut(longest)) {
            for (token, row) in rows.iter_mut().enumerate().take(text.len()) {
                *row = gather.len() as i32;
                gather.push(token as i32);
            }
        }
        // Positions inside the padded texts, moved by where each of those begins.
        let mut next = gather.iter_mut();
        for (index, text) in texts.iter().enumerate() {
            for place in next.by_ref().take(text.len()) {
                *place += (index * longest) as i32;
            }
        }
        Self {
            spread: Array::from_slice(&spread, &[spread.len() as i32]),
            gather: Array::from_slice(&gather, &[gather.len() as i32]),
            masks: RefCell::default(),
            lengths: texts.iter().map(|text| text.len()).collect(),
        }
    }

    /// 0 where a query (row) sees a key (column), a large negative number elsewhere.
    pub(super) fn mask(&self, reach: Option<usize>, causal: bool, dtype: Dtype) -> Result<Array> {
        /// Large enough for a weight of 0, small enough for float16.
        const HIDDEN: f32 = -30_000.0;
        let known =
            self.masks.borrow().iter().find(|mask| (mask.0, mask.1) == (reach, causal)).map(|m| m.2.clone());
        if let Some(mask) = known {
            return Ok(mask);
        }
        let longest = self.lengths.iter().copied().max().unwrap_or(0);
        // Without a limit all queries see the same keys.
        let queries = if reach.is_some() || causal { longest } else { 1 };
        let mut values = Vec::with_capacity(self.lengths.len() * queries * longest);
        for &length in &self.lengths {
            for query in 0..queries {
                values.extend((0..longest).map(|key| {
                    let near = reach.is_none_or(|reach| key.abs_diff(query) <= reach);
                    if key < length && near && (!causal || key <= query) { 0.0 } else { HIDDEN }
                }));
            }
        }
        let shape = [self.lengths.len() as i32, 1, queries as i32, longest as i32];
        let mask = Array::from_slice(&values, &shape).as_dtype(dtype)?;
        self.masks.borrow_mut().push((reach, causal, mask.clone()));
        Ok(mask)
    }
}
