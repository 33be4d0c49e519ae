//! Lanes as two AVX2 registers.

#[allow(clippy::wildcard_imports, reason = "dozens of instructions")]
use std::arch::x86_64::*;

use super::{LANES, Lanes, MOST_HALF};
use crate::engine::format::weight::FloatType;

#[derive(Clone, Copy)]
pub(in crate::engine::kernels) struct Avx2(__m256, __m256);

macro_rules! both {
    ($($name:ident $instruction:ident;)*) => {$(
        #[inline(always)]
        unsafe fn $name(self, other: Self) -> Self {
            // SAFETY: the caller's.
            unsafe { Self($instruction(self.0, other.0), $instruction(self.1, other.1)) }
        }
    )*};
}

impl Lanes for Avx2 {
    type Words = (__m256i, __m256i);

    // Twelve registers of sums, two of weights, one of activations; one is left.
    const TOKENS: usize = 6;
    const VECTORS: usize = 1;

    const IN_PLACE: bool = true;
    const SUBNORMALS: bool = true;
    const MASKS: usize = 3;
    // Of 16 registers six are sums, two words and three masks; a fourth sum would leave too few for what is between.
    const CHAINS: usize = 3;

    both! {
        add _mm256_add_ps;
        sub _mm256_sub_ps;
        mul _mm256_mul_ps;
        div _mm256_div_ps;
        max _mm256_max_ps;
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: the caller's.
        unsafe { Self(_mm256_set1_ps(value), _mm256_set1_ps(value)) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's.
        unsafe { Self(_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's.
        unsafe {
            _mm256_storeu_ps(to, self.0);
            _mm256_storeu_ps(to.add(8), self.1);
        }
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const u8) -> Self {
        // SAFETY: the caller's.
        unsafe {
            Self(
                _mm256_cvtph_ps(_mm_loadu_si128(from.cast())),
                _mm256_cvtph_ps(_mm_loadu_si128(from.add(16).cast())),
            )
        }
    }

    #[inline(always)]
    unsafe fn store_f16(self, to: *mut u8) {
        // SAFETY: the caller's.
        unsafe {
            let Self(low, high) = self.clamp(Self::splat(-MOST_HALF), Self::splat(MOST_HALF));
            _mm_storeu_si128(to.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(low));
            _mm_storeu_si128(to.add(16).cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(high));
        }
    }

    #[inline(always)]
    unsafe fn load_fp8(from: *const u8) -> Self {
        // As half floats, whose exponents have a bias that is 8 larger.
        // SAFETY: the caller's.
        unsafe {
            let half = |at: usize| {
                let codes = _mm_cvtepu8_epi16(_mm_loadl_epi64(from.add(at).cast()));
                let sign = _mm_slli_epi16::<8>(_mm_and_si128(codes, _mm_set1_epi16(0x80)));
                let rest = _mm_slli_epi16::<7>(_mm_and_si128(codes, _mm_set1_epi16(0x7f)));
                _mm256_mul_ps(_mm256_cvtph_ps(_mm_or_si128(sign, rest)), _mm256_set1_ps(256.0))
            };
            Self(half(0), half(8))
        }
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const u8) -> Self {
        // SAFETY: the caller's.
        unsafe {
            let half = |at: usize| {
                let bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.add(at).cast()));
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits))
            };
            Self(half(0), half(16))
        }
    }

    #[inline(always)]
    unsafe fn load_bytes(from: *const u8) -> Self {
        // SAFETY: the caller's.
        unsafe {
            let half =
                |at: usize| _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(from.add(at).cast())));
            Self(half(0), half(8))
        }
    }

    #[inline(always)]
    unsafe fn load_signed_bytes(from: *const u8) -> Self {
        // SAFETY: the caller's.
        unsafe {
            let half =
                |at: usize| _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from.add(at).cast())));
            Self(half(0), half(8))
        }
    }

    #[inline(always)]
    unsafe fn load_words(from: *const u8) -> Self::Words {
        // SAFETY: the caller's.
        unsafe { (_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(32).cast())) }
    }

    #[inline(always)]
    unsafe fn load_halves(from: *const u8) -> Self::Words {
        // SAFETY: the caller's.
        unsafe {
            let half = |at: usize| _mm256_cvtepu16_epi32(_mm_loadu_si128(from.add(at).cast()));
            (half(0), half(16))
        }
    }

    #[inline(always)]
    unsafe fn low_bits<const BITS: usize>(words: Self::Words) -> Self {
        // SAFETY: the caller's.
        unsafe {
            let mask = _mm256_set1_epi32((1 << BITS) - 1);
            Self(
                _mm256_cvtepi32_ps(_mm256_and_si256(words.0, mask)),
                _mm256_cvtepi32_ps(_mm256_and_si256(words.1, mask)),
            )
        }
    }

    #[inline(always)]
    unsafe fn bits_in_place<const BITS: usize>(words: Self::Words, from: usize) -> Self {
        // SAFETY: the caller's.
        unsafe {
            let mask = _mm256_set1_epi32(((1 << BITS) - 1) << from);
            Self(
                _mm256_cvtepi32_ps(_mm256_and_si256(words.0, mask)),
                _mm256_cvtepi32_ps(_mm256_and_si256(words.1, mask)),
            )
        }
    }

    #[inline(always)]
    unsafe fn bits_as_float<const BITS: usize>(words: Self::Words, from: usize) -> Self {
        // SAFETY: the caller's.
        unsafe {
            let mask = _mm256_set1_epi32(((1 << BITS) - 1) << from);
            Self(
                _mm256_castsi256_ps(_mm256_and_si256(words.0, mask)),
                _mm256_castsi256_ps(_mm256_and_si256(words.1, mask)),
            )
        }
    }

    #[inline(always)]
    unsafe fn load_bytes_as_floats(from: *const u8) -> Self {
        // SAFETY: the caller's.
        unsafe {
            let half =
                |at: usize| _mm256_castsi256_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(from.add(at).cast())));
            Self(half(0), half(8))
        }
    }

    #[inline(always)]
    unsafe fn look_up(words: Self::Words, numbers: &[f32; 16]) -> Self {
        // SAFETY: the caller's.
        unsafe {
            let (low, high) = (_mm256_loadu_ps(numbers.as_ptr()), _mm256_loadu_ps(numbers.as_ptr().add(8)));
            // Three bits choose within a half, the fourth, moved to the sign, between the halves.
            let half = |words: __m256i| {
                let second = _mm256_castsi256_ps(_mm256_slli_epi32::<28>(words));
                let (low, high) =
                    (_mm256_permutevar8x32_ps(low, words), _mm256_permutevar8x32_ps(high, words));
                _mm256_blendv_ps(low, high, second)
            };
            Self(half(words.0), half(words.1))
        }
    }

    #[inline(always)]
    unsafe fn without(words: Self::Words, count: usize) -> Self::Words {
        // SAFETY: the caller's.
        unsafe {
            let count = _mm_cvtsi32_si128(count as i32);
            (_mm256_srl_epi32(words.0, count), _mm256_srl_epi32(words.1, count))
        }
    }

    #[inline(always)]
    unsafe fn joined(low: Self::Words, high: Self::Words, count: usize) -> Self::Words {
        // SAFETY: the caller's.
        unsafe {
            let count = _mm_cvtsi32_si128(count as i32);
            let half = |low, high| _mm256_or_si256(low, _mm256_sll_epi32(high, count));
            (half(low.0, high.0), half(low.1, high.1))
        }
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
        // SAFETY: the caller's.
        unsafe {
            Self(_mm256_fmadd_ps(self.0, factor.0, addend.0), _mm256_fmadd_ps(self.1, factor.1, addend.1))
        }
    }

    #[inline(always)]
    unsafe fn clamp(self, low: Self, high: Self) -> Self {
        // The second operand is the result when one is NaN.
        // SAFETY: the caller's.
        unsafe {
            Self(
                _mm256_min_ps(high.0, _mm256_max_ps(low.0, self.0)),
                _mm256_min_ps(high.1, _mm256_max_ps(low.1, self.1)),
            )
        }
    }

    #[inline(always)]
    unsafe fn power_of_two(self) -> Self {
        // SAFETY: the caller's.
        unsafe {
            let half = |n| {
                let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
                _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent))
            };
            Self(half(self.0), half(self.1))
        }
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        // SAFETY: the caller's.
        unsafe {
            let eight = _mm256_add_ps(self.0, self.1);
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
    }

    #[inline(always)]
    unsafe fn largest(self) -> f32 {
        // SAFETY: the caller's.
        unsafe {
            let eight = _mm256_max_ps(self.0, self.1);
            let four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
        }
    }

    #[inline(always)]
    unsafe fn load_halves_as(float: FloatType, from: *const u8) -> [Self; 2] {
        // SAFETY: the caller's.
        unsafe {
            let (first, second) = Self::load_words(from);
            match float {
                FloatType::BF16 => {
                    let mask = _mm256_set1_epi32(0xffff_0000_u32.cast_signed());
                    let low = |words| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(words));
                    let high = |words| _mm256_castsi256_ps(_mm256_and_si256(words, mask));
                    [Self(low(first), low(second)), Self(high(first), high(second))]
                }
                FloatType::F16 | FloatType::F32 => {
                    // Of each half of a register the eight lower halves, then the eight upper ones.
                    let order = _mm256_setr_epi8(
                        0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15, 0, 1, 4, 5, 8, 9, 12, 13, 2, 3,
                        6, 7, 10, 11, 14, 15,
                    );
                    let both = |words| {
                        let parted =
                            _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_shuffle_epi8(words, order));
                        let halves = (_mm256_castsi256_si128(parted), _mm256_extracti128_si256::<1>(parted));
                        (_mm256_cvtph_ps(halves.0), _mm256_cvtph_ps(halves.1))
                    };
                    let (first, second) = (both(first), both(second));
                    [Self(first.0, second.0), Self(first.1, second.1)]
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn products(query: *const f32, rows: [*const f32; LANES], length: usize) -> Self {
        // SAFETY: the caller's.
        unsafe {
            let half =
                |first: usize| products_of_eight(query, std::array::from_fn(|i| rows[first + i]), length);
            Self(half(0), half(8))
        }
    }

    #[inline(always)]
    unsafe fn transpose(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
        for (i, j) in [(0, 0), (0, 8), (8, 0), (8, 8)] {
            // SAFETY: the caller's.
            unsafe {
                transpose8(from.add(i * from_stride + j), from_stride, to.add(j * to_stride + i), to_stride);
            };
        }
    }
}

/// Eight scalar products of a query, each with its own register of sums.
#[inline(always)]
unsafe fn products_of_eight(query: *const f32, rows: [*const f32; 8], length: usize) -> __m256 {
    // SAFETY: the caller's.
    unsafe {
        let mut sums = [_mm256_setzero_ps(); 8];
        let whole = length / 8 * 8;
        for at in (0..whole).step_by(8) {
            let q = _mm256_loadu_ps(query.add(at));
            for (sum, row) in sums.iter_mut().zip(rows) {
                *sum = _mm256_fmadd_ps(q, _mm256_loadu_ps(row.add(at)), *sum);
            }
        }
        let mut products = sums_of_eight(sums);
        for at in whole..length {
            let values = rows.map(|row| *row.add(at));
            products =
                _mm256_fmadd_ps(_mm256_set1_ps(*query.add(at)), _mm256_loadu_ps(values.as_ptr()), products);
        }
        products
    }
}

/// Lane i is the sum of the lanes of `vectors[i]`.
#[inline(always)]
unsafe fn sums_of_eight(vectors: [__m256; 8]) -> __m256 {
    // SAFETY: the caller's.
    unsafe {
        let twos: [__m256; 4] = std::array::from_fn(|i| {
            let (a, b) = (vectors[2 * i], vectors[2 * i + 1]);
            _mm256_add_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b))
        });
        // Each half then holds partial sums of four vectors, in their order.
        let [low, high]: [__m256; 2] = std::array::from_fn(|i| {
            let (a, b) = (twos[2 * i], twos[2 * i + 1]);
            _mm256_add_ps(_mm256_shuffle_ps::<0x44>(a, b), _mm256_shuffle_ps::<0xee>(a, b))
        });
        _mm256_add_ps(_mm256_permute2f128_ps::<0x20>(low, high), _mm256_permute2f128_ps::<0x31>(low, high))
    }
}

