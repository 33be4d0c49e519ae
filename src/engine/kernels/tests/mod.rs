//! The kernels against MLX's own operations, over random shapes with fixed seeds.

mod attention;
mod chains;
mod experts;
mod lanes;
mod packed;
mod project;
mod rows;
mod select;
mod sequences;
mod sum;
mod together;

use mlx_rs::{Array, ops};

use crate::engine::config::style::Activation;
use crate::engine::format::weight::{FloatType, Floats, WeightData};

const ACTIVATIONS: [Activation; 5] =
    [Activation::Silu, Activation::Gelu, Activation::GeluTanh, Activation::Relu, Activation::ReluSquared];

/// A small generator: the tests must not depend on another crate's stream of numbers.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        // SplitMix64 (Steele, Lea, Flood, 2014).
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// Uniform in [-1, 1).
    fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    }

    fn array(&mut self, shape: &[usize]) -> Array {
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| self.float()).collect();
        Array::from_slice(&values, &shape.iter().map(|&n| n as i32).collect::<Vec<_>>())
    }
}

fn floats(dtype: FloatType, values: &[f32]) -> Floats {
    let bytes = match dtype {
        FloatType::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        FloatType::F16 => values.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect(),
        FloatType::BF16 => values.iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()).collect(),
    };
    Floats { dtype, bytes }
}

fn read(floats: &Floats) -> Vec<f32> {
    (0..floats.bytes.len() / floats.dtype.size())
        .map(|i| super::packed::read_float(floats.dtype, &floats.bytes, i))
        .collect()
}

/// A random weight, and the same as a float32 matrix by MLX's own dequantization.
fn affine(
    random: &mut Random,
    rows: usize,
    columns: usize,
    group: usize,
    bits: usize,
) -> (WeightData, Array) {
    let dtype = random.pick(&[FloatType::F32, FloatType::F16, FloatType::BF16]);
    let groups = rows * columns / group;
    let packed: Vec<u32> = (0..rows * columns * bits / 32).map(|_| random.next() as u32).collect();
    let top = ((1 << bits) - 1) as f32;
    let scales: Vec<f32> = (0..groups).map(|_| (random.float() + 1.5) / top).collect();
    let biases: Vec<f32> = (0..groups).map(|_| random.float() - 1.0).collect();
    let (scales, biases) = (floats(dtype, &scales), floats(dtype, &biases));
    let dense = ops::dequantize(
        Array::from_slice(&packed, &[rows as i32, (columns * bits / 32) as i32]),
        Array::from_slice(&read(&scales), &[rows as i32, (columns / group) as i32]),
        &Array::from_slice(&read(&biases), &[rows as i32, (columns / group) as i32]),
        group as i32,
        bits as i32,
    )
    .unwrap();
    (WeightData::Affine { rows, columns, group, bits, packed, scales, biases }, dense)
}

fn dense(random: &mut Random, rows: usize, columns: usize) -> (WeightData, Array) {
    let dtype = random.pick(&[FloatType::F32, FloatType::F16, FloatType::BF16]);
    let values: Vec<f32> = (0..rows * columns).map(|_| random.float()).collect();
    let values = floats(dtype, &values);
    let array = Array::from_slice(&read(&values), &[rows as i32, columns as i32]);
    (WeightData::Dense { shape: vec![rows, columns], values }, array)
}

/// Asserts that the largest difference is within `tolerance` of the largest expected magnitude.
///
/// float32 sums of a few thousand terms in another order differ by some 1e-6 of their terms' size; where
/// the terms cancel, that is more of the result, hence the comparison with the largest one.
fn assert_close(ours: &Array, expected: &Array, tolerance: f32, what: &str) {
    assert_eq!(ours.shape(), expected.shape(), "{what}");
    let expected = expected.contiguous().unwrap();
    let (ours, expected) = (ours.as_slice::<f32>(), expected.as_slice::<f32>());
    let largest = expected.iter().fold(1e-3_f32, |m, v| m.max(v.abs()));
    for (index, (a, b)) in ours.iter().zip(expected).enumerate() {
        let difference = (a - b).abs();
        assert!(difference <= tolerance * largest, "{what}: {a} for {b} at {index} (largest {largest})");
    }
}
