//! Tokens in chunks, as recurrences are computed by products of matrices.

use mlx_rs::ops::indexing::IndexOp;
use mlx_rs::{Array, ops};

use crate::error::Result;

/// Tokens that are computed at once; a power of two.
const CHUNK: usize = 64;

/// How the tokens of a step are cut.
#[derive(Debug, Clone, Copy)]
pub struct Chunks {
    length: i32,
    heads: i32,
    /// Tokens of a chunk; a power of two.
    pub size: i32,
    pub count: i32,
}

impl Chunks {
    /// For `x [L, H, ..]`.
    pub fn of(x: &Array) -> Self {
        let (length, heads) = (x.dim(0), x.dim(1));
        let size = CHUNK.min((length as usize).next_power_of_two()) as i32;
        Self { length, heads, size, count: (length + size - 1) / size }
    }

    /// `[L, H, D]` or `[L, H]` as `[chunks, H, chunk, D]`, with zeros behind the last token.
    pub fn cut(&self, x: &Array) -> Result<Array> {
        let Self { length, heads, size, count } = *self;
        let x = x.reshape(&[length, heads, -1])?;
        let padded = ops::pad(&x, &[(0, count * size - length), (0, 0), (0, 0)], None, None)?;
        Ok(padded.reshape(&[count, size, heads, -1])?.swap_axes(1, 2)?)
    }

    /// What each chunk gave, `[H, chunk, D]`, as `[L, H, D]`.
    pub fn join(&self, found: &[Array]) -> Result<Array> {
        let Self { length, heads, size, count } = *self;
        let joined = ops::stack(found, 0)?.swap_axes(1, 2)?.reshape(&[count * size, heads, -1])?;
        Ok(joined.index((..length, .., ..)))
    }

    /// `[size, size]`, true where `is` says so of row and column.
    pub fn mask(&self, is: impl Fn(i32, i32) -> bool) -> Array {
        let (is, size) = (&is, self.size);
        let values: Vec<bool> =
            (0..size).flat_map(|row| (0..size).map(move |column| is(row, column))).collect();
        Array::from_slice(&values, &[size, size])
    }
}

/// What is left, by the decays of the tokens since.
pub struct Fading {
    /// At each token, of the state before the chunk: `[chunks, H, chunk, 1]`.
    pub left: Array,
    /// At the token of the row, of what the token of the column brought: `[chunks, H, chunk, chunk]`, zero
    /// above the diagonal.
    pub between: Array,
    /// At the chunk's end, of what each token brought: `[chunks, H, chunk, 1]`.
    pub to_end: Array,
    /// At the chunk's end, of the state before it: `[chunks, H, 1, 1]`.
    pub kept: Array,
}

impl Fading {
    /// `decays [L, H]` are logarithms, none above zero.
    pub fn of(chunks: &Chunks, decays: &Array) -> Result<Self> {
        let total = chunks.cut(decays)?.cumsum(2, None, None)?;
        let between = ops::subtract(&total, total.swap_axes(-1, -2)?)?;
        let causal = chunks.mask(|row, column| column <= row);
        let between = ops::select(causal, &between, Array::from_f32(f32::NEG_INFINITY))?;
        let last = total.index((.., .., chunks.size - 1.., ..));
        Ok(Self {
            left: total.exp()?,
            between: between.exp()?,
            to_end: ops::subtract(&last, &total)?.exp()?,
            kept: last.exp()?,
        })
    }
}

#[cfg(test)]
pub mod samples {
    use super::*;

    /// Numbers from -1 to 1 that depend on the seed only.
    pub fn numbers(seed: u32, shape: &[i32]) -> Array {
        let mut x = seed;
        let values: Vec<f32> = (0..shape.iter().product())
            .map(|_| {
                x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (x >> 8) as f32 / (1 << 23) as f32 - 1.0
            })
            .collect();
        Array::from_slice(&values, shape)
    }

    pub fn assert_near(found: &Array, expected: &Array, what: &str) {
        assert_eq!(found.shape(), expected.shape());
        let difference = ops::subtract(found, expected).unwrap().abs().unwrap().max(None).unwrap();
        let difference = difference.item_exact::<f32>();
        assert!(difference < 2e-4, "{what}: {difference}");
    }
}
