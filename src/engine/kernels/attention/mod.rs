//! Causal attention over a cache, with rotary positions and the cache's update in the same operation.

mod heads;
mod job;
mod rotary;
mod side;

use std::ffi::CStr;

use mlx_rs::error::Exception;
use mlx_rs::{Array, Dtype};

use super::check;
use super::isa::Isa;
use crate::engine::config::style::Growth;
use crate::engine::ffi::{Buffers, Input, Kernel, Operand, OutputSpec, Tensor, record};
use job::Job;
use side::{Packing, Side};

/// The shape of an attention layer and where it stands.
// Each flag is a way of its own, in any combination.
#[allow(clippy::struct_excessive_bools)]
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Attention {
    /// Query heads H.
    pub heads: usize,
    /// Key and value heads Hkv, which divide H.
    pub kv_heads: usize,
    /// D, elements of a query and of a key, even.
    pub head_dim: usize,
    /// Dv, elements of a value.
    pub value_dim: usize,
    /// Whether the tokens have keys and values of their own, which are put into the caches; else those of
    /// another layer lie there already.
    pub appends: bool,
    /// Values are the last Dv elements of the keys; else they lie beside them.
    pub values_in_keys: bool,
    /// The first dimensions of a head that are rotated: even, at most D; 0 for none.
    pub rotary_dims: usize,
    /// Rotates neighbours (2i, 2i+1) rather than halves (i, i + rotary_dims / 2).
    pub traditional: bool,
    /// Multiplies the rotated dimensions of queries and keys (YaRN's attention factor); 1 for none.
    pub rope_scale: f32,
    /// Multiplies the scores, usually 1/√D.
    pub scale: f32,
    /// Scores become `cap * tanh(score / cap)`.
    pub soft_cap: Option<f32>,
    /// How queries grow with their position.
    pub growth: Option<Growth>,
    /// Whether rotated queries are multiplied by weights.
    pub weighs_queries: bool,
    /// Whether each query head has a score that no value belongs to, in the softmax of its scores.
    pub has_sinks: bool,
    /// The first new token's position, by which it is rotated.
    pub offset: usize,
    /// Entries in the cache; the new tokens' follow.
    pub held: usize,
    /// A token sees its own entry and the `window - 1` before it; `None`: all before.
    pub window: Option<usize>,
    /// The first entries, which all tokens see whatever the window.
    pub keep: usize,
    /// Bits and group of packed caches, as MLX's affine quantization has them.
    pub packing: Option<(usize, usize)>,
}

/// A sequence's part in attention.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// How many of the new tokens are its own.
    pub tokens: usize,
    /// As in [`Attention`].
    pub offset: usize,
    pub held: usize,
    /// As [`attention`] takes them.
    pub caches: &'a [Tensor],
}

/// What attention gives back.
#[derive(Debug)]
pub struct AttentionOutput<X> {
    /// `[L, H * Dv]`
    pub output: X,
    /// The caches with the new tokens, the same memory as the arrays passed in.
    pub caches: Vec<Tensor>,
}

/// Attention of `L` new tokens over everything before and themselves.
///
/// - `qkv` `[L, (H + Hkv) * D + Hkv * Dv]`: queries, keys and values of a token side by side, not yet
///   rotated; without values where they are in the keys, without both where nothing is appended;
/// - `caches`: keys `[Hkv, capacity, D]`, then values `[Hkv, capacity, Dv]` where they lie beside them,
///   updated in place at `held..held + L`, in float32 or float16. Where packed, numbers, scales and biases take
///   the place of each.
///   Earlier entries are never written, so older handles of the same memory stay valid up to their length;
/// - `vectors`: `rotary_dims / 2` frequencies in radians a position, then D weights of queries and H sinks
///   where the layer has them; none where it has nothing of that.
///
/// # Errors
/// Shapes or types that do not fit each other, or a cache that is too small.
pub fn attention<X: Operand>(
    qkv: &X,
    caches: &[Tensor],
    vectors: Option<&Array>,
    layer: &Attention,
) -> Result<AttentionOutput<X>, Exception> {
    let (tokens, _) = check::matrix(qkv, "queries, keys and values")?;
    let place = Place { tokens, offset: layer.offset, held: layer.held, caches };
    attention_together(qkv, &[place], vectors, layer)
}