/// An 8 × 8 square: pairs, then fours within each half of a register, then the halves.
#[inline(always)]
unsafe fn transpose8(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
    // SAFETY: the caller's.
    unsafe {
        let mut rows = [_mm256_setzero_ps(); 8];
        for (i, row) in rows.iter_mut().enumerate() {
            *row = _mm256_loadu_ps(from.add(i * from_stride));
        }
        let mut pairs = rows;
        for i in 0..4 {
            pairs[2 * i] = _mm256_unpacklo_ps(rows[2 * i], rows[2 * i + 1]);
            pairs[2 * i + 1] = _mm256_unpackhi_ps(rows[2 * i], rows[2 * i + 1]);
        }
        let mut fours = pairs;
        for i in 0..2 {
            let [a, b, c, d] = [pairs[4 * i], pairs[4 * i + 1], pairs[4 * i + 2], pairs[4 * i + 3]];
            fours[4 * i] = _mm256_shuffle_ps::<0x44>(a, c);
            fours[4 * i + 1] = _mm256_shuffle_ps::<0xee>(a, c);
            fours[4 * i + 2] = _mm256_shuffle_ps::<0x44>(b, d);
            fours[4 * i + 3] = _mm256_shuffle_ps::<0xee>(b, d);
        }
        for i in 0..4 {
            let (low, high) = (fours[i], fours[i + 4]);
            _mm256_storeu_ps(to.add(i * to_stride), _mm256_permute2f128_ps::<0x20>(low, high));
            _mm256_storeu_ps(to.add((i + 4) * to_stride), _mm256_permute2f128_ps::<0x31>(low, high));
        }
    }
}
