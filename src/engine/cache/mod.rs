//! What a model remembers of the tokens seen so far, so that each is computed once: keys and values in
//! layers with attention, a state of fixed size in recurrent ones.

mod layout;
mod quantized;
mod tokens;

use std::fmt;

use mlx_rs::{Array, Dtype, ops, transforms};

pub use layout::{
    CacheOptions, CacheShape, KV_BITS, LONGEST_STEP, LayerShape, StateShape, TokenShape, Values, bytes,
};
pub use quantized::KvQuantization;
pub use tokens::TokenCache;

use crate::engine::ffi::{Repeat, Tensor};
use crate::error::{Code, Error, Result};

/// The cache of every layer for one sequence, as one model computes it.
///
/// Kernels append keys and values in place. That is sound because entries are only ever written from
/// where those in use end, and every older array that shares the buffer has been dropped.
#[derive(Debug)]
pub struct KvCache {
    layers: Vec<Layer>,
    offset: usize,
    /// The last step, if that of the next token is the same but for its place, and nothing has changed since.
    repeat: Option<Repeat>,
}

#[derive(Debug)]
enum Layer {
    Tokens(Box<TokenCache>),
    State { shapes: Vec<StateShape>, arrays: Vec<Array> },
    Nothing,
}

/// Why a cache cannot go back to an earlier token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The layer's state is a sum over all tokens, of which none can be taken away.
    Recurrent { layer: usize },
    /// The layer's window has moved on, and what it would have to show is gone.
    Dropped { layer: usize },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Recurrent { layer } => {
                write!(f, "layer {layer} is recurrent: its state cannot forget single tokens")
            }
            Self::Dropped { layer } => {
                write!(f, "the window of layer {layer} has moved on: earlier tokens are gone")
            }
        }
    }
}

/// A place in a sequence that a cache can return to: see [`KvCache::mark`].
#[derive(Debug, Clone)]
pub struct Mark {
    offset: usize,
    /// Of every layer with a state.
    states: Vec<(usize, Vec<Array>)>,
}

impl KvCache {
    /// An empty cache of everything as it is computed.
    pub fn new(shape: &CacheShape) -> Self {
        Self::of(shape, &CacheOptions::AS_COMPUTED)
    }

    /// An empty cache.
    ///
    /// # Errors
    /// INVALID_REQUEST for options that do not fit the model.
    pub fn with_options(shape: &CacheShape, options: &CacheOptions) -> Result<Self> {
        options.check(&shape.layers)?;
        Ok(Self::of(shape, options))
    }

    fn of(shape: &CacheShape, options: &CacheOptions) -> Self {
        let layer = |layer: &LayerShape| match layer {
            LayerShape::Tokens(tokens) => Layer::Tokens(Box::new(TokenCache::new(*tokens, shape, options))),
            LayerShape::State(shapes) => Layer::State { shapes: shapes.clone(), arrays: Vec::new() },
            LayerShape::Nothing => Layer::Nothing,
        };
        Self { layers: shape.layers.iter().map(layer).collect(), offset: 0, repeat: None }
    }

    /// Tokens seen: the position of the next one.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Makes room for a step of `more` tokens after the present ones.
    pub fn reserve(&mut self, more: usize) -> Result<()> {
        self.make_room(more, |_| true)
    }

    /// Makes room for `more` tokens of several steps at once in the layers where all of them stay.
    pub fn expect(&mut self, more: usize) -> Result<()> {
        self.make_room(more, TokenCache::grows)
    }

    /// What the step of the token before made, here of the next one, if nothing but the place is another. `ids` are
    /// the step's tokens; the step is counted then.
    pub fn again(&mut self, ids: &Array) -> Result<Option<Array>> {
        let fits = self.layers.iter().all(|layer| match layer {
            Layer::Tokens(tokens) => tokens.fits(1),
            Layer::State { .. } => false,
            Layer::Nothing => true,
        });
        let Some(repeat) = self.repeat.as_mut().filter(|_| fits) else { return Ok(None) };
        let made = repeat.next(ids)?;
        if made.is_some() {
            self.advance(1);
        }
        Ok(made)
    }

    /// Keeps the step of one token, which has made `result` and is counted already, for [`again`](Self::again), if
    /// it can be had again.
    pub fn remember(&mut self, result: &Tensor) -> Result<()> {
        let mut parts = Vec::new();
        for layer in &self.layers {
            match layer {
                Layer::Tokens(tokens) => parts.extend(tokens.parts()),
                Layer::State { .. } => return Ok(()),
                Layer::Nothing => {}
            }
        }
        self.repeat = Repeat::of(result, parts)?;
        Ok(())
    }

