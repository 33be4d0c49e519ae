//! Rotary positions (Su et al., arXiv:2104.09864), every text counted from 0.

use mlx_rs::Array;

/// The rotation of the first dimensions of each head.
#[derive(Debug, Clone, PartialEq)]
pub struct Rotation {
    /// Radians a position, one for each pair of dimensions.
    frequencies: Vec<f32>,
    /// Pairs are neighbours rather than halves.
    pub interleaved: bool,
}

impl Rotation {
    /// Frequencies `theta^(-2i / dimensions)`.
    pub fn new(dimensions: usize, theta: f64, interleaved: bool) -> Self {
        let frequency = |pair: usize| theta.powf(-2.0 * pair as f64 / dimensions as f64) as f32;
        Self { frequencies: (0..dimensions / 2).map(frequency).collect(), interleaved }
    }

    /// Dimensions that are rotated.
    pub fn dimensions(&self) -> usize {
        2 * self.frequencies.len()
    }

    /// `[positions, dimensions]` float32: of each position the cosines, then the sines.
    pub fn table(&self, positions: usize) -> Array {
        let mut values = Vec::with_capacity(positions * self.dimensions());
        for position in 0..positions {
            // The angle is rounded to float32 as in the implementations that models come from.
            let angles = || self.frequencies.iter().map(|frequency| position as f32 * frequency);
            values.extend(angles().map(f32::cos));
            values.extend(angles().map(f32::sin));
        }
        Array::from_slice(&values, &[positions as i32, self.dimensions() as i32])
    }
}
