//! Keys and values of one layer, in buffers that grow, or from which the oldest are dropped.
//!
//! Entries lie in the order of their positions. A window does not wrap around: when its buffer is full,
//! what is still in sight moves to the front of a new one, so that attention never meets an order of its
//! own and what it computes is the same as over all tokens, masked. The first tokens stay in front
//! where some are kept.

use half::f16;
use mlx_rs::ops::indexing::IndexOp;
use mlx_rs::{Array, Dtype, ops};

use super::layout::{CacheOptions, CacheShape, TokenShape};
use super::quantized::KvQuantization;
use crate::engine::ffi::{self, Operand, Tensor, array};
use crate::engine::layers::Backend;
use crate::error::Result;

/// Keys and values of a layer. Each part is `[heads, capacity, width]`.
#[derive(Debug)]
pub struct TokenCache {
    shape: TokenShape,
    /// Type in which keys and values are computed.
    dtype: Dtype,
    backend: Backend,
    options: CacheOptions,
    window: Option<usize>,
    /// First tokens that stay in sight.
    keep: usize,
    /// The form that the parts have now.
    quantization: Option<KvQuantization>,
    /// Keys, then values where they are not in the keys; each packed one as numbers, scales and biases.
    parts: Vec<Tensor>,
    capacity: usize,
    /// Entries in use.
    held: usize,
    /// Tokens that are no longer held, all between those kept and the others.
    dropped: usize,
}

/// Names of the parts of packed keys or values, behind their own.
const PACKED: [&str; 3] = ["", ".scales", ".biases"];

impl TokenCache {
    pub(super) fn new(shape: TokenShape, model: &CacheShape, options: &CacheOptions) -> Self {
        let (window, keep) = options.sight(&shape);
        Self {
            shape,
            dtype: model.dtype,
            backend: model.backend,
            options: *options,
            window,
            keep,
            quantization: options.quantization.filter(|_| options.quantized_from == 0),
            parts: Vec::new(),
            capacity: 0,
            held: 0,
            dropped: 0,
        }
    }

    /// Keys and values; of packed ones numbers, scales and biases each. `[heads, capacity, width]`.
    pub fn parts(&self) -> &[Tensor] {
        &self.parts
    }

    /// The parts as arrays of MLX's graph.
    pub fn arrays(&self) -> Result<Vec<Array>> {
        Ok(self.parts.iter().map(Tensor::array).collect::<Result<_, _>>()?)
    }

    /// How the parts are packed.
    pub fn quantization(&self) -> Option<KvQuantization> {
        self.quantization
    }

    /// New rows of keys or values as the parts that they become.
    pub fn stored(&self, rows: &Array) -> Result<Vec<Array>> {
        match self.quantization {
            Some(quantization) => Ok(quantization.pack(rows)?.into()),
            None if self.plain() == self.dtype => Ok(vec![rows.clone()]),
            None => {
                // What float16 cannot be is its largest number, not infinity.
                let most = Array::from_f32(f16::MAX.to_f32()).as_dtype(rows.dtype())?;
                let within = ops::clip(rows, (&ops::negative(&most)?, &most))?;
                Ok(vec![within.as_dtype(self.plain())?])
            }
        }
    }

    /// Type of keys and values that are not packed.
    fn plain(&self) -> Dtype {
        match self.dtype {
            Dtype::Float32 if self.options.half => Dtype::Float16,
            computed => computed,
        }
    }

    /// Entries in use: where the next token's goes.
    pub fn held(&self) -> usize {
        self.held
    }

    /// A token sees itself, the `window - 1` entries before it and the first [`keep`](Self::keep).
    pub fn window(&self) -> Option<usize> {
        self.window
    }

    pub fn keep(&self) -> usize {
        self.keep
    }

    pub fn shape(&self) -> &TokenShape {
        &self.shape
    }

    pub(super) fn set_parts(&mut self, parts: Vec<Tensor>) {
        self.parts = parts;
    }

    pub(super) fn advance(&mut self, tokens: usize) {
        self.held += tokens;
    }

    /// Whether all tokens stay.
    pub(super) fn grows(&self) -> bool {
        self.window.is_none()
    }

    /// Makes room for `more` entries, and packs what is to be packed from now on; whether the parts are
    /// new ones, which are to be evaluated.
    pub(super) fn reserve(&mut self, more: usize) -> Result<bool> {
        let (fits, repack) = (self.fits(more), self.repack());
        self.quantization = self.due().or(self.quantization);
        if fits {
            return Ok(false);
        }
        let out_of_sight = self.window.map_or(0, |window| {
            let stays = self.keep + (window - 1) + self.options.rollback;
            self.held.saturating_sub(stays)
        });
        let room = if out_of_sight > 0 { more.max(self.options.step) } else { more };
        let stay = self.held - out_of_sight;
        let capacity = (stay + room).next_multiple_of(self.options.step);

        let mut moved = Vec::with_capacity(self.parts.len());
        for part in self.arrays()? {
            let entries = |from: usize, to: usize| part.index((.., from as i32..to as i32, ..));
            let part = match (out_of_sight, self.keep) {
                (0, _) => entries(0, self.held),
                (_, 0) => entries(out_of_sight, self.held),
                (_, keep) => {
                    ops::concatenate(&[entries(0, keep), entries(keep + out_of_sight, self.held)], 1)?
                }
            };
            match repack.filter(|_| stay > 0) {
                Some(quantization) => moved.extend(quantization.pack(&part.as_dtype(self.dtype)?)?),
                None => moved.push(part),
            }
        }
        let mut grown = Vec::with_capacity(moved.len());
        for (index, (width, dtype)) in self.sizes().into_iter().enumerate() {
            let sizes = [self.shape.heads as i32, capacity as i32, width as i32];
            let part = moved.get(index).filter(|_| stay > 0);
            grown.push(Tensor::from(self.with_room(part, sizes, dtype)?));
        }
        self.parts = grown;
        self.capacity = capacity;
        self.held = stay;
        self.dropped += out_of_sight;
        Ok(true)
    }

