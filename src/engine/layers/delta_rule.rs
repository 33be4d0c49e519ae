//! The gated delta rule (Yang et al., arXiv:2412.06464): a matrix that maps keys to values, of which
//! every token corrects what its key finds, and which fades.
//!
//! With decay `a`, rate `b`, key `k`, value `v` and query `q` of a token, each head does
//! `S ← a S + k (b (v - kᵀ a S))` and gives `qᵀ S`. All in float32.

use mlx_rs::ops::indexing::IndexOp;
use mlx_rs::{Array, ops};

use super::chunks::{Chunks, Fading};
use crate::error::Result;

/// What the tokens of a step bring, for each of H heads.
pub struct Tokens {
    /// `[L, H, K]`.
    pub queries: Array,
    /// `[L, H, K]`, no longer than one.
    pub keys: Array,
    /// `[L, H, V]`.
    pub values: Array,
    /// Logarithms of the decays `[L, H]`, none above zero.
    pub decays: Array,
    /// `[L, H]`, from zero to one.
    pub rates: Array,
}

/// From the state `[H, K, V]` before the tokens: what they find, `[L, H, V]`, and the state after them.
pub fn delta_rule(tokens: &Tokens, state: &Array) -> Result<(Array, Array)> {
    if tokens.queries.dim(0) == 1 { step(tokens, state) } else { chunked(tokens, state) }
}

/// The rule as it is written, for one token.
fn step(tokens: &Tokens, state: &Array) -> Result<(Array, Array)> {
    let heads = tokens.queries.dim(1);
    let row = |x: &Array| x.reshape(&[heads, 1, -1]);
    let (keys, values) = (row(&tokens.keys)?, row(&tokens.values)?);
    let state = ops::multiply(state, row(&tokens.decays.exp()?)?)?;
    let known = ops::matmul(&keys, &state)?;
    let correction = ops::multiply(ops::subtract(&values, &known)?, row(&tokens.rates)?)?;
    let state = ops::add(&state, ops::multiply(keys.swap_axes(-1, -2)?, &correction)?)?;
    let found = ops::matmul(row(&tokens.queries)?, &state)?;
    Ok((found.reshape(&[1, heads, -1])?, state))
}

/// The same for many tokens, chunk by chunk: within one, the corrections of all tokens are the solution
/// of a triangular system (section 3.3 of the paper), and only the state goes from chunk to chunk.
fn chunked(tokens: &Tokens, state: &Array) -> Result<(Array, Array)> {
    let chunks = Chunks::of(&tokens.queries);
    let (queries, keys) = (chunks.cut(&tokens.queries)?, chunks.cut(&tokens.keys)?);
    let rates = chunks.cut(&tokens.rates)?;
    let fading = Fading::of(&chunks, &tokens.decays)?;

    let rated_keys = ops::multiply(&keys, &rates)?;
    let flipped_keys = keys.swap_axes(-1, -2)?;
    let system = ops::multiply(ops::matmul(&rated_keys, &flipped_keys)?, &fading.between)?;
    let solve = inverse(&system, &chunks)?;
    let fresh = ops::matmul(&solve, ops::multiply(chunks.cut(&tokens.values)?, &rates)?)?;
    let recalled = ops::matmul(&solve, ops::multiply(&rated_keys, &fading.left)?)?;
    let weights = ops::multiply(ops::matmul(&queries, &flipped_keys)?, &fading.between)?;
    let queries = ops::multiply(&queries, &fading.left)?;
    let keys = ops::multiply(&keys, &fading.to_end)?.swap_axes(-1, -2)?;

    let mut state = state.clone();
    let mut found = Vec::with_capacity(chunks.count as usize);
    for at in 0..chunks.count {
        let recalled = ops::matmul(recalled.index(at), &state)?;
        let corrections = ops::subtract(fresh.index(at), &recalled)?;
        let within = ops::matmul(weights.index(at), &corrections)?;
        found.push(ops::add(ops::matmul(queries.index(at), &state)?, &within)?);
        let added = ops::matmul(keys.index(at), &corrections)?;
        state = ops::add(ops::multiply(&state, fading.kept.index(at))?, &added)?;
    }
    Ok((chunks.join(&found)?, state))
}

