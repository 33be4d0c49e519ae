//! Lanes as one AVX-512 register.

#[allow(clippy::wildcard_imports, reason = "dozens of instructions")]
use std::arch::x86_64::*;

use super::{LANES, Lanes, MOST_HALF};

#[derive(Clone, Copy)]
pub(in crate::engine::kernels) struct Avx512(__m512);

macro_rules! binary {
    ($($name:ident $instruction:ident;)*) => {$(
        #[inline(always)]
        unsafe fn $name(self, other: Self) -> Self {
            // SAFETY: the caller's.
            unsafe { Self($instruction(self.0, other.0)) }
        }
    )*};
}

impl Lanes for Avx512 {
    type Words = __m512i;

    // 24 registers of sums, two of weights, one of activations.
    const TOKENS: usize = 12;
    const VECTORS: usize = 2;

    const SUBNORMALS: bool = true;

    binary! {
        add _mm512_add_ps;
        sub _mm512_sub_ps;
        mul _mm512_mul_ps;
        div _mm512_div_ps;
        max _mm512_max_ps;
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: the caller's.
        unsafe { Self(_mm512_set1_ps(value)) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's.
        unsafe { Self(_mm512_loadu_ps(from)) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's.
        unsafe { _mm512_storeu_ps(to, self.0) };
    }

    #[inline(always)]
    unsafe fn load_part(from: *const f32, count: usize) -> Self {
        // SAFETY: the caller's; masked lanes are not read.
        unsafe { Self(_mm512_maskz_loadu_ps(mask(count), from)) }
    }

    #[inline(always)]
    unsafe fn store_part(self, to: *mut f32, count: usize) {
        // SAFETY: the caller's; masked lanes are not written.
        unsafe { _mm512_mask_storeu_ps(to, mask(count), self.0) };
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const u8) -> Self {
        // SAFETY: the caller's.
        unsafe { Self(_mm512_cvtph_ps(_mm256_loadu_si256(from.cast()))) }
    }

    #[inline(always)]
    unsafe fn store_f16(self, to: *mut u8) {
        // SAFETY: the caller's.
        unsafe {
            let within = self.clamp(Self::splat(-MOST_HALF), Self::splat(MOST_HALF));
            let halves = _mm512_cvtps_ph::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(within.0);
            _mm256_storeu_si256(to.cast(), halves);
        }
    }

    #[inline(always)]
    unsafe fn load_fp8(from: *const u8) -> Self {
        // As half floats, whose exponents have a bias that is 8 larger.
        // SAFETY: the caller's.
        unsafe {
            let codes = _mm256_cvtepu8_epi16(_mm_loadu_si128(from.cast()));
            let sign = _mm256_slli_epi16::<8>(_mm256_and_si256(codes, _mm256_set1_epi16(0x80)));
            let rest = _mm256_slli_epi16::<7>(_mm256_and_si256(codes, _mm256_set1_epi16(0x7f)));
            let halves = _mm512_cvtph_ps(_mm256_or_si256(sign, rest));
            Self(_mm512_mul_ps(halves, _mm512_set1_ps(256.0)))
        }
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const u8) -> Self {
        // SAFETY: the caller's.
        unsafe {
            let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            Self(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits)))
        }
    }

