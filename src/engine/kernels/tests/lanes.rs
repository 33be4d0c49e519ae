use half::{bf16, f16};

use super::Random;
use crate::engine::config::style::Activation;
use crate::engine::format::weight::FloatType;
use crate::engine::kernels::isa::{Isa, Task};
use crate::engine::kernels::lanes::{LANES, Lanes, activate, exp, silu, tanh};

/// Applies functions of one vector to many values.
struct Map<'a> {
    from: &'a [f32],
    exps: &'a mut [f32],
    silus: &'a mut [f32],
    tanhs: &'a mut [f32],
}

impl Task for Map<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        assert!(self.from.len().is_multiple_of(LANES));
        for at in (0..self.from.len()).step_by(LANES) {
            // SAFETY: whole vectors, in bounds by the assertion.
            unsafe {
                let x = V::load(self.from[at..].as_ptr());
                exp(x).store(self.exps[at..].as_mut_ptr());
                silu(x).store(self.silus[at..].as_mut_ptr());
                tanh(x).store(self.tanhs[at..].as_mut_ptr());
            }
        }
    }
}

#[test]
fn exp_and_silu_are_accurate() {
    let from: Vec<f32> = (-1392..1392).map(|i| i as f32 / 16.0 + 0.01).collect();
    assert!(from.len().is_multiple_of(LANES) && from[0] < -86.9 && from[from.len() - 1] > 86.9);
    for isa in Isa::available() {
        let [mut exps, mut silus, mut tanhs] = std::array::from_fn(|_| vec![0.0; from.len()]);
        let map = Map { from: &from, exps: &mut exps, silus: &mut silus, tanhs: &mut tanhs };
        // SAFETY: the level is available.
        unsafe { isa.run(map) };
        for (x, tanh) in from.iter().zip(&tanhs) {
            let error = (f64::from(*tanh) - f64::from(*x).tanh()).abs();
            assert!(error < 3e-7, "{isa:?}: tanh({x}) = {tanh}, off by {error:e}");
        }
        for ((x, exp), silu) in from.iter().map(|&x| f64::from(x)).zip(&exps).zip(&silus) {
            let error = (f64::from(*exp) / x.exp() - 1.0).abs();
            assert!(error < 3e-7, "{isa:?}: exp({x}) = {exp}, off by {error:e}");
            let error = (f64::from(*silu) / (x / (1.0 + (-x).exp())) - 1.0).abs();
            assert!(error < 6e-7, "{isa:?}: silu({x}) = {silu}, off by {error:e}");
        }
    }
}

struct Gelus<'a>(&'a mut [f32]);

impl Task for Gelus<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        for vector in self.0.chunks_exact_mut(LANES) {
            // SAFETY: whole vectors.
            unsafe { activate(Activation::Gelu, V::load(vector.as_ptr())).store(vector.as_mut_ptr()) };
        }
    }
}

/// Φ by its series (Marsaglia, 2004), summed up in float64.
fn normal(x: f64) -> f64 {
    let (mut sum, mut term, mut n) = (x, x, 1.0);
    while n < 400.0 {
        n += 2.0;
        term *= x * x / n;
        sum += term;
    }
    0.5 + sum * (-0.5 * x * x).exp() / std::f64::consts::TAU.sqrt()
}

#[test]
fn gelu_is_accurate() {
    let from: Vec<f32> = (-1600..1600).map(|i| i as f32 / 200.0 + 0.001).collect();
    for isa in Isa::available() {
        let mut gelus = from.clone();
        // SAFETY: the level is available.
        unsafe { isa.run(Gelus(&mut gelus)) };
        for (x, gelu) in from.iter().zip(&gelus) {
            let error = (f64::from(*gelu) - f64::from(*x) * normal(f64::from(*x))).abs();
            assert!(
                error <= 2e-7 * f64::from(x.abs()).max(1.0),
                "{isa:?}: gelu({x}) = {gelu}, off by {error:e}"
            );
        }
        let mut ends = [0.0; LANES];
        ends[..4].copy_from_slice(&[-1e4, 1e4, f32::NAN, -0.0]);
        // SAFETY: the level is available.
        unsafe { isa.run(Gelus(&mut ends)) };
        assert!(
            ends[0].abs() < 1e-30
                && ends[1].to_bits() == 1e4_f32.to_bits()
                && ends[2].is_nan()
                && ends[3] == 0.0,
            "{isa:?} {ends:?}"
        );
    }
}

