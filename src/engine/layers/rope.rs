//! Rotary position embedding (Su et al., 2021) and the ways models stretch it over longer contexts.

use std::f64::consts::TAU;

use mlx_rs::{Array, fast, ops};

use super::sequences::Rotation;
use crate::engine::config::{self, RopeScaling};
use crate::error::Result;

/// Rotates pairs of a head's first `dimensions` elements by the position times a frequency a pair.
#[derive(Debug)]
pub struct Rope {
    pub dimensions: usize,
    /// Pairs are neighbours `(2i, 2i + 1)`, as in GGUF files of Llama; else `(i, i + dimensions / 2)`.
    pub interleaved: bool,
    /// Multiplies the rotated dimensions.
    pub magnitude: f32,
    /// Radians a position, `[dimensions / 2]` float32.
    pub frequencies: Array,
    /// Their reciprocals: the form in which MLX's operation takes them.
    periods: Array,
    /// The magnitude of each dimension of a head, where it is not 1 for all.
    magnitudes: Option<Array>,
    /// The same for sequences without a cache.
    pub rotation: Rotation,
}

impl Rope {
    /// For a context of so many tokens: scalings that change with the length are fixed by the whole
    /// context, since keys stay in the cache as they were rotated.
    pub fn new(config: &config::Rope, head_dim: usize, context: usize) -> Self {
        let frequencies = frequencies(config, context);
        let size = frequencies.len() as i32;
        let periods: Vec<f32> = frequencies.iter().map(|frequency| frequency.recip()).collect();
        let is_one = config.magnitude.to_bits() == 1.0_f32.to_bits();
        let magnitudes: Vec<f32> =
            (0..head_dim).map(|at| if at < config.dims { config.magnitude } else { 1.0 }).collect();
        Self {
            rotation: Rotation::new(frequencies.clone(), config.magnitude),
            dimensions: config.dims,
            interleaved: config.traditional,
            magnitude: config.magnitude,
            frequencies: Array::from_slice(&frequencies, &[size]),
            periods: Array::from_slice(&periods, &[size]),
            magnitudes: (!is_one).then(|| Array::from_slice(&magnitudes, &[head_dim as i32])),
        }
    }

    /// `x [1, heads, L, head_dim]`, whose first token stands at `offset`.
    pub fn forward(&self, x: &Array, offset: usize) -> Result<Array> {
        let base: Option<f32> = None;
        let rotated =
            fast::rope(x, self.dimensions as i32, self.interleaved, base, 1.0, offset as i32, &self.periods)?;
        match &self.magnitudes {
            Some(magnitudes) => Ok(ops::multiply(&rotated, magnitudes.as_dtype(x.dtype())?)?),
            None => Ok(rotated),
        }
    }

    /// The arrays to evaluate at load.
    pub fn arrays(&self) -> impl Iterator<Item = &Array> {
        [&self.frequencies, &self.periods].into_iter().chain(&self.magnitudes)
    }
}

/// Radians a position for each pair: `theta^(-2i / dimensions)`, then scaled for a context.
pub fn frequencies(config: &config::Rope, context: usize) -> Vec<f32> {
    let dims = config.dims as f64;
    let mut theta = f64::from(config.theta);
    if let RopeScaling::Dynamic { factor, original_max_position_embeddings } = config.scaling {
        let (factor, original) = (f64::from(factor), f64::from(original_max_position_embeddings));
        let length = original.max(context as f64);
        theta *= (factor * length / original - (factor - 1.0)).powf(dims / (dims - 2.0));
    }
    let plain = (0..config.dims / 2).map(|pair| theta.powf(-2.0 * pair as f64 / dims));
    let divided = |factors: &[f32]| -> Vec<f64> {
        plain.clone().zip(factors).map(|(frequency, factor)| frequency / f64::from(*factor)).collect()
    };
    let scaled: Vec<f64> = match &config.scaling {
        RopeScaling::Default | RopeScaling::Dynamic { .. } => plain.collect(),
        RopeScaling::Proportional { share, factor } => {
            let turning = (f64::from(*share) * dims / 2.0) as usize;
            let turn = |(pair, frequency): (usize, f64)| {
                if pair < turning { frequency / f64::from(*factor) } else { 0.0 }
            };
            plain.enumerate().map(turn).collect()
        }
        RopeScaling::Linear { factor } => plain.map(|frequency| frequency / f64::from(*factor)).collect(),
        RopeScaling::Factors(factors) => divided(factors),
        RopeScaling::Long { short, long, original_max_position_embeddings } => {
            let is_long = context as f64 > f64::from(*original_max_position_embeddings);
            divided(if is_long { long } else { short })
        }
        RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings,
        } => {
            // Waves longer than the original context are slowed by `factor`, short ones stay, and
            // the band between is interpolated.
            let (factor, low, high) =
                (f64::from(*factor), f64::from(*low_freq_factor), f64::from(*high_freq_factor));
            let context = f64::from(*original_max_position_embeddings);
            plain
                .map(|frequency| {
                    let turns = context * frequency / TAU;
                    let share = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                    frequency * (share + (1.0 - share) / factor)
                })
                .collect()
        }
        RopeScaling::Yarn { factor, original_max_position_embeddings, beta_fast, beta_slow, truncate } => {
            let factor = f64::from(*factor);
            // The pair that turns so often in the original context.
            let pair = |turns: f32| {
                let length = f64::from(*original_max_position_embeddings);
                dims * (length / (f64::from(turns) * TAU)).ln() / (2.0 * theta.ln())
            };
            let (mut low, mut high) = (pair(*beta_fast), pair(*beta_slow));
            if *truncate {
                (low, high) = (low.floor(), high.ceil());
            }
            let (low, mut high) = (low.max(0.0), high.min(dims - 1.0));
            if high - low == 0.0 {
                high += 0.001;
            }
            plain
                .enumerate()
                .map(|(pair, frequency)| {
                    let slowed = ((pair as f64 - low) / (high - low)).clamp(0.0, 1.0);
                    frequency * (1.0 - slowed) + frequency / factor * slowed
                })
                .collect()
        }
    };
    scaled.into_iter().map(|frequency| frequency as f32).collect()
}