    #[inline(always)]
    unsafe fn load_bytes(from: *const u8) -> Self {
        // SAFETY: the caller's.
        unsafe { Self(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(from.cast())))) }
    }

    #[inline(always)]
    unsafe fn load_signed_bytes(from: *const u8) -> Self {
        // SAFETY: the caller's.
        unsafe { Self(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast())))) }
    }

    #[inline(always)]
    unsafe fn load_words(from: *const u8) -> __m512i {
        // SAFETY: the caller's.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn load_halves(from: *const u8) -> __m512i {
        // SAFETY: the caller's.
        unsafe { _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast())) }
    }

    #[inline(always)]
    unsafe fn low_bits<const BITS: usize>(words: __m512i) -> Self {
        // A permutation looks at the lowest bits only, four of one register's and five of two's: mask and
        // conversion in one.
        // SAFETY: the caller's.
        unsafe {
            let numbers = const { counted::<BITS>() };
            let first = _mm512_loadu_ps(numbers.as_ptr());
            match BITS {
                0..=4 => Self(_mm512_permutexvar_ps(words, first)),
                5 => Self(_mm512_permutex2var_ps(first, words, _mm512_loadu_ps(numbers.as_ptr().add(LANES)))),
                _ => {
                    let mask = _mm512_set1_epi32((1 << BITS) - 1);
                    Self(_mm512_cvtepi32_ps(_mm512_and_si512(words, mask)))
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn bits_as_float<const BITS: usize>(words: __m512i, from: usize) -> Self {
        // SAFETY: the caller's.
        unsafe {
            let mask = _mm512_set1_epi32(((1 << BITS) - 1) << from);
            Self(_mm512_castsi512_ps(_mm512_and_si512(words, mask)))
        }
    }

    #[inline(always)]
    unsafe fn load_bytes_as_floats(from: *const u8) -> Self {
        // SAFETY: the caller's.
        unsafe { Self(_mm512_castsi512_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(from.cast())))) }
    }

    #[inline(always)]
    unsafe fn look_up(words: __m512i, numbers: &[f32; 16]) -> Self {
        // SAFETY: the caller's.
        unsafe { Self(_mm512_permutexvar_ps(words, _mm512_loadu_ps(numbers.as_ptr()))) }
    }

    #[inline(always)]
    unsafe fn without(words: __m512i, count: usize) -> __m512i {
        // SAFETY: the caller's.
        unsafe { _mm512_srl_epi32(words, _mm_cvtsi32_si128(count as i32)) }
    }

    #[inline(always)]
    unsafe fn joined(low: __m512i, high: __m512i, count: usize) -> __m512i {
        // SAFETY: the caller's.
        unsafe { _mm512_or_si512(low, _mm512_sll_epi32(high, _mm_cvtsi32_si128(count as i32))) }
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
        // SAFETY: the caller's.
        unsafe { Self(_mm512_fmadd_ps(self.0, factor.0, addend.0)) }
    }

    #[inline(always)]
    unsafe fn clamp(self, low: Self, high: Self) -> Self {
        // The second operand is the result when one is NaN.
        // SAFETY: the caller's.
        unsafe { Self(_mm512_min_ps(high.0, _mm512_max_ps(low.0, self.0))) }
    }

    #[inline(always)]
    unsafe fn power_of_two(self) -> Self {
        // SAFETY: the caller's.
        unsafe {
            let exponent = _mm512_add_epi32(_mm512_cvtps_epi32(self.0), _mm512_set1_epi32(127));
            Self(_mm512_castsi512_ps(_mm512_slli_epi32::<23>(exponent)))
        }
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        // SAFETY: the caller's.
        unsafe { _mm512_reduce_add_ps(self.0) }
    }

    #[inline(always)]
    unsafe fn largest(self) -> f32 {
        // SAFETY: the caller's.
        unsafe { _mm512_reduce_max_ps(self.0) }
    }

    #[inline(always)]
    unsafe fn sums(vectors: [Self; LANES]) -> Self {
        // SAFETY: the caller's.
        unsafe { Self(sums_of_lanes(vectors.map(|vector| vector.0))) }
    }

    #[inline(always)]
    unsafe fn products(query: *const f32, rows: [*const f32; LANES], length: usize) -> Self {
        // SAFETY: the caller's.
        unsafe {
            let mut sums = [_mm512_setzero_ps(); LANES];
            let whole = length / LANES * LANES;
            for at in (0..whole).step_by(LANES) {
                let q = _mm512_loadu_ps(query.add(at));
                for (sum, row) in sums.iter_mut().zip(rows) {
                    *sum = _mm512_fmadd_ps(q, _mm512_loadu_ps(row.add(at)), *sum);
                }
            }
            if whole < length {
                let mask = mask(length - whole);
                let q = _mm512_maskz_loadu_ps(mask, query.add(whole));
                for (sum, row) in sums.iter_mut().zip(rows) {
                    *sum = _mm512_fmadd_ps(q, _mm512_maskz_loadu_ps(mask, row.add(whole)), *sum);
                }
            }
            Self(sums_of_lanes(sums))
        }
    }

    #[inline(always)]
    unsafe fn transpose(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
        // SAFETY: the caller's.
        unsafe {
            let mut rows = [_mm512_setzero_ps(); LANES];
            for (i, row) in rows.iter_mut().enumerate() {
                *row = _mm512_loadu_ps(from.add(i * from_stride));
            }
            // Within each quarter of a register: pairs, then fours. `fours[4 * i + j]` holds in quarter k
            // the column 4 k + j of the rows 4 i to 4 i + 3.
            let mut pairs = rows;
            for i in 0..8 {
                pairs[2 * i] = _mm512_unpacklo_ps(rows[2 * i], rows[2 * i + 1]);
                pairs[2 * i + 1] = _mm512_unpackhi_ps(rows[2 * i], rows[2 * i + 1]);
            }
            let mut fours = pairs;
            for i in 0..4 {
                let [a, b, c, d] = [pairs[4 * i], pairs[4 * i + 1], pairs[4 * i + 2], pairs[4 * i + 3]];
                fours[4 * i] = _mm512_shuffle_ps::<0x44>(a, c);
                fours[4 * i + 1] = _mm512_shuffle_ps::<0xee>(a, c);
                fours[4 * i + 2] = _mm512_shuffle_ps::<0x44>(b, d);
                fours[4 * i + 3] = _mm512_shuffle_ps::<0xee>(b, d);
            }
            // Then the quarters: those of column 4 k + j from the four groups of rows.
            for j in 0..4 {
                let (even_low, odd_low) = even_odd(fours[j], fours[4 + j]);
                let (even_high, odd_high) = even_odd(fours[8 + j], fours[12 + j]);
                let columns = [even_odd(even_low, even_high), even_odd(odd_low, odd_high)];
                let [(first, third), (second, fourth)] = columns;
                for (k, column) in [first, second, third, fourth].into_iter().enumerate() {
                    _mm512_storeu_ps(to.add((4 * k + j) * to_stride), column);
                }
            }
        }
    }
}

/// What the lowest `BITS` bits of a place are.
const fn counted<const BITS: usize>() -> [f32; 2 * LANES] {
    let mut numbers = [0.0; 2 * LANES];
    let mut place = 0;
    while place < numbers.len() {
        numbers[place] = (place & ((1 << BITS) - 1)) as f32;
        place += 1;
    }
    numbers
}

/// The even quarters of two registers, and the odd ones.
#[inline(always)]
unsafe fn even_odd(a: __m512, b: __m512) -> (__m512, __m512) {
    // SAFETY: the caller's.
    unsafe { (_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xdd>(a, b)) }
}

/// Lane i is the sum of the lanes of `vectors[i]`.
#[inline(always)]
unsafe fn sums_of_lanes(vectors: [__m512; LANES]) -> __m512 {
    // SAFETY: the caller's.
    unsafe {
        let mut twos = [_mm512_setzero_ps(); 8];
        for (i, two) in twos.iter_mut().enumerate() {
            let (a, b) = (vectors[2 * i], vectors[2 * i + 1]);
            *two = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
        }
        // Each quarter now holds partial sums of four vectors, in the order of the vectors.
        let mut fours = [_mm512_setzero_ps(); 4];
        for (i, four) in fours.iter_mut().enumerate() {
            let (a, b) = (twos[2 * i], twos[2 * i + 1]);
            *four = _mm512_add_ps(_mm512_shuffle_ps::<0x44>(a, b), _mm512_shuffle_ps::<0xee>(a, b));
        }
        let sum = |(even, odd): (__m512, __m512)| _mm512_add_ps(even, odd);
        let low = sum(even_odd(fours[0], fours[1]));
        let high = sum(even_odd(fours[2], fours[3]));
        sum(even_odd(low, high))
    }
}

#[inline(always)]
fn mask(count: usize) -> __mmask16 {
    ((1_u32 << count) - 1) as __mmask16
}