    fn make_room(&mut self, more: usize, wanted: impl Fn(&TokenCache) -> bool) -> Result<()> {
        let is_small = |layer: &Layer| matches!(layer, Layer::Tokens(tokens) if !tokens.fits(more));
        if self.layers.iter().any(is_small) {
            // It holds the buffers that are left now.
            self.repeat = None;
        }
        for layer in &mut self.layers {
            match layer {
                Layer::Tokens(tokens) => {
                    if wanted(tokens) && tokens.reserve(more)? {
                        // Evaluated now, so that no operation that copies is left to see a buffer written in
                        // place, and layer by layer, so that the old buffers of no other layer are still there.
                        transforms::eval(&tokens.arrays()?)?;
                    }
                }
                Layer::State { shapes, arrays } if arrays.is_empty() => {
                    for state in shapes {
                        let sizes: Vec<i32> = state.shape.iter().map(|&size| size as i32).collect();
                        arrays.push(ops::zeros_dtype(&sizes, Dtype::Float32)?);
                    }
                }
                Layer::State { .. } | Layer::Nothing => {}
            }
        }
        Ok(())
    }

    /// The keys and values of a layer with attention.
    pub fn tokens(&self, layer: usize) -> Result<&TokenCache> {
        match self.layers.get(layer) {
            Some(Layer::Tokens(tokens)) => Ok(tokens),
            _ => Err(Error::internal(format!("layer {layer} has no cache of keys and values"))),
        }
    }

    /// Replaces a layer's keys and values by ones that also hold the tokens of this step.
    pub fn set_tokens(&mut self, layer: usize, parts: Vec<Tensor>) {
        self.repeat = None;
        if let Some(Layer::Tokens(tokens)) = self.layers.get_mut(layer) {
            tokens.set_parts(parts);
        }
    }

    /// The state of a recurrent layer, in the order of its shapes; zeros before the first token.
    pub fn state(&self, layer: usize) -> Result<&[Array]> {
        match self.layers.get(layer) {
            Some(Layer::State { arrays, .. }) if !arrays.is_empty() => Ok(arrays),
            _ => Err(Error::internal(format!("layer {layer} has no state"))),
        }
    }

    /// Replaces a layer's state by the one after this step.
    pub fn set_state(&mut self, layer: usize, state: Vec<Array>) {
        self.repeat = None;
        if let Some(Layer::State { arrays, .. }) = self.layers.get_mut(layer) {
            *arrays = state;
        }
    }

    /// Counts the tokens of a step that every layer has taken in.
    pub fn advance(&mut self, tokens: usize) {
        self.offset += tokens;
        for layer in &mut self.layers {
            if let Layer::Tokens(layer) = layer {
                layer.advance(tokens);
            }
        }
    }

    /// Forgets all but the first `tokens`. All can always be forgotten.
    ///
    /// # Errors
    /// Where the layers cannot go back there; the cache is as it was.
    pub fn truncate(&mut self, tokens: usize) -> Result<(), Refusal> {
        if tokens >= self.offset {
            return Ok(());
        }
        self.can_truncate(tokens)?;
        self.cut(tokens);
        Ok(())
    }

    /// Whether [`truncate`](Self::truncate) would succeed.
    ///
    /// # Errors
    /// Why it would not.
    pub fn can_truncate(&self, tokens: usize) -> Result<(), Refusal> {
        if tokens == 0 || tokens >= self.offset {
            return Ok(());
        }
        for (index, layer) in self.layers.iter().enumerate() {
            match layer {
                Layer::State { .. } => return Err(Refusal::Recurrent { layer: index }),
                Layer::Tokens(layer) if !layer.reaches(tokens) => {
                    return Err(Refusal::Dropped { layer: index });
                }
                Layer::Tokens(_) | Layer::Nothing => {}
            }
        }
        Ok(())
    }

    /// Forgets all tokens.
    pub fn clear(&mut self) {
        self.cut(0);
    }

    fn cut(&mut self, tokens: usize) {
        self.repeat = None;
        for layer in &mut self.layers {
            match layer {
                Layer::Tokens(layer) => layer.truncate(tokens),
                Layer::State { arrays, .. } if tokens == 0 => arrays.clear(),
                Layer::State { .. } | Layer::Nothing => {}
            }
        }
        self.offset = tokens;
    }