    /// A buffer of this shape that begins with these entries. Nobody reads more than is held.
    fn with_room(&self, entries: Option<&Array>, sizes: [i32; 3], dtype: Dtype) -> Result<Array> {
        Ok(match self.backend {
            Backend::Kernels => ffi::with_room(entries, sizes, dtype)?,
            Backend::Stock => array::with_zeros(entries, sizes, dtype)?,
        })
    }

    /// Whether there is room for `more` entries, and nothing is to be packed before.
    pub(super) fn fits(&self, more: usize) -> bool {
        self.repack().is_none() && self.held + more <= self.capacity
    }

    /// The form in which the next entry is to be.
    fn due(&self) -> Option<KvQuantization> {
        self.options.quantization.filter(|_| self.position() >= self.options.quantized_from)
    }

    /// The form that the present entries are to get.
    fn repack(&self) -> Option<KvQuantization> {
        self.due().filter(|_| self.quantization.is_none() && !self.parts.is_empty())
    }

    /// Width and type of each part in its present form.
    fn sizes(&self) -> Vec<(usize, Dtype)> {
        let part = |width: usize| match self.quantization {
            Some(packed) => {
                let groups = (packed.groups(width), self.dtype);
                vec![(packed.words(width), Dtype::Uint32), groups, groups]
            }
            None => vec![(width, self.plain())],
        };
        self.shape.widths().flat_map(part).collect()
    }

    /// Tokens seen so far.
    fn position(&self) -> usize {
        self.held + self.dropped
    }

    /// Whether what the token after the first `tokens` sees is still held.
    pub(super) fn reaches(&self, tokens: usize) -> bool {
        let Some(window) = self.window else { return true };
        tokens == 0 || self.dropped == 0 || self.dropped + self.keep + window <= tokens + 1
    }

    /// Forgets all but the first `tokens`, which are within reach.
    pub(super) fn truncate(&mut self, tokens: usize) {
        if tokens == 0 {
            self.dropped = 0;
            // Buffers of the form that a new sequence begins with serve it too.
            let first = self.options.quantization.filter(|_| self.options.quantized_from == 0);
            if self.quantization != first {
                self.quantization = first;
                self.parts.clear();
                self.capacity = 0;
            }
        }
        self.held = self.held.min(tokens.saturating_sub(self.dropped));
    }

    /// What is held, each part with its name below the layer's.
    pub(super) fn contents(&self) -> Result<Vec<(String, Array)>> {
        let held = |part: Array| part.index((.., ..self.held as i32, ..));
        let parts = self.arrays()?.into_iter().map(held);
        Ok(self.names(self.quantization.is_some()).into_iter().zip(parts).collect())
    }

    fn names(&self, is_packed: bool) -> Vec<String> {
        let behind = if is_packed { &PACKED[..] } else { &PACKED[..1] };
        let sides = ["keys", "values"].into_iter().zip(self.shape.widths());
        sides.flat_map(|(side, _)| behind.iter().map(move |rest| format!("{side}{rest}"))).collect()
    }

    /// Takes over contents that an equal cache has given for `position` tokens; what is wrong with them.
    pub(super) fn restore(
        &mut self,
        position: usize,
        take: &dyn Fn(&str) -> Option<Array>,
    ) -> Result<(), String> {
        let is_packed = take("keys.scales").is_some();
        let Some(first) = take("keys") else { return Err("keys are missing".to_owned()) };
        let held = match *first.shape() {
            [_, held, _] => held as usize,
            ref other => return Err(format!("keys have the shape {other:?}")),
        };
        let least = match self.window {
            Some(window) => position.min(self.keep + window - 1),
            None => position,
        };
        if held > position || held < least {
            return Err(format!("it holds {held} of {position} tokens"));
        }
        if is_packed && self.options.quantization.is_none() {
            return Err("it is packed, and is to be used as it is".to_owned());
        }
        self.quantization = self.options.quantization.filter(|_| is_packed);
        let mut parts = Vec::new();
        for (name, (width, dtype)) in self.names(is_packed).into_iter().zip(self.sizes()) {
            let Some(part) = take(&name) else { return Err(format!("{name} are missing")) };
            let shape = [self.shape.heads as i32, held as i32, width as i32];
            if part.shape() != shape || part.dtype() != dtype {
                return Err(format!(
                    "{name} are {:?} of {:?}, expected {dtype:?} of {shape:?}",
                    part.dtype(),
                    part.shape()
                ));
            }
            parts.push(Tensor::from(part));
        }
        self.parts = parts;
        self.capacity = held;
        self.held = held;
        self.dropped = position - held;
        Ok(())
    }
}
