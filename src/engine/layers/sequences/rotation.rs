//! Rotary positions (Su et al., arXiv:2104.09864), every sequence counted from 0.

use std::cell::RefCell;

use mlx_rs::Array;

/// The rotation of the first dimensions of each head.
#[derive(Debug, Clone)]
pub struct Rotation {
    /// Radians a position, one for each pair of dimensions.
    frequencies: Vec<f32>,
    /// Multiplies what is rotated.
    magnitude: f32,
    /// The largest table that was needed so far.
    made: RefCell<Option<Array>>,
}

impl Rotation {
    /// One of these frequencies, a pair of dimensions each.
    pub fn new(frequencies: Vec<f32>, magnitude: f32) -> Self {
        Self { frequencies, magnitude, made: RefCell::default() }
    }

    /// Frequencies `theta^(-2i / dimensions)`.
    pub fn of_base(dimensions: usize, theta: f64) -> Self {
        let frequency = |pair: usize| theta.powf(-2.0 * pair as f64 / dimensions as f64) as f32;
        Self::new((0..dimensions / 2).map(frequency).collect(), 1.0)
    }

    /// Dimensions that are rotated.
    pub fn dimensions(&self) -> usize {
        2 * self.frequencies.len()
    }

    /// `[P, dimensions]` float32, for at least so many positions P: of each the cosines, then the sines.
    pub fn table(&self, positions: usize) -> Array {
        let mut made = self.made.borrow_mut();
        if let Some(table) = made.as_ref().filter(|table| table.dim(0) as usize >= positions) {
            return table.clone();
        }
        let positions = positions.next_power_of_two();
        let mut values = Vec::with_capacity(positions * self.dimensions());
        for position in 0..positions {
            // The angle is rounded to float32 as in the implementations that models come from.
            let angles = || self.frequencies.iter().map(|frequency| position as f32 * frequency);
            values.extend(angles().map(|angle| angle.cos() * self.magnitude));
            values.extend(angles().map(|angle| angle.sin() * self.magnitude));
        }
        made.insert(Array::from_slice(&values, &[positions as i32, self.dimensions() as i32])).clone()
    }
}
