//! Arithmetic on logits that is fast, exact enough, and the same on every platform.

use crate::error::{Code, Error, Result};

/// The largest logit, after a check of all.
pub(super) fn largest(logits: &[f32]) -> Result<f32> {
    // Neither pass exits early, so that both run at vector speed; NaN is not below infinity.
    let sound = logits.iter().filter(|&&logit| logit < f32::INFINITY).count();
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, |a, b| if b > a { b } else { a });
    if sound < logits.len() || largest == f32::NEG_INFINITY {
        return Err(Error::new(Code::IntegrityFailed, "the model computed logits that are not numbers")
            .hint("check the model's files: damaged or wrongly converted weights do this"));
    }
    Ok(largest)
}

/// The index at which the running sum of `weights` passes `draw` of the whole.
pub(super) fn pick(weights: &[f32], draw: f64) -> usize {
    let total: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
    let mut left = draw * total;
    let mut last = 0;
    for (index, &weight) in weights.iter().enumerate() {
        if weight > 0.0 {
            left -= f64::from(weight);
            last = index;
            if left < 0.0 {
                break;
            }
        }
    }
    last
}

/// e^x for x <= 0 within 2e-7 (relative): a polynomial after taking out powers of two (Cody and
/// Waite's reduction). Vectorizes, and is the same on every platform, which libm's is not.
pub(super) fn exp(x: f32) -> f32 {
    /// Adding it rounds to an integer that then sits in the low bits of the mantissa.
    const ROUND: f32 = 12_582_912.0;
    let clamped = x.max(-87.0);
    let power = clamped * std::f32::consts::LOG2_E + ROUND - ROUND;
    let rest = clamped - power * 0.693_359_4 + power * 2.121_944_4e-4;
    let mut value = 1.987_569_1e-4;
    for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5, 1.0, 1.0] {
        value = value * rest + coefficient;
    }
    let scale = f32::from_bits(((power as i32 + 127) as u32) << 23);
    if x < -87.0 { 0.0 } else { value * scale }
}
