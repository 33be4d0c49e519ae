//! Attention over a cache by MLX's own operations.

use mlx_rs::fast::{ScaledDotProductAttentionMask as Mask, scaled_dot_product_attention};
use mlx_rs::ops::indexing::{IndexOp, TryIndexMutOp};
use mlx_rs::{Array, ops};

use super::norm::{capped, scaled};
use crate::engine::cache::{KvQuantization, TokenCache, Values};
use crate::error::{Error, Result};

/// How scores are computed.
#[derive(Debug, Clone, Copy)]
pub struct Scoring<'a> {
    /// Factor of the scores.
    pub scale: f32,
    /// Scores become `cap * tanh(score / cap)`.
    pub soft_cap: Option<f32>,
    /// Of each query head a score that no value belongs to, `[H]`.
    pub sinks: Option<&'a Array>,
}

/// A cache's parts with the entries of new tokens: `keys [Hkv, L, D]`, `values [Hkv, L, Dv]`, none where
/// they are in the keys.
pub fn append(cache: &TokenCache, keys: &Array, values: Option<&Array>) -> Result<Vec<Array>> {
    let (start, length) = (cache.held() as i32, keys.dim(1));
    let mut new = Vec::with_capacity(cache.parts().len());
    for side in [keys].into_iter().chain(values) {
        new.extend(cache.stored(side)?);
    }
    if new.len() != cache.parts().len() {
        return Err(Error::internal("keys and values that do not fit their cache"));
    }
    let mut parts = cache.arrays()?;
    for (part, new) in parts.iter_mut().zip(new) {
        part.try_index_mut((.., start..start + length, ..), &new)?;
    }
    Ok(parts)
}

/// Attention of queries `[H, L, D]` over the parts of a cache that holds their own tokens from
/// `cache.held()` on: `[H, L, Dv]`.
pub fn attend(queries: &Array, parts: &[Array], cache: &TokenCache, scoring: Scoring<'_>) -> Result<Array> {
    let sight = Sight {
        held: cache.held(),
        length: queries.dim(1) as usize,
        window: cache.window(),
        keep: cache.keep(),
    };
    let (begin, end) = (sight.begin(), sight.end());
    let seen: Vec<Array> = parts.iter().map(|part| part.index((.., begin as i32..end as i32, ..))).collect();
    let value_dim = cache.shape().values.dim() as i32;
    let in_keys = matches!(cache.shape().values, Values::InKeys(_));
    if let Some(quantization) = cache.quantization() {
        let attended = attend_packed(queries, &seen, quantization, &sight, scoring)?;
        return Ok(if in_keys { last(&attended, value_dim) } else { attended });
    }
    let seen = seen.iter().map(|part| part.as_dtype(queries.dtype())).collect::<Result<Vec<_>, _>>()?;
    let (keys, values) = match seen.as_slice() {
        [keys, values] => (keys, values.clone()),
        [keys] if in_keys => (keys, last(keys, value_dim)),
        _ => return Err(Error::internal("a cache without keys or values")),
    };
    if scoring.soft_cap.is_some() {
        let group = queries.dim(0) / keys.dim(0);
        let shared = |x: &Array| ops::repeat_axis::<f32>(x.clone(), group, 0);
        let scores = ops::matmul(queries, shared(keys)?.swap_axes(-1, -2)?)?;
        let weights = weights(&scores, &sight, scoring)?;
        return Ok(ops::matmul(&weights, shared(&values)?)?);
    }
    let batch = |x: &Array| x.expand_dims(0);
    let (queries, keys, values) = (batch(queries)?, batch(keys)?, batch(&values)?);
    let scale = scoring.scale;
    let attended = if sight.needs_mask() {
        let mask = sight.mask()?;
        scaled_dot_product_attention(&queries, &keys, &values, scale, Mask::Array(&mask), scoring.sinks)?
    } else if sight.length > 1 {
        scaled_dot_product_attention(&queries, &keys, &values, scale, Mask::Causal, scoring.sinks)?
    } else {
        scaled_dot_product_attention(&queries, &keys, &values, scale, None::<Mask>, scoring.sinks)?
    };
    Ok(attended.squeeze_axes(&[0])?)
}

