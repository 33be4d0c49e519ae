//! Lanes as four NEON registers.

#[allow(clippy::wildcard_imports, reason = "dozens of instructions")]
use std::arch::aarch64::*;

use super::{LANES, Lanes, MOST_HALF};

#[derive(Clone, Copy)]
pub(in crate::engine::kernels) struct Neon([float32x4_t; 4]);

macro_rules! all {
    ($($name:ident $instruction:ident;)*) => {$(
        #[inline(always)]
        unsafe fn $name(self, other: Self) -> Self {
            // SAFETY: the caller's.
            unsafe { Self::of(|i| $instruction(self.0[i], other.0[i])) }
        }
    )*};
}

impl Neon {
    #[inline(always)]
    fn of(part: impl Fn(usize) -> float32x4_t) -> Self {
        Self([part(0), part(1), part(2), part(3)])
    }
}

/// Sixteen bytes as 32-bit words, four a register.
#[inline(always)]
unsafe fn widened(from: *const u8) -> [uint32x4_t; 4] {
    // SAFETY: the caller's.
    unsafe {
        let bytes = vld1q_u8(from);
        let (low, high) = (vmovl_u8(vget_low_u8(bytes)), vmovl_high_u8(bytes));
        [
            vmovl_u16(vget_low_u16(low)),
            vmovl_high_u16(low),
            vmovl_u16(vget_low_u16(high)),
            vmovl_high_u16(high),
        ]
    }
}

impl Lanes for Neon {
    type Words = [uint32x4_t; 4];

    // 24 registers of sums, four of weights, one of activations.
    const TOKENS: usize = 6;
    const VECTORS: usize = 1;

    const SUBNORMALS: bool = true;

