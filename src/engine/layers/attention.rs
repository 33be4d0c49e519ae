//! Grouped-query attention (Ainslie et al., 2023) with rotary positions over a cache.

use std::rc::Rc;

use mlx_rs::ops::indexing::IndexOp;
use mlx_rs::{Array, ops};

use super::Backend;
use super::attend::{Scoring, append, attend};
use super::latent::LatentParts;
use super::norm::{HeadNorms, Norm};
use super::projection::Projection;
use super::rope::Rope;
use super::sequences::{Batch, SequenceAttention, Sight};
#[cfg(target_os = "linux")]
use super::step::Sequence;
use super::step::Step;
use crate::engine::cache::KvCache;
#[cfg(target_os = "linux")]
use crate::engine::cache::Values;
use crate::engine::config::style::Growth;
use crate::engine::ffi::{Operand, Tensor};
#[cfg(target_os = "linux")]
use crate::engine::kernels;
#[cfg(target_os = "linux")]
use crate::error::Error;
use crate::error::Result;

/// The most sequences whose attention is one kernel.
#[cfg(target_os = "linux")]
const MOST_TOGETHER: usize = 16;

/// Sizes of one attention block.
#[derive(Debug, Clone, Copy)]
pub struct AttentionShape {
    pub heads: usize,
    pub kv_heads: usize,
    /// Elements of a query and of a key.
    pub head_dim: usize,
    /// Elements of a value.
    pub value_dim: usize,
    /// Factor of the scores, usually `1 / sqrt(head_dim)`.
    pub scale: f32,
    /// Scores become `cap * tanh(score / cap)`.
    pub soft_cap: Option<f32>,
    /// How queries grow with their position.
    pub growth: Option<Growth>,
}

/// One attention block, whose cache tells how far it looks back: norm and projections, rotation,
/// attention over the cache, output, residual.
#[derive(Debug)]
pub struct Attention {
    pub shape: AttentionShape,
    /// `None`: nothing is rotated.
    pub rope: Option<Rc<Rope>>,
    pub input: Input,
    /// The earlier layer whose keys and values are looked at; the input is queries alone then.
    pub keys_of: Option<usize>,
    pub head_norms: Option<HeadNorms>,
    /// Norm, then what weights the result, by its sigmoid.
    pub gate: Option<Projection>,
    pub vectors: AttentionVectors,
    pub output: Projection,
    pub post_norm: Option<Norm>,
    /// Of what is added to the residual.
    pub factor: f32,
    pub backend: Backend,
}

/// What gives queries, keys and, where they are not in the keys, values side by side.
#[derive(Debug)]
pub enum Input {
    /// Norm, then all of them.
    Plain(Projection),
    /// Keys that are latents, and what makes values of these.
    Latent(Box<LatentParts>),
}

/// What attention has beside matrices and norms.
#[derive(Debug, Default)]
pub struct AttentionVectors {
    /// Multiplies the rotated queries, `[head_dim]`.
    query_weights: Option<Array>,
    /// A score of each head that no value belongs to, `[heads]`.
    sinks: Option<Array>,
    /// Frequencies, then these two, as the kernels take them.
    together: Option<Array>,
}

impl AttentionVectors {
    /// With the frequencies of this rope.
    pub fn new(
        backend: Backend,
        rope: Option<&Rope>,
        query_weights: Option<Array>,
        sinks: Option<Array>,
    ) -> Result<Self> {
        let frequencies = rope.map(|rope| &rope.frequencies);
        let all: Vec<&Array> = frequencies.into_iter().chain(&query_weights).chain(&sinks).collect();
        let together = match all.as_slice() {
            _ if backend == Backend::Stock => None,
            [] => None,
            [one] => Some((*one).clone()),
            several => Some(ops::concatenate(several, 0)?),
        };
        Ok(Self { query_weights, sinks, together })
    }

    fn arrays(&self) -> impl Iterator<Item = &Array> {
        self.query_weights.iter().chain(&self.sinks).chain(&self.together)
    }
}