/// The same for several sequences. The tokens of one follow those of another in
/// `qkv` and in the result, and its caches those of the other. Where they stand is told by `places`.
///
/// # Errors
/// Shapes or types that do not fit each other, or a cache that is too small.
pub fn attention_together<X: Operand>(
    qkv: &X,
    places: &[Place<'_>],
    vectors: Option<&Array>,
    layer: &Attention,
) -> Result<AttentionOutput<X>, Exception> {
    let Attention { heads, kv_heads, head_dim, value_dim, rotary_dims, window, .. } = *layer;
    let fits = heads > 0
        && kv_heads > 0
        && heads % kv_heads == 0
        && head_dim > 0
        && head_dim % 2 == 0
        && value_dim > 0
        && (!layer.values_in_keys || value_dim <= head_dim)
        && rotary_dims.is_multiple_of(2)
        && rotary_dims <= head_dim
        && window != Some(0)
        && layer.soft_cap.is_none_or(|cap| cap > 0.0);
    if !fits {
        return Err(Exception::custom(format!("attention of a shape that cannot be: {layer:?}")));
    }
    let (tokens, width) = check::matrix(qkv, "queries, keys and values")?;
    if layer.width() != Some(width) {
        return Err(Exception::custom(format!(
            "queries, keys and values of width {width} do not fit {layer:?}"
        )));
    }
    match (vectors, layer.vectors()) {
        (Some(vectors), lengths) => {
            check::shape(vectors, "frequencies, weights and sinks", &[lengths.iter().sum()])?;
        }
        (None, [0, 0, 0]) => {}
        (None, _) => return Err(Exception::custom("attention without its vectors")),
    }
    let shared: usize = places.iter().map(|place| place.tokens).sum();
    if shared != tokens || places.is_empty() {
        return Err(Exception::custom(format!("{} sequences of {tokens} tokens", places.len())));
    }
    let mut spans = Vec::with_capacity(places.len());
    for place in places {
        let Place { tokens, offset, held, caches } = *place;
        let (capacity, is_half) = side::check(caches, layer)?;
        if tokens == 0 || held.checked_add(tokens).is_none_or(|end| end > capacity) {
            return Err(Exception::custom(format!(
                "{tokens} tokens after {held} do not fit a cache of {capacity}"
            )));
        }
        spans.push(Span { tokens, offset, held, capacity, is_half });
    }
    let shape = [check::dimension(tokens)?, check::dimension(heads * value_dim)?];
    let has_vectors = vectors.is_some();
    let kernel = Attend { isa: Isa::current(), layer: *layer, spans, has_vectors };
    let mut outputs = vec![OutputSpec::New { shape: &shape, dtype: Dtype::Float32 }];
    let caches = || places.iter().flat_map(|place| place.caches);
    outputs.extend((1..=caches().count()).map(OutputSpec::InPlace));
    let inputs: Vec<Input> = [qkv.input()]
        .into_iter()
        .chain(caches().map(Tensor::input))
        .chain(vectors.map(Array::input))
        .collect();
    let mut made = record(kernel, &inputs, &outputs)?;
    let caches = made.split_off(1);
    Ok(AttentionOutput { output: check::single(made)?, caches })
}

impl Attention {
    /// Elements of a token's queries, keys and values.
    fn width(&self) -> Option<usize> {
        let beside = if self.values_in_keys { 0 } else { self.value_dim };
        let own =
            if self.appends { self.kv_heads.checked_mul(self.head_dim.checked_add(beside)?)? } else { 0 };
        self.heads.checked_mul(self.head_dim)?.checked_add(own)
    }

    /// Lengths of the frequencies, the weights of queries and the sinks.
    fn vectors(&self) -> [usize; 3] {
        let weights = if self.weighs_queries { self.head_dim } else { 0 };
        [self.rotary_dims / 2, weights, if self.has_sinks { self.heads } else { 0 }]
    }

    /// Width of each of the sides of the cache: keys, and values where they lie beside them.
    fn sides(&self) -> impl Iterator<Item = usize> + use<> {
        [self.head_dim].into_iter().chain((!self.values_in_keys).then_some(self.value_dim))
    }

    fn packing(&self) -> Option<Packing> {
        self.packing.map(|(bits, group)| Packing { bits, group })
    }
}

/// Where a sequence stands.
#[derive(Debug, Clone, Copy)]
struct Span {
    tokens: usize,
    offset: usize,
    held: usize,
    capacity: usize,
    /// Whether its caches are half floats.
    is_half: bool,
}

struct Attend {
    isa: Isa,
    layer: Attention,
    /// Of each sequence.
    spans: Vec<Span>,
    has_vectors: bool,
}

impl Kernel for Attend {
    const NAME: &'static CStr = c"Attention";

    fn run(&self, buffers: &Buffers<'_>) {
        let later = buffers.later();
        let at = |span: &Span| Span { offset: span.offset + later, held: span.held + later, ..*span };
        let spans: Vec<Span> = self.spans.iter().map(at).collect();
        let (sides, arrays) = (self.layer.sides().count(), if self.layer.packing.is_some() { 3 } else { 1 });
        let own = sides * arrays;
        let vectors = if self.has_vectors { buffers.input(1 + spans.len() * own) } else { &[] };
        let [pairs, weights, _] = self.layer.vectors();
        let (frequencies, rest) = vectors.split_at(pairs);
        let (query_weights, sinks) = rest.split_at(weights);
        let (qkv, out) = (buffers.input::<f32>(0), buffers.output::<f32>(0));
        let tokens: usize = spans.iter().map(|span| span.tokens).sum();
        let (width, out_width) = (qkv.len() / tokens, out.len() / tokens);
        rotary::with_tables(&self.layer, &spans, frequencies, |tables| {
            let (mut jobs, mut first) = (Vec::with_capacity(spans.len()), 0);
            for (index, (span, table)) in spans.iter().zip(tables).enumerate() {
                let Span { tokens, offset, held, capacity, is_half } = *span;
                let side = |side: usize, width| {
                    let first = 1 + index * own + side * arrays;
                    Side::of(buffers, first, width, self.layer.packing(), is_half)
                };
                jobs.push(Job {
                    isa: self.isa,
                    layer: Attention { offset, held, ..self.layer },
                    tokens,
                    capacity,
                    qkv: &qkv[first * width..][..tokens * width],
                    table,
                    query_weights: self.layer.weighs_queries.then_some(query_weights),
                    sinks: self.layer.has_sinks.then_some(sinks),
                    out: out.part(first * out_width, tokens * out_width),
                    keys: side(0, self.layer.head_dim),
                    values: (sides == 2).then(|| side(1, self.layer.value_dim)),
                });
                first += tokens;
            }
            if self.layer.appends {
                job::append(&jobs);
            }
            job::attend(&jobs);
        });
    }
}
