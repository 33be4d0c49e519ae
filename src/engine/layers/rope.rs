//! Rotary position embedding (Su et al., 2021) and the ways models stretch it over longer contexts.

use mlx_rs::{Array, fast};

use crate::engine::config::{self, RopeScaling};
use crate::error::Result;

/// Rotates pairs of a head's first `dimensions` elements by the position times a frequency a pair.
#[derive(Debug)]
pub struct Rope {
    pub dimensions: usize,
    /// Pairs are neighbours `(2i, 2i + 1)`, as in GGUF files of Llama; else `(i, i + dimensions / 2)`.
    pub interleaved: bool,
    /// Radians a position, `[dimensions / 2]` float32.
    pub frequencies: Array,
    /// Their reciprocals: the form in which MLX's operation takes them.
    periods: Array,
}

impl Rope {
    pub fn new(config: &config::Rope) -> Self {
        let frequencies = frequencies(config);
        let size = frequencies.len() as i32;
        let periods: Vec<f32> = frequencies.iter().map(|frequency| frequency.recip()).collect();
        Self {
            dimensions: config.dims,
            interleaved: config.traditional,
            frequencies: Array::from_slice(&frequencies, &[size]),
            periods: Array::from_slice(&periods, &[size]),
        }
    }

    /// `x [1, heads, L, head_dim]`, whose first token stands at `offset`.
    pub fn forward(&self, x: &Array, offset: usize) -> Result<Array> {
        let base: Option<f32> = None;
        Ok(fast::rope(x, self.dimensions as i32, self.interleaved, base, 1.0, offset as i32, &self.periods)?)
    }

    /// The arrays to evaluate at load.
    pub fn arrays(&self) -> Vec<&Array> {
        vec![&self.frequencies, &self.periods]
    }
}

/// Radians a position for each pair: `theta^(-2i / dimensions)`, then scaled.
pub fn frequencies(config: &config::Rope) -> Vec<f32> {
    let plain = (0..config.dims / 2).map(|pair| {
        let exponent = -2.0 * pair as f64 / config.dims as f64;
        f64::from(config.theta).powf(exponent)
    });
    let scaled: Vec<f64> = match &config.scaling {
        RopeScaling::Default => plain.collect(),
        RopeScaling::Linear { factor } => plain.map(|frequency| frequency / f64::from(*factor)).collect(),
        RopeScaling::Factors(factors) => {
            plain.zip(factors).map(|(frequency, factor)| frequency / f64::from(*factor)).collect()
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
                    let turns = context * frequency / std::f64::consts::TAU;
                    let share = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                    frequency * (share + (1.0 - share) / factor)
                })
                .collect()
        }
    };
    scaled.into_iter().map(|frequency| frequency as f32).collect()
}