impl Attention {
    /// `x [L, hidden] → [L, hidden]`, residual included. The tokens of each sequence follow those in its cache.
    pub fn forward(&self, x: &Tensor, step: &mut Step, layer: usize) -> Result<Tensor> {
        let layer = self.keys_of.unwrap_or(layer);
        self.around(x, |qkv| match self.backend {
            #[cfg(target_os = "linux")]
            Backend::Kernels => self.attend_fused(qkv, step, layer),
            _ => Ok(step.each([&qkv.array()?], |[qkv], cache| self.attend_stock(qkv, cache, layer))?.into()),
        })
    }

    /// `x [L, hidden] → [L, hidden]`, residual included, for the sequences of a batch, each by itself.
    /// `rotation` is the table of the block's rope for the longest of them. Scores must not be capped, and
    /// values are as long as keys.
    pub fn forward_sequences(
        &self,
        x: &Array,
        batch: &Batch,
        rotation: Option<&Array>,
        sight: Sight,
    ) -> Result<Array> {
        let AttentionShape { heads, kv_heads, head_dim, scale, .. } = self.shape;
        let attention = SequenceAttention {
            heads,
            kv_heads,
            head_dim,
            scale,
            reach: sight.reach(),
            causal: sight.causal,
            interleaved: self.rope.as_ref().is_some_and(|rope| rope.interleaved),
            bias: None,
            backend: self.backend,
        };
        self.around(x, |qkv| attention.forward(qkv, batch, rotation))
    }

    /// What stands around attention: norm, projections and the residual.
    fn around<X: Operand>(&self, x: &X, attend: impl FnOnce(&X) -> Result<X>) -> Result<X> {
        let mut qkv = match &self.input {
            Input::Plain(input) => input.forward(x)?,
            Input::Latent(parts) => parts.project(&x.array()?)?.into(),
        };
        if let Some(norms) = &self.head_norms {
            qkv = norms.forward(&qkv)?;
        }
        let mut attended = attend(&qkv)?;
        if let Input::Latent(parts) = &self.input {
            attended = parts.values(&attended.array()?)?.into();
        }
        if let Some(gate) = &self.gate {
            attended = ops::multiply(attended.array()?, ops::sigmoid(gate.forward(x)?.array()?)?)?.into();
        }
        match &self.post_norm {
            Some(norm) => norm.forward_onto(&self.output.forward(&attended)?, x, self.factor),
            None => self.output.forward_onto(&attended, x, self.factor),
        }
    }

    /// The arrays to evaluate at load.
    pub fn arrays(&self) -> Vec<&Array> {
        let mut arrays = match &self.input {
            Input::Plain(input) => input.arrays(),
            Input::Latent(parts) => parts.arrays(),
        };
        arrays.extend(self.rope.iter().flat_map(|rope| rope.arrays()));
        arrays.extend(self.head_norms.iter().flat_map(HeadNorms::arrays));
        arrays.extend(self.gate.iter().flat_map(Projection::arrays));
        arrays.extend(self.vectors.arrays());
        arrays.extend(self.post_norm.iter().flat_map(Norm::arrays));
        arrays.extend(self.output.arrays());
        arrays
    }

    #[cfg(target_os = "linux")]
    fn attend_fused(&self, qkv: &Tensor, step: &mut Step, layer: usize) -> Result<Tensor> {
        let caches = step.sequences().iter().map(|sequence| sequence.cache.tokens(layer));
        let caches = caches.collect::<Result<Vec<_>>>()?;
        let arrays = caches.first().map_or(0, |first| first.parts().len());
        // Caches may be packed from some length on.
        let are_alike = caches.iter().all(|cache| cache.parts().len() == arrays);
        let most = if are_alike { MOST_TOGETHER } else { 1 };
        step.by(most, [qkv], |[qkv], sequences| self.attend_some(qkv, sequences, layer))
    }