    /// Remembers this place: [`rewind`](Self::rewind) takes back the tokens that come after it, also where
    /// [`truncate`](Self::truncate) refuses because of a state. Costs no more than the states.
    pub fn mark(&self) -> Mark {
        let state = |(index, layer): (usize, &Layer)| match layer {
            Layer::State { arrays, .. } => Some((index, arrays.clone())),
            Layer::Tokens(_) | Layer::Nothing => None,
        };
        Mark { offset: self.offset, states: self.layers.iter().enumerate().filter_map(state).collect() }
    }

    /// Returns to a place of this same sequence.
    ///
    /// # Errors
    /// Where a window has moved on since by more than can be taken back; the cache is as it was.
    pub fn rewind(&mut self, mark: &Mark) -> Result<(), Refusal> {
        for (index, layer) in self.layers.iter().enumerate() {
            if let Layer::Tokens(layer) = layer
                && !layer.reaches(mark.offset)
            {
                return Err(Refusal::Dropped { layer: index });
            }
        }
        self.cut(mark.offset.min(self.offset));
        for (index, arrays) in &mark.states {
            self.set_state(*index, arrays.clone());
        }
        Ok(())
    }

    /// Every array, to be evaluated at the end of a prefill chunk.
    pub fn arrays(&self) -> Result<Vec<Array>> {
        let mut arrays = Vec::new();
        for layer in &self.layers {
            match layer {
                Layer::Tokens(tokens) => arrays.extend(tokens.arrays()?),
                Layer::State { arrays: state, .. } => arrays.extend(state.iter().cloned()),
                Layer::Nothing => {}
            }
        }
        Ok(arrays)
    }

    /// Bytes of the buffers, used or not.
    pub fn bytes(&self) -> Result<u64> {
        Ok(self.arrays()?.iter().map(|array| array.nbytes() as u64).sum())
    }

    /// What is to be saved to continue later, with names that stay: `layers.N.keys`, `layers.N.values`, each
    /// `[heads, tokens held, width]`, where packed with `….scales` and `….biases`; `layers.N.conv` and the like.
    pub fn contents(&self) -> Result<Vec<(String, Array)>> {
        let mut contents = Vec::new();
        for (index, layer) in self.layers.iter().enumerate() {
            let held = match layer {
                Layer::Tokens(tokens) => tokens.contents()?,
                Layer::State { shapes, arrays } => {
                    let names = shapes.iter().map(|shape| shape.name.to_owned());
                    names.zip(arrays.iter().cloned()).collect()
                }
                Layer::Nothing => Vec::new(),
            };
            contents.extend(held.into_iter().map(|(name, array)| (format!("layers.{index}.{name}"), array)));
        }
        Ok(contents)
    }

    /// Takes over what [`contents`](Self::contents) of a cache of the same model and options gave after
    /// `offset` tokens. `take` gives the array of a name.
    ///
    /// # Errors
    /// INTEGRITY_FAILED for arrays that are missing or of another shape; the cache is empty then.
    pub fn restore(&mut self, offset: usize, take: impl Fn(&str) -> Option<Array>) -> Result<()> {
        self.cut(0);
        if offset == 0 {
            return Ok(());
        }
        for (index, layer) in self.layers.iter_mut().enumerate() {
            let own = |name: &str| take(&format!("layers.{index}.{name}"));
            let restored = match layer {
                Layer::Tokens(tokens) => tokens.restore(offset, &own),
                Layer::State { shapes, arrays } => restore_state(shapes, &own).map(|state| *arrays = state),
                Layer::Nothing => Ok(()),
            };
            if let Err(wrong) = restored {
                self.cut(0);
                return Err(Error::new(
                    Code::IntegrityFailed,
                    format!("the saved cache does not fit the model: in layer {index}, {wrong}"),
                )
                .hint("it was saved for another model or with other settings: compute it again"));
            }
        }
        self.offset = offset;
        Ok(())
    }
}

fn restore_state(shapes: &[StateShape], take: &dyn Fn(&str) -> Option<Array>) -> Result<Vec<Array>, String> {
    let array = |state: &StateShape| {
        let array = take(state.name).ok_or_else(|| format!("{} is missing", state.name))?;
        let fits = array.shape().iter().map(|&size| size as usize).eq(state.shape.iter().copied());
        if !fits || array.dtype() != Dtype::Float32 {
            return Err(format!(
                "{} is {:?} of {:?}, expected Float32 of {:?}",
                state.name,
                array.dtype(),
                array.shape(),
                state.shape
            ));
        }
        Ok(array)
    };
    shapes.iter().map(array).collect()
}

#[cfg(test)]
mod tests;