    all! {
        add vaddq_f32;
        sub vsubq_f32;
        mul vmulq_f32;
        div vdivq_f32;
        // Of a number and NaN, the number.
        max vmaxnmq_f32;
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: the caller's.
        unsafe { Self([vdupq_n_f32(value); 4]) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's.
        unsafe { Self::of(|i| vld1q_f32(from.add(4 * i))) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        for (i, part) in self.0.into_iter().enumerate() {
            // SAFETY: the caller's.
            unsafe { vst1q_f32(to.add(4 * i), part) };
        }
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const u8) -> Self {
        // SAFETY: the caller's.
        unsafe {
            Self::of(|i| {
                let bits = vreinterpret_u16_u8(vld1_u8(from.add(8 * i)));
                vcvt_f32_f16(vreinterpret_f16_u16(bits))
            })
        }
    }

    #[inline(always)]
    unsafe fn store_f16(self, to: *mut u8) {
        // SAFETY: the caller's.
        unsafe {
            let within = self.clamp(Self::splat(-MOST_HALF), Self::splat(MOST_HALF));
            for (i, part) in within.0.into_iter().enumerate() {
                vst1_u8(to.add(8 * i), vreinterpret_u8_f16(vcvt_f16_f32(part)));
            }
        }
    }

    #[inline(always)]
    unsafe fn load_fp8(from: *const u8) -> Self {
        // As float32, whose exponents have a bias that is 120 larger.
        // SAFETY: the caller's.
        unsafe {
            let codes = widened(from);
            Self::of(|i| {
                let sign = vshlq_n_u32::<24>(vandq_u32(codes[i], vdupq_n_u32(0x80)));
                let rest = vshlq_n_u32::<20>(vandq_u32(codes[i], vdupq_n_u32(0x7f)));
                let scale = vdupq_n_f32(f32::from_bits((127 + 120) << 23));
                vmulq_f32(vreinterpretq_f32_u32(vorrq_u32(sign, rest)), scale)
            })
        }
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const u8) -> Self {
        // SAFETY: the caller's.
        unsafe {
            Self::of(|i| {
                let bits = vreinterpret_u16_u8(vld1_u8(from.add(8 * i)));
                vreinterpretq_f32_u32(vshll_n_u16::<16>(bits))
            })
        }
    }

    #[inline(always)]
    unsafe fn load_bytes(from: *const u8) -> Self {
        // SAFETY: the caller's.
        unsafe {
            let numbers = widened(from);
            Self::of(|i| vcvtq_f32_u32(numbers[i]))
        }
    }

    #[inline(always)]
    unsafe fn load_signed_bytes(from: *const u8) -> Self {
        // The sign is moved to its place among 32 bits, and back.
        // SAFETY: the caller's.
        unsafe {
            let words = widened(from);
            Self::of(|i| {
                let high = vreinterpretq_s32_u32(vshlq_n_u32::<24>(words[i]));
                vcvtq_f32_s32(vshrq_n_s32::<24>(high))
            })
        }
    }

    #[inline(always)]
    unsafe fn load_words(from: *const u8) -> Self::Words {
        // SAFETY: the caller's.
        unsafe { std::array::from_fn(|i| vreinterpretq_u32_u8(vld1q_u8(from.add(16 * i)))) }
    }

    #[inline(always)]
    unsafe fn load_halves(from: *const u8) -> Self::Words {
        // SAFETY: the caller's.
        unsafe { std::array::from_fn(|i| vmovl_u16(vreinterpret_u16_u8(vld1_u8(from.add(8 * i))))) }
    }

    #[inline(always)]
    unsafe fn low_bits<const BITS: usize>(words: Self::Words) -> Self {
        // SAFETY: the caller's.
        unsafe { Self::of(|i| vcvtq_f32_u32(vandq_u32(words[i], vdupq_n_u32((1 << BITS) - 1)))) }
    }

    #[inline(always)]
    unsafe fn bits_as_float<const BITS: usize>(words: Self::Words, from: usize) -> Self {
        // SAFETY: the caller's.
        unsafe {
            let mask = vdupq_n_u32(((1 << BITS) - 1) << from);
            Self::of(|i| vreinterpretq_f32_u32(vandq_u32(words[i], mask)))
        }
    }

    #[inline(always)]
    unsafe fn load_bytes_as_floats(from: *const u8) -> Self {
        // SAFETY: the caller's.
        unsafe {
            let numbers = widened(from);
            Self::of(|i| vreinterpretq_f32_u32(numbers[i]))
        }
    }

    #[inline(always)]
    unsafe fn look_up(words: Self::Words, numbers: &[f32; 16]) -> Self {
        // The table is one of 64 bytes, from which the four bytes of a number are chosen.
        // SAFETY: the caller's.
        unsafe {
            let bytes = numbers.as_ptr().cast::<u8>();
            let table = uint8x16x4_t(
                vld1q_u8(bytes),
                vld1q_u8(bytes.add(16)),
                vld1q_u8(bytes.add(32)),
                vld1q_u8(bytes.add(48)),
            );
            Self::of(|i| {
                let index = vandq_u32(words[i], vdupq_n_u32(15));
                let places = vmlaq_u32(vdupq_n_u32(0x0302_0100), index, vdupq_n_u32(0x0404_0404));
                vreinterpretq_f32_u8(vqtbl4q_u8(table, vreinterpretq_u8_u32(places)))
            })
        }
    }

    #[inline(always)]
    unsafe fn without(words: Self::Words, count: usize) -> Self::Words {
        // A negative count is one to the right.
        // SAFETY: the caller's.
        unsafe { words.map(|words| vshlq_u32(words, vdupq_n_s32(-(count as i32)))) }
    }

    #[inline(always)]
    unsafe fn joined(low: Self::Words, high: Self::Words, count: usize) -> Self::Words {
        // SAFETY: the caller's.
        unsafe {
            let count = vdupq_n_s32(count as i32);
            std::array::from_fn(|i| vorrq_u32(low[i], vshlq_u32(high[i], count)))
        }
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
        // SAFETY: the caller's.
        unsafe { Self::of(|i| vfmaq_f32(addend.0[i], self.0[i], factor.0[i])) }
    }

    #[inline(always)]
    unsafe fn clamp(self, low: Self, high: Self) -> Self {
        // Both instructions give NaN when an operand is NaN.
        // SAFETY: the caller's.
        unsafe { Self::of(|i| vminq_f32(high.0[i], vmaxq_f32(low.0[i], self.0[i]))) }
    }

    #[inline(always)]
    unsafe fn power_of_two(self) -> Self {
        // SAFETY: the caller's.
        unsafe {
            Self::of(|i| {
                let exponent = vaddq_s32(vcvtq_s32_f32(self.0[i]), vdupq_n_s32(127));
                vreinterpretq_f32_s32(vshlq_n_s32::<23>(exponent))
            })
        }
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        let [a, b, c, d] = self.0;
        // SAFETY: the caller's.
        unsafe { vaddvq_f32(vaddq_f32(vaddq_f32(a, b), vaddq_f32(c, d))) }
    }

    #[inline(always)]
    unsafe fn largest(self) -> f32 {
        let [a, b, c, d] = self.0;
        // SAFETY: the caller's.
        unsafe { vmaxnmvq_f32(vmaxnmq_f32(vmaxnmq_f32(a, b), vmaxnmq_f32(c, d))) }
    }

    #[inline(always)]
    unsafe fn transpose(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
        for i in (0..LANES).step_by(4) {
            for j in (0..LANES).step_by(4) {
                // SAFETY: the caller's.
                unsafe {
                    transpose4(
                        from.add(i * from_stride + j),
                        from_stride,
                        to.add(j * to_stride + i),
                        to_stride,
                    );
                }
            }
        }
    }
}

/// A 4 × 4 square: pairs of numbers, then pairs of pairs.
#[inline(always)]
unsafe fn transpose4(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
    // SAFETY: the caller's.
    unsafe {
        let [a, b, c, d] = std::array::from_fn(|i| vld1q_f32(from.add(i * from_stride)));
        let even = [vtrn1q_f32(a, b), vtrn1q_f32(c, d)].map(|pairs| vreinterpretq_f64_f32(pairs));
        let odd = [vtrn2q_f32(a, b), vtrn2q_f32(c, d)].map(|pairs| vreinterpretq_f64_f32(pairs));
        let columns = [
            vtrn1q_f64(even[0], even[1]),
            vtrn1q_f64(odd[0], odd[1]),
            vtrn2q_f64(even[0], even[1]),
            vtrn2q_f64(odd[0], odd[1]),
        ];
        for (i, column) in columns.into_iter().enumerate() {
            vst1q_f32(to.add(i * to_stride), vreinterpretq_f32_f64(column));
        }
    }
}