/// `(1 + A)⁻¹` for the part `A` of `system [.., chunk, chunk]` below the diagonal.
///
/// Blocks on the diagonal are joined two by two: the inverse of `[[P, 0], [R, Q]]` is
/// `[[P⁻¹, 0], [-Q⁻¹ R P⁻¹, Q⁻¹]]`. A series of powers of `A` would need fewer products, but where keys are
/// alike its terms are so large that nothing is left of their sum.
fn inverse(system: &Array, chunks: &Chunks) -> Result<Array> {
    let size = chunks.size;
    let mut inverse = Array::eye::<f32>(size, None, None)?;
    let mut block = 1;
    while block < size {
        let (half, whole) = (block, 2 * block);
        let joins = chunks.mask(|row, column| {
            row / whole == column / whole && row % whole >= half && column % whole < half
        });
        let join = ops::select(joins, system, Array::from_f32(0.0))?;
        let joined = ops::matmul(ops::matmul(&inverse, &join)?, &inverse)?;
        inverse = ops::subtract(&inverse, &joined)?;
        block = whole;
    }
    Ok(inverse)
}

#[cfg(test)]
mod tests {
    use super::super::chunks::samples::{assert_near, numbers};
    use super::*;

    /// Tokens whose keys are alike where `alike` is near one: what makes the system hard to solve.
    fn tokens(length: i32, alike: f32) -> Tokens {
        let (heads, keys, values) = (3, 8, 6);
        let common = numbers(9, &[1, heads, keys]);
        let own = ops::multiply(numbers(1, &[length, heads, keys]), Array::from_f32(1.0 - alike)).unwrap();
        let mixed = ops::add(&own, ops::multiply(&common, Array::from_f32(alike)).unwrap()).unwrap();
        let norm = mixed.square().unwrap().sum_axis(-1, true).unwrap().sqrt().unwrap();
        let fading = ops::add(numbers(4, &[length, heads]), Array::from_f32(-1.0)).unwrap();
        let rates = ops::add(numbers(5, &[length, heads]), Array::from_f32(1.0)).unwrap();
        Tokens {
            queries: numbers(2, &[length, heads, keys]),
            keys: ops::divide(&mixed, &norm).unwrap(),
            values: numbers(3, &[length, heads, values]),
            decays: ops::multiply(&fading, Array::from_f32(0.02)).unwrap(),
            rates: ops::multiply(&rates, Array::from_f32(0.5)).unwrap(),
        }
    }

    #[test]
    fn chunks_give_what_single_steps_give() {
        for (length, alike) in [(2, 0.0), (64, 0.5), (65, 0.9), (150, 0.0), (200, 0.999)] {
            let tokens = tokens(length, alike);
            let before = numbers(7, &[3, 8, 6]);
            let (found, state) = delta_rule(&tokens, &before).unwrap();
            let mut by_step = before;
            let mut rows = Vec::new();
            for at in 0..length {
                let one = |x: &Array| x.index(at..=at);
                let Tokens { queries, keys, values, decays, rates } = &tokens;
                let token = Tokens {
                    queries: one(queries),
                    keys: one(keys),
                    values: one(values),
                    decays: one(decays),
                    rates: one(rates),
                };
                let (row, next) = delta_rule(&token, &by_step).unwrap();
                by_step = next;
                rows.push(row);
            }
            let rows = ops::concatenate(&rows, 0).unwrap();
            let what = format!("{length} tokens, {alike} alike");
            assert_near(&found, &rows, &what);
            assert_near(&state, &by_step, &what);
        }
    }
}