#[test]
fn exp_and_silu_end_well() {
    let mut from = [0.0; LANES];
    from[..6].copy_from_slice(&[f32::NEG_INFINITY, -1e30, -89.0, 1e30, f32::NAN, f32::INFINITY]);
    for isa in Isa::available() {
        let (mut exps, mut silus, mut tanhs) = ([0.0; LANES], [0.0; LANES], [0.5; LANES]);
        let map = Map { from: &from, exps: &mut exps, silus: &mut silus, tanhs: &mut tanhs };
        // SAFETY: the level is available.
        unsafe { isa.run(map) };
        assert_eq!((tanhs[0], tanhs[1], tanhs[3], tanhs[6]), (-1.0, -1.0, 1.0, 0.0), "{isa:?}");
        assert!(tanhs[4].is_nan() && tanhs[5] >= 1.0, "{isa:?} {tanhs:?}");
        // Masked scores must have no weight at all.
        assert_eq!(exps[..3], [0.0; 3], "{isa:?}");
        assert!(exps[3] > 1e38 && exps[3].is_finite() && exps[4].is_nan(), "{isa:?} {exps:?}");
        assert_eq!(exps[6].to_bits(), 1.0_f32.to_bits(), "{isa:?}");
        assert!(silus[2].abs() < 1e-36 && silus[3] >= 1e30 && silus[4].is_nan(), "{isa:?} {silus:?}");
        assert_eq!(silus[6].to_bits(), 0.0_f32.to_bits(), "{isa:?}");
    }
}

/// Transposes a square and multiplies its rows by the first one.
struct Square<'a> {
    from: &'a [f32],
    transposed: &'a mut [f32],
    products: &'a mut [f32],
    length: usize,
}

impl Task for Square<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        const STRIDE: usize = 20;
        assert!(self.from.len() == LANES * STRIDE && self.transposed.len() == LANES * STRIDE);
        // SAFETY: squares of 16 lie within rows of 20, and products have at most 20 terms.
        unsafe {
            V::transpose(self.from.as_ptr(), STRIDE, self.transposed.as_mut_ptr(), STRIDE);
            let rows = std::array::from_fn(|i| self.from[i * STRIDE..].as_ptr());
            V::products(self.from.as_ptr(), rows, self.length).store(self.products.as_mut_ptr());
        }
    }
}

#[test]
fn squares_are_transposed_and_multiplied() {
    let mut random = Random(41);
    // Small whole numbers: sums are exact in any order.
    let from: Vec<f32> = (0..LANES * 20).map(|_| random.below(9) as f32 - 4.0).collect();
    for isa in Isa::available() {
        for length in [1, 4, 15, 16, 17, 20] {
            let (mut transposed, mut products) = (vec![0.5; from.len()], [0.0; LANES]);
            let task = Square { from: &from, transposed: &mut transposed, products: &mut products, length };
            // SAFETY: the level is available.
            unsafe { isa.run(task) };
            for i in 0..LANES {
                for j in 0..LANES {
                    assert!((transposed[j * 20 + i] - from[i * 20 + j]).abs() < 0.1, "{isa:?} {i} {j}");
                }
                let expected: f32 = (0..length).map(|k| from[k] * from[i * 20 + k]).sum();
                assert!((products[i] - expected).abs() < 0.1, "{isa:?}: product {i} of {length}");
            }
        }
    }
}

/// Stores numbers as half floats, and loads them again.
struct Halves<'a> {
    from: &'a [f32],
    stored: &'a mut [u16],
    loaded: &'a mut [f32],
}

impl Task for Halves<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let stored = self.stored.as_chunks_mut::<LANES>().0.iter_mut();
        let loaded = self.loaded.as_chunks_mut::<LANES>().0.iter_mut();
        for ((from, stored), loaded) in self.from.as_chunks::<LANES>().0.iter().zip(stored).zip(loaded) {
            // SAFETY: whole vectors.
            unsafe {
                V::load(from.as_ptr()).store_f16(stored.as_mut_ptr().cast());
                V::load_f16(stored.as_ptr().cast()).store(loaded.as_mut_ptr());
            }
        }
    }
}

#[test]
fn half_floats_are_the_nearest_ones_and_never_infinite() {
    // Every half float, what lies in the middle between two, and what lies just beside that.
    let mut from = Vec::new();
    for bits in 0..0x7c00_u16 {
        let [low, high] = [bits, bits + 1].map(|bits| f16::from_bits(bits).to_f32().min(65536.0));
        let middle = low.midpoint(high);
        let near = [low, middle, f32::from_bits(middle.to_bits() - 1), f32::from_bits(middle.to_bits() + 1)];
        from.extend(near.into_iter().flat_map(|x| [x, -x]));
    }
    from.extend([65504.0, 65520.0, 1e5, f32::MAX, f32::INFINITY, -1e30, f32::NEG_INFINITY, f32::NAN]);
    from.extend([0.0; 2 * LANES]);
    from.truncate(from.len() / LANES * LANES);
    for isa in Isa::available() {
        let (mut stored, mut loaded) = (vec![0; from.len()], vec![0.0; from.len()]);
        // SAFETY: the level is available.
        unsafe { isa.run(Halves { from: &from, stored: &mut stored, loaded: &mut loaded }) };
        for ((x, stored), loaded) in from.iter().zip(stored).zip(loaded) {
            let expected = f16::from_f32(x.clamp(-65504.0, 65504.0));
            assert!(expected.is_nan() == x.is_nan() && !expected.is_infinite());
            let found = f16::from_bits(stored);
            assert!(found == expected || x.is_nan() && found.is_nan(), "{isa:?}: {x} is stored as {found}");
            assert!(loaded.to_bits() == expected.to_f32().to_bits() || x.is_nan() && loaded.is_nan());
        }
    }
}

