//! Lanes in plain Rust: the reference of the others, and what processors without AVX2 or NEON use. Written
//! as loops over arrays, which the compiler turns into the baseline's vectors.

use half::{bf16, f16};

use super::{LANES, Lanes, MOST_HALF};
use crate::engine::format::block_float::e4m3;

#[derive(Clone, Copy)]
pub(in crate::engine::kernels) struct Portable([f32; LANES]);

impl Portable {
    #[inline(always)]
    fn map(self, f: impl Fn(f32) -> f32) -> Self {
        Self(self.0.map(f))
    }

    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Self(std::array::from_fn(|i| f(self.0[i], other.0[i])))
    }
}

impl Lanes for Portable {
    type Words = [u32; LANES];

    // Registers of four lanes: 8 of 16 for the sums.
    const TOKENS: usize = 2;
    const VECTORS: usize = 1;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([value; LANES])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's.
        Self(unsafe { from.cast::<[f32; LANES]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's.
        unsafe { to.cast::<[f32; LANES]>().write_unaligned(self.0) };
    }

    #[inline(always)]
    unsafe fn load_part(from: *const f32, count: usize) -> Self {
        // SAFETY: the caller's.
        Self(std::array::from_fn(|i| if i < count { unsafe { *from.add(i) } } else { 0.0 }))
    }

    #[inline(always)]
    unsafe fn store_part(self, to: *mut f32, count: usize) {
        // SAFETY: the caller's.
        unsafe { std::ptr::copy_nonoverlapping(self.0.as_ptr(), to, count) };
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const u8) -> Self {
        // SAFETY: the caller's.
        let bits = unsafe { from.cast::<[u16; LANES]>().read_unaligned() };
        Self(bits.map(|bits| f16::from_bits(bits).to_f32()))
    }

    #[inline(always)]
    unsafe fn store_f16(self, to: *mut u8) {
        let halves = self.0.map(|x| f16::from_f32(x.clamp(-MOST_HALF, MOST_HALF)).to_bits());
        // SAFETY: the caller's.
        unsafe { to.cast::<[u16; LANES]>().write_unaligned(halves) };
    }

    #[inline(always)]
    unsafe fn load_fp8(from: *const u8) -> Self {
        // SAFETY: the caller's.
        let codes = unsafe { from.cast::<[u8; LANES]>().read_unaligned() };
        Self(codes.map(e4m3))
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const u8) -> Self {
        // SAFETY: the caller's.
        let bits = unsafe { from.cast::<[u16; LANES]>().read_unaligned() };
        Self(bits.map(|bits| bf16::from_bits(bits).to_f32()))
    }

    #[inline(always)]
    unsafe fn load_bytes(from: *const u8) -> Self {
        // SAFETY: the caller's.
        Self(unsafe { from.cast::<[u8; LANES]>().read_unaligned() }.map(f32::from))
    }

    #[inline(always)]
    unsafe fn load_signed_bytes(from: *const u8) -> Self {
        // SAFETY: the caller's.
        Self(unsafe { from.cast::<[i8; LANES]>().read_unaligned() }.map(f32::from))
    }

    #[inline(always)]
    unsafe fn load_words(from: *const u8) -> [u32; LANES] {
        // SAFETY: the caller's.
        unsafe { from.cast::<[u32; LANES]>().read_unaligned() }.map(u32::from_le)
    }

    #[inline(always)]
    unsafe fn load_halves(from: *const u8) -> [u32; LANES] {
        // SAFETY: the caller's.
        unsafe { from.cast::<[u16; LANES]>().read_unaligned() }.map(|half| u32::from(u16::from_le(half)))
    }

    #[inline(always)]
    unsafe fn low_bits<const BITS: usize>(words: [u32; LANES]) -> Self {
        Self(words.map(|word| (word & ((1 << BITS) - 1)) as i32 as f32))
    }

    #[inline(always)]
    unsafe fn look_up(words: [u32; LANES], numbers: &[f32; 16]) -> Self {
        Self(words.map(|word| numbers[(word & 15) as usize]))
    }

    #[inline(always)]
    unsafe fn without(words: [u32; LANES], count: usize) -> [u32; LANES] {
        words.map(|word| word >> count)
    }

    #[inline(always)]
    unsafe fn joined(low: [u32; LANES], high: [u32; LANES], count: usize) -> [u32; LANES] {
        std::array::from_fn(|i| low[i] | high[i] << count)
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }

    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        self.zip(other, |a, b| a / b)
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
        // Without the instruction, `f32::mul_add` is a slow function call.
        const FUSED: bool = cfg!(any(target_arch = "aarch64", target_feature = "fma"));
        Self(std::array::from_fn(|i| {
            let (a, b, c) = (self.0[i], factor.0[i], addend.0[i]);
            if FUSED { a.mul_add(b, c) } else { a * b + c }
        }))
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    unsafe fn clamp(self, low: Self, high: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i].clamp(low.0[i], high.0[i])))
    }

    #[inline(always)]
    unsafe fn power_of_two(self) -> Self {
        self.map(|n| f32::from_bits(((n as i32 + 127) as u32) << 23))
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        let mut sums = self.0;
        let mut width = LANES;
        while width > 1 {
            width /= 2;
            for i in 0..width {
                sums[i] += sums[i + width];
            }
        }
        sums[0]
    }

    #[inline(always)]
    unsafe fn largest(self) -> f32 {
        self.0.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }
}
