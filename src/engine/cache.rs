//! The keys and values of the tokens seen so far, so that each token is computed once.

use mlx_rs::ops::indexing::TryIndexMutOp;
use mlx_rs::{Array, Dtype, ops, transforms};

use crate::engine::layers::Backend;
use crate::error::{Error, Result};

/// Capacity grows by whole steps of this many tokens.
const STEP: usize = 256;

/// Sizes of one model's cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheShape {
    pub layers: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub dtype: Dtype,
    pub backend: Backend,
}

/// Keys and values of every layer for one sequence. Arrays are `[kv_heads, capacity, head_dim]`,
/// with a leading 1 for MLX's own operations.
///
/// Kernels append in place. That is sound because positions are only ever written at `offset` and
/// above, and every older array that shares the buffer has been dropped.
#[derive(Debug)]
pub struct KvCache {
    shape: CacheShape,
    layers: Vec<Layer>,
    capacity: usize,
    offset: usize,
}

#[derive(Debug)]
struct Layer {
    keys: Array,
    values: Array,
}

impl KvCache {
    pub fn new(shape: CacheShape) -> Self {
        Self { shape, layers: Vec::new(), capacity: 0, offset: 0 }
    }

    /// Tokens held.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Makes room for `more` tokens after the present ones.
    pub fn reserve(&mut self, more: usize) -> Result<()> {
        let needed = self.offset + more;
        if needed <= self.capacity {
            return Ok(());
        }
        let capacity = needed.next_multiple_of(STEP);
        let mut grown = Vec::with_capacity(self.shape.layers);
        for index in 0..self.shape.layers {
            let held = self.layers.get(index);
            grown.push(Layer {
                keys: self.grown(held.map(|layer| &layer.keys), capacity)?,
                values: self.grown(held.map(|layer| &layer.values), capacity)?,
            });
        }
        // Evaluated now, so that no operation that copies is left to see a buffer written in place.
        transforms::eval(grown.iter().flat_map(|layer| [&layer.keys, &layer.values]))?;
        self.layers = grown;
        self.capacity = capacity;
        Ok(())
    }

    /// A larger array that begins with the tokens held.
    fn grown(&self, held: Option<&Array>, capacity: usize) -> Result<Array> {
        let CacheShape { kv_heads, head_dim, dtype, backend, .. } = self.shape;
        let sizes = [1, kv_heads as i32, capacity as i32, head_dim as i32];
        let sizes = if backend == Backend::Stock { &sizes[..] } else { &sizes[1..] };
        let mut fresh = ops::zeros_dtype(sizes, dtype)?;
        if let Some(held) = held {
            let end = self.capacity as i32;
            match backend {
                Backend::Stock => fresh.try_index_mut((.., .., 0..end, ..), held)?,
                Backend::Kernels => fresh.try_index_mut((.., 0..end, ..), held)?,
            }
        }
        Ok(fresh)
    }

    /// The keys and values of a layer, of which the first `offset` tokens are filled.
    pub fn layer(&self, index: usize) -> Result<(&Array, &Array)> {
        self.layers
            .get(index)
            .map(|layer| (&layer.keys, &layer.values))
            .ok_or_else(|| Error::internal(format!("the cache has no layer {index}")))
    }

    /// Replaces a layer's arrays by ones that also hold the tokens of this step.
    pub fn set_layer(&mut self, index: usize, keys: Array, values: Array) {
        if let Some(layer) = self.layers.get_mut(index) {
            *layer = Layer { keys, values };
        }
    }

    /// Counts the tokens of a step that every layer has taken in.
    pub fn advance(&mut self, tokens: usize) {
        self.offset += tokens;
    }

    /// Forgets all but the first `tokens`.
    pub fn truncate(&mut self, tokens: usize) {
        self.offset = self.offset.min(tokens);
    }

    /// Every array, to be evaluated at the end of a prefill chunk.
    pub fn arrays(&self) -> impl Iterator<Item = &Array> {
        self.layers.iter().flat_map(|layer| [&layer.keys, &layer.values])
    }
}