/// Bits of words as numbers, where they lie and moved down, and the halves of words as floats.
struct Words<'a> {
    all: &'a [u32; LANES],
    in_place: &'a mut [f32; LANES],
    /// Of bits below the highest eight.
    as_floats: &'a mut [f32; LANES],
    moved: &'a mut [f32; LANES],
    halves: [&'a mut [f32; LANES]; 2],
    float: FloatType,
    from: usize,
}

impl Task for Words<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        // SAFETY: whole vectors.
        unsafe {
            let words = V::load_words(self.all.as_ptr().cast());
            V::bits_in_place::<4>(words, self.from).store(self.in_place.as_mut_ptr());
            if self.from <= 20 {
                V::bits_as_float::<4>(words, self.from).store(self.as_floats.as_mut_ptr());
            }
            V::low_bits::<4>(V::without(words, self.from)).store(self.moved.as_mut_ptr());
            let halves = V::load_halves_as(self.float, self.all.as_ptr().cast());
            for (half, to) in halves.into_iter().zip(self.halves) {
                half.store(to.as_mut_ptr());
            }
        }
    }
}

#[test]
fn words_are_the_same_numbers_however_they_are_read() {
    let mut random = Random(71);
    for from in 0..28 {
        // Without the top bit of either half's exponent: no float is infinite or none.
        let words: [u32; LANES] = std::array::from_fn(|_| random.next() as u32 & 0xbfff_bfff);
        for float in [FloatType::F16, FloatType::BF16] {
            for isa in Isa::available() {
                let [mut in_place, mut as_floats, mut moved, mut low, mut high] = [[0.5; LANES]; 5];
                let task = Words {
                    all: &words,
                    in_place: &mut in_place,
                    as_floats: &mut as_floats,
                    moved: &mut moved,
                    halves: [&mut low, &mut high],
                    float,
                    from,
                };
                // SAFETY: the level is available.
                unsafe { isa.run(task) };
                for (lane, word) in words.iter().enumerate() {
                    let number = ((word >> from) & 15) as f32;
                    assert_eq!(moved[lane].to_bits(), number.to_bits(), "{isa:?}, from {from}");
                    let raised = number * (1_u32 << from) as f32;
                    assert_eq!(in_place[lane].to_bits(), raised.to_bits(), "{isa:?}, from {from}");
                    if from <= 20 {
                        let lying = word & 15 << from;
                        assert_eq!(as_floats[lane].to_bits(), lying, "{isa:?}, from {from}");
                        let units = f32::from_bits(lying) / f32::from_bits(1);
                        assert_eq!(units.to_bits(), raised.to_bits(), "of so many 2⁻¹⁴⁹");
                    }
                    for (half, bits) in [(low[lane], *word as u16), (high[lane], (word >> 16) as u16)] {
                        let expected = match float {
                            FloatType::BF16 => bf16::from_bits(bits).to_f32(),
                            _ => f16::from_bits(bits).to_f32(),
                        };
                        assert_eq!(half.to_bits(), expected.to_bits(), "{isa:?}, {float:?}");
                    }
                }
            }
        }
    }
}

/// Bytes as numbers, and as subnormal floats.
struct Bytes<'a> {
    all: &'a [u8; LANES],
    numbers: &'a mut [f32; LANES],
    as_floats: &'a mut [f32; LANES],
}

impl Task for Bytes<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        // SAFETY: whole vectors.
        unsafe {
            V::load_bytes(self.all.as_ptr()).store(self.numbers.as_mut_ptr());
            V::load_bytes_as_floats(self.all.as_ptr()).store(self.as_floats.as_mut_ptr());
        }
    }
}

#[test]
fn bytes_are_the_same_numbers_however_they_are_read() {
    for first in (0..=255).step_by(LANES) {
        let all: [u8; LANES] = std::array::from_fn(|lane| (first + lane) as u8);
        for isa in Isa::available() {
            let [mut numbers, mut as_floats] = [[0.5; LANES]; 2];
            let task = Bytes { all: &all, numbers: &mut numbers, as_floats: &mut as_floats };
            // SAFETY: the level is available.
            unsafe { isa.run(task) };
            for (lane, &byte) in all.iter().enumerate() {
                assert_eq!(numbers[lane].to_bits(), f32::from(byte).to_bits(), "{isa:?}");
                assert_eq!(as_floats[lane].to_bits(), u32::from(byte), "{isa:?}");
            }
        }
    }
}
