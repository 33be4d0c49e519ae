//! Lanes as two AVX2 registers.

#[allow(clippy::wildcard_imports, reason = "dozens of instructions")]
use std::arch::x86_64::*;

use super::{Lanes, MOST_HALF};

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
    unsafe fn transpose(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
        for (i, j) in [(0, 0), (0, 8), (8, 0), (8, 8)] {
            // SAFETY: the caller's.
            unsafe {
                transpose8(from.add(i * from_stride + j), from_stride, to.add(j * to_stride + i), to_stride);
            };
        }
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
