//! Log probabilities of what was chosen and of what else could have been.

use super::cuts;
use super::numeric::{exp, largest};
use crate::error::{Error, Result};

/// Natural logarithms of probabilities by the logits as they are: of the token `chosen`, and of the
/// `count` most likely ones with their ids, the likeliest first.
pub fn likely(logits: &[f32], chosen: u32, count: usize) -> Result<(f64, Vec<(u32, f64)>)> {
    let largest = largest(logits)?;
    let total: f64 = logits.iter().map(|&logit| f64::from(exp(logit - largest))).sum();
    let of = |id: u32| -> Option<f64> { Some(f64::from(logits.get(id as usize)? - largest) - total.ln()) };
    let chosen = of(chosen).ok_or_else(|| Error::internal("a token without a logit was chosen"))?;
    let best = cuts::best(logits, count.min(logits.len()));
    Ok((chosen, best.into_iter().filter_map(|id| Some((id, of(id)?))).collect()))
}