/// The same over packed keys and values, which MLX multiplies without unpacking them as a whole. Values
/// in the keys come out with all elements of these.
fn attend_packed(
    queries: &Array,
    seen: &[Array],
    quantization: KvQuantization,
    sight: &Sight,
    scoring: Scoring<'_>,
) -> Result<Array> {
    let (keys, values) = match seen {
        [keys @ .., _, _, _] if seen.len() == 6 => (keys, &seen[3..]),
        _ => (seen, seen),
    };
    let (bits, group) = (quantization.bits() as i32, quantization.group() as i32);
    let product = |x: &Array, side: &[Array], transposed: bool| match side {
        [numbers, scales, biases] => {
            Ok(ops::quantized_matmul(x, numbers, scales, biases, transposed, group, bits)?)
        }
        _ => Err(Error::internal("packed keys or values without all their parts")),
    };
    let (heads, length, dim) = (queries.dim(0), queries.dim(1), queries.dim(2));
    let kv_heads = keys.first().map_or(1, |numbers| numbers.dim(0));
    // The heads that share keys stand one below the other.
    let queries = queries.reshape(&[kv_heads, -1, dim])?;
    let scores = product(&queries, keys, true)?.reshape(&[heads, length, -1])?;
    let weights = weights(&scores, sight, scoring)?.reshape(&[kv_heads, heads / kv_heads * length, -1])?;
    Ok(product(&weights, values, false)?.reshape(&[heads, length, -1])?)
}

/// Products of queries and keys `[H, L, N]` as weights of the values.
fn weights(scores: &Array, sight: &Sight, scoring: Scoring<'_>) -> Result<Array> {
    let mut scores = scaled(scores.clone(), scoring.scale)?;
    if let Some(cap) = scoring.soft_cap {
        scores = capped(&scores, cap)?;
    }
    if sight.length > 1 || sight.needs_mask() {
        let least = Array::from_f32(f32::NEG_INFINITY).as_dtype(scores.dtype())?;
        scores = ops::select(sight.mask()?, &scores, &least)?;
    }
    let Some(sinks) = scoring.sinks else { return Ok(ops::softmax_axis(scores, -1, true)?) };
    let (heads, length, entries) = (scores.dim(0), scores.dim(1), scores.dim(2));
    let sinks =
        ops::broadcast_to(sinks.as_dtype(scores.dtype())?.reshape(&[heads, 1, 1])?, &[heads, length, 1])?;
    let weights = ops::softmax_axis(ops::concatenate(&[scores, sinks], -1)?, -1, true)?;
    Ok(weights.index((.., .., ..entries)))
}

/// The last elements of each row.
fn last(rows: &Array, count: i32) -> Array {
    rows.index((.., .., rows.dim(2) - count..))
}

/// Which entries of a cache the tokens of a step see.
struct Sight {
    /// Entries before the step.
    held: usize,
    /// Tokens of the step.
    length: usize,
    window: Option<usize>,
    keep: usize,
}

impl Sight {
    fn end(&self) -> usize {
        self.held + self.length
    }

    /// The first entry that any of the tokens sees.
    fn begin(&self) -> usize {
        match self.window {
            Some(window) if self.keep == 0 => (self.held + 1).saturating_sub(window),
            _ => 0,
        }
    }

    /// Whether more is out of sight than what comes later.
    fn needs_mask(&self) -> bool {
        let Some(window) = self.window else { return false };
        if self.length == 1 { self.keep > 0 && self.end() > self.keep + window } else { self.end() > window }
    }

    /// `[length, end - begin]`, true where the token of the row sees the entry of the column.
    fn mask(&self) -> Result<Array> {
        let (begin, end) = (self.begin(), self.end());
        let window = self.window.unwrap_or(end);
        let sees = |row: usize, column: usize| column <= row && (column + window > row || column < self.keep);
        let seen: Vec<bool> = (self.held..end)
            .flat_map(|row| (begin..end).map(move |column| (row, column)))
            .map(|(row, column)| sees(row, column))
            .collect();
        let flat = Array::from_slice(&seen, &[seen.len() as i32]);
        Ok(ops::reshape(flat, &[self.length as i32, (end - begin) as i32])?)
    }
}
