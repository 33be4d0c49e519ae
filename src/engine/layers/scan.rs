//! The recurrence of Mamba 2 (Dao and Gu, arXiv:2405.21060): a matrix that maps keys to values, to which
//! every token adds, and which fades.
//!
//! With decay `a`, key `k`, value `v` and query `q` of a token, each head does `S ← a S + k vᵀ` and gives
//! `qᵀ S`. All in float32.

use mlx_rs::ops::indexing::IndexOp;
use mlx_rs::{Array, ops};

use super::chunks::{Chunks, Fading};
use crate::error::Result;

/// What the tokens of a step bring, for each of H heads.
pub struct Tokens {
    /// `[L, H, N]`.
    pub queries: Array,
    /// `[L, H, N]`.
    pub keys: Array,
    /// `[L, H, P]`.
    pub values: Array,
    /// Logarithms of the decays `[L, H]`, none above zero.
    pub decays: Array,
}

/// From the state `[H, N, P]` before the tokens: what they find, `[L, H, P]`, and the state after them.
pub fn scan(tokens: &Tokens, state: &Array) -> Result<(Array, Array)> {
    if tokens.queries.dim(0) == 1 { step(tokens, state) } else { chunked(tokens, state) }
}

fn step(tokens: &Tokens, state: &Array) -> Result<(Array, Array)> {
    let heads = tokens.queries.dim(1);
    let row = |x: &Array| x.reshape(&[heads, 1, -1]);
    let added = ops::multiply(tokens.keys.reshape(&[heads, -1, 1])?, row(&tokens.values)?)?;
    let state = ops::add(ops::multiply(state, row(&tokens.decays.exp()?)?)?, &added)?;
    let found = ops::matmul(row(&tokens.queries)?, &state)?;
    Ok((found.reshape(&[1, heads, -1])?, state))
}

/// The same for many tokens: all of a chunk at once, and only the state from chunk to chunk (section 6 of
/// the paper).
fn chunked(tokens: &Tokens, state: &Array) -> Result<(Array, Array)> {
    let chunks = Chunks::of(&tokens.queries);
    let (queries, keys) = (chunks.cut(&tokens.queries)?, chunks.cut(&tokens.keys)?);
    let values = chunks.cut(&tokens.values)?;
    let fading = Fading::of(&chunks, &tokens.decays)?;
    let weights = ops::multiply(ops::matmul(&queries, keys.swap_axes(-1, -2)?)?, &fading.between)?;
    let within = ops::matmul(&weights, &values)?;
    let queries = ops::multiply(&queries, &fading.left)?;
    let added = ops::matmul(ops::multiply(&keys, &fading.to_end)?.swap_axes(-1, -2)?, &values)?;

    let mut state = state.clone();
    let mut found = Vec::with_capacity(chunks.count as usize);
    for at in 0..chunks.count {
        found.push(ops::add(ops::matmul(queries.index(at), &state)?, within.index(at))?);
        state = ops::add(ops::multiply(&state, fading.kept.index(at))?, added.index(at))?;
    }
    Ok((chunks.join(&found)?, state))
}

#[cfg(test)]
mod tests {
    use super::super::chunks::samples::{assert_near, numbers};
    use super::*;

    #[test]
    fn chunks_give_what_single_steps_give() {
        for length in [2, 64, 65, 150] {
            let fading = ops::add(numbers(4, &[length, 3]), Array::from_f32(-1.0)).unwrap();
            let tokens = Tokens {
                queries: numbers(2, &[length, 3, 8]),
                keys: numbers(1, &[length, 3, 8]),
                values: numbers(3, &[length, 3, 6]),
                decays: ops::multiply(&fading, Array::from_f32(0.5)).unwrap(),
            };
            let before = numbers(7, &[3, 8, 6]);
            let (found, state) = scan(&tokens, &before).unwrap();
            let (mut by_step, mut rows) = (before, Vec::new());
            for at in 0..length {
                let one = |x: &Array| x.index(at..=at);
                let token = Tokens {
                    queries: one(&tokens.queries),
                    keys: one(&tokens.keys),
                    values: one(&tokens.values),
                    decays: one(&tokens.decays),
                };
                let (row, next) = scan(&token, &by_step).unwrap();
                by_step = next;
                rows.push(row);
            }
            let what = format!("{length} tokens");
            assert_near(&found, &ops::concatenate(&rows, 0).unwrap(), &what);
            assert_near(&state, &by_step, &what);
        }
    }
}