    /// Attention of sequences with caches of one form.
    #[cfg(target_os = "linux")]
    fn attend_some(&self, qkv: &Tensor, sequences: &mut [Sequence], layer: usize) -> Result<Tensor> {
        let AttentionShape { heads, kv_heads, head_dim, value_dim, scale, soft_cap, growth } = self.shape;
        let mut places = Vec::with_capacity(sequences.len());
        for sequence in &*sequences {
            let cache = sequence.cache.tokens(layer)?;
            let (tokens, offset) = (sequence.tokens, sequence.cache.offset());
            places.push(kernels::Place { tokens, offset, held: cache.held(), caches: cache.parts() });
        }
        let [first, ..] = &*sequences else { return Err(Error::internal("a step without a sequence")) };
        let tokens = first.cache.tokens(layer)?;
        let rope = self.rope.as_ref();
        let asked = kernels::Attention {
            heads,
            kv_heads,
            head_dim,
            value_dim,
            appends: self.keys_of.is_none(),
            values_in_keys: matches!(tokens.shape().values, Values::InKeys(_)),
            rotary_dims: rope.map_or(0, |rope| rope.dimensions),
            traditional: rope.is_some_and(|rope| rope.interleaved),
            rope_scale: rope.map_or(1.0, |rope| rope.magnitude),
            scale,
            soft_cap,
            growth,
            weighs_queries: self.vectors.query_weights.is_some(),
            has_sinks: self.vectors.sinks.is_some(),
            offset: first.cache.offset(),
            held: tokens.held(),
            window: tokens.window(),
            keep: tokens.keep(),
            packing: tokens.quantization().map(|packed| (packed.bits(), packed.group())),
        };
        let arrays = tokens.parts().len();
        let vectors = self.vectors.together.as_ref();
        let attended = kernels::attention_together(qkv, &places, vectors, &asked)?;
        let mut made = attended.caches.into_iter();
        for sequence in sequences {
            sequence.cache.set_tokens(layer, made.by_ref().take(arrays).collect());
        }
        Ok(attended.output)
    }

    fn attend_stock(&self, qkv: &Array, cache: &mut KvCache, layer: usize) -> Result<Array> {
        let AttentionShape { heads, kv_heads, head_dim, value_dim, scale, soft_cap, growth } = self.shape;
        let (length, offset) = (qkv.dim(0), cache.offset());
        let (q_end, k_end) = ((heads * head_dim) as i32, ((heads + kv_heads) * head_dim) as i32);

        // [L, heads * dim] → [heads, L, dim]
        let by_head = |part: Array, heads: usize| -> Result<Array> {
            Ok(part.reshape(&[length, heads as i32, -1])?.swap_axes(0, 1)?)
        };
        let rotated = |part: Array, heads: usize| -> Result<Array> {
            let heads = by_head(part, heads)?;
            match &self.rope {
                Some(rope) => Ok(rope.forward(&heads.expand_dims(0)?, offset)?.squeeze_axes(&[0])?),
                None => Ok(heads),
            }
        };
        let mut queries = rotated(qkv.index((.., ..q_end)), heads)?;
        if let Some(weights) = &self.vectors.query_weights {
            queries = ops::multiply(&queries, weights)?;
        }
        if let Some(growth) = growth {
            let factors: Vec<f32> = (0..length).map(|token| growth.at(offset + token as usize)).collect();
            let factors = Array::from_slice(&factors, &[length, 1]).as_dtype(queries.dtype())?;
            queries = ops::multiply(&queries, &factors)?;
        }
        let scoring = Scoring { scale, soft_cap, sinks: self.vectors.sinks.as_ref() };
        let together = |attended: Array| -> Result<Array> {
            Ok(attended.swap_axes(0, 1)?.reshape(&[length, (heads * value_dim) as i32])?)
        };
        if self.keys_of.is_some() {
            let tokens = cache.tokens(layer)?;
            return together(attend(&queries, &tokens.arrays()?, tokens, scoring)?);
        }
        let keys = rotated(qkv.index((.., q_end..k_end)), kv_heads)?;
        let has_values = qkv.dim(1) > k_end;
        let values = has_values.then(|| by_head(qkv.index((.., k_end..)), kv_heads)).transpose()?;

        let tokens = cache.tokens(layer)?;
        let parts = append(tokens, &keys, values.as_ref())?;
        let attended = attend(&queries, &parts, tokens, scoring)?;
        cache.set_tokens(layer, parts.into_iter().map(Tensor::from).collect());
        together(attended)
    }
}
