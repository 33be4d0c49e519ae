//! Sixteen float32 lanes, the width of everything here, over four sets of instructions.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;

use half::f16;

use crate::engine::config::style::Activation;
use crate::engine::format::weight::{self, FloatType};

#[cfg(target_arch = "x86_64")]
pub(super) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(super) use avx512::Avx512;
#[cfg(target_arch = "aarch64")]
pub(super) use neon::Neon;
pub(super) use portable::Portable;

/// What four-bit codes stand for, as float32.
pub(super) const IQ4: [f32; 16] = numbers(&weight::IQ4);
pub(super) const FP4: [f32; 16] = numbers(&weight::FP4);

const fn numbers(table: &[i8; 16]) -> [f32; 16] {
    let mut numbers = [0.0; 16];
    let mut code = 0;
    while code < 16 {
        numbers[code] = table[code] as f32;
        code += 1;
    }
    numbers
}

/// Lanes of a vector.
pub(super) const LANES: usize = 16;

/// A vector of [`LANES`] float32.
///
/// # Safety
/// Of every method: the processor has the implementation's instructions, and pointers are valid for what
/// is read or written; no alignment is needed.
pub(super) trait Lanes: Copy {
    /// Sixteen unsigned 32-bit words.
    type Words: Copy;

    /// The registers' shape of a product's innermost kernel: that many tokens times that many vectors.
    const TOKENS: usize;
    const VECTORS: usize;

    unsafe fn splat(value: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    /// The first `count` (at most 16) lanes, the others 0.
    #[inline(always)]
    unsafe fn load_part(from: *const f32, count: usize) -> Self {
        let mut lanes = [0.0; LANES];
        // SAFETY: the caller's.
        unsafe {
            std::ptr::copy_nonoverlapping(from, lanes.as_mut_ptr(), count);
            Self::load(lanes.as_ptr())
        }
    }

    /// The first `count` (at most 16) lanes.
    #[inline(always)]
    unsafe fn store_part(self, to: *mut f32, count: usize) {
        let mut lanes = [0.0; LANES];
        // SAFETY: the caller's.
        unsafe {
            self.store(lanes.as_mut_ptr());
            std::ptr::copy_nonoverlapping(lanes.as_ptr(), to, count);
        }
    }

    unsafe fn load_f16(from: *const u8) -> Self;
    /// One float16 in all lanes.
    #[inline(always)]
    unsafe fn splat_f16(from: *const u8) -> Self {
        // SAFETY: the caller's.
        let lanes = [unsafe { from.cast::<[u8; 2]>().read() }; LANES];
        // SAFETY: the caller's.
        unsafe { Self::load_f16(lanes.as_ptr().cast()) }
    }

    /// As half floats, to nearest, ties to even; what is larger than they can be, or infinite, is the largest.
    unsafe fn store_f16(self, to: *mut u8);
    unsafe fn load_bf16(from: *const u8) -> Self;
    /// Sixteen e4m3 floats of which none is NaN.
    unsafe fn load_fp8(from: *const u8) -> Self;
    /// Sixteen bytes as numbers.
    unsafe fn load_bytes(from: *const u8) -> Self;
    /// Sixteen signed bytes as numbers.
    unsafe fn load_signed_bytes(from: *const u8) -> Self;
    unsafe fn load_words(from: *const u8) -> Self::Words;
    /// Sixteen words of 16 bits.
    unsafe fn load_halves(from: *const u8) -> Self::Words;
    /// The lowest `BITS` bits, two to six, of each word as numbers.
    unsafe fn low_bits<const BITS: usize>(words: Self::Words) -> Self;
    /// Whether [`Lanes::bits_in_place`] is quicker than to move bits down first.
    const IN_PLACE: bool = false;
    /// The `BITS` bits from bit `from` on, none the highest of a word, where they lie: as numbers, times
    /// 2 to the power of `from`.
    #[inline(always)]
    unsafe fn bits_in_place<const BITS: usize>(words: Self::Words, from: usize) -> Self {
        // SAFETY: the caller's.
        unsafe { Self::low_bits::<BITS>(Self::without(words, from)).mul(Self::splat((1_u32 << from) as f32)) }
    }
    /// For how many masks there are registers while quants are multiplied.
    const MASKS: usize = 6;
    /// How many sums of a token's products with quants there are registers for, at most four.
    const CHAINS: usize = 4;
    /// Whether products take quants for subnormal floats where these are quick.
    const SUBNORMALS: bool = false;
    /// The `BITS` bits from bit `from` on, none of the highest eight of a word, as the float that they are where they
    /// lie: the number times 2 to the power of `from - 149`.
    #[inline(always)]
    unsafe fn bits_as_float<const BITS: usize>(words: Self::Words, from: usize) -> Self {
        // SAFETY: the caller's.
        unsafe { Self::bits_in_place::<BITS>(words, from).mul(Self::splat(f32::from_bits(1))) }
    }
    /// Sixteen bytes as numbers times 2⁻¹⁴⁹.
    #[inline(always)]
    unsafe fn load_bytes_as_floats(from: *const u8) -> Self {
        // SAFETY: the caller's.
        unsafe { Self::load_bytes(from).mul(Self::splat(f32::from_bits(1))) }
    }
    /// The numbers at the indexes in the lowest four bits of each word.
    unsafe fn look_up(words: Self::Words, numbers: &[f32; 16]) -> Self;
    /// Without the lowest `count` bits, fewer than 32: the next ones become the lowest.
    unsafe fn without(words: Self::Words, count: usize) -> Self::Words;
    /// `low`, of which bits from `count` on, fewer than 32, are 0, and above them `high`.
    unsafe fn joined(low: Self::Words, high: Self::Words, count: usize) -> Self::Words;

    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    unsafe fn div(self, other: Self) -> Self;
    /// `self * factor + addend`, rounded once where the processor can.
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self;
    unsafe fn max(self, other: Self) -> Self;
    /// Into `low..=high`; NaN stays.
    unsafe fn clamp(self, low: Self, high: Self) -> Self;
    /// 2 to the power of whole numbers in -127..=127, where -127 gives 0.
    unsafe fn power_of_two(self) -> Self;
    unsafe fn sum(self) -> f32;
    unsafe fn largest(self) -> f32;

    /// Lane i is the sum of the lanes of `vectors[i]`.
    #[inline(always)]
    unsafe fn sums(vectors: [Self; LANES]) -> Self {
        let mut sums = [0.0; LANES];
        // SAFETY: the caller's.
        unsafe {
            for (sum, vector) in sums.iter_mut().zip(vectors) {
                *sum = vector.sum();
            }
            Self::load(sums.as_ptr())
        }
    }

    /// The lower and the upper halves of sixteen words, floats of 16 bits.
    #[inline(always)]
    unsafe fn load_halves_as(float: FloatType, from: *const u8) -> [Self; 2] {
        let mut halves = [[[0; 2]; LANES]; 2];
        for lane in 0..LANES {
            for (half, lanes) in halves.iter_mut().enumerate() {
                // SAFETY: the caller's: there are so many bytes.
                lanes[lane] = unsafe { from.add(4 * lane + 2 * half).cast::<[u8; 2]>().read() };
            }
        }
        // SAFETY: the caller's.
        halves.map(|half| unsafe { Self::load_as(float, half.as_ptr().cast()) })
    }

    /// Sixteen scalar products of `query` with `rows`, `length` floats each.
    #[inline(always)]
    unsafe fn products(query: *const f32, rows: [*const f32; LANES], length: usize) -> Self {
        let mut products = [0.0; LANES];
        // SAFETY: the caller's.
        unsafe {
            for (product, row) in products.iter_mut().zip(rows) {
                *product = dot::<Self>(query, row, length);
            }
            Self::load(products.as_ptr())
        }
    }

    /// Transposes a 16 × 16 square: `to[j][i] = from[i][j]`, rows `from_stride` and `to_stride` apart.
    #[inline(always)]
    unsafe fn transpose(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
        for i in 0..LANES {
            for j in 0..LANES {
                // SAFETY: the caller's.
                unsafe { *to.add(j * to_stride + i) = *from.add(i * from_stride + j) };
            }
        }
    }

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller's.
        unsafe { Self::splat(0.0) }
    }

    /// Sixteen floats stored as `float`.
    #[inline(always)]
    unsafe fn load_as(float: FloatType, from: *const u8) -> Self {
        // SAFETY: the caller's.
        unsafe {
            match float {
                FloatType::F32 => Self::load(from.cast()),
                FloatType::F16 => Self::load_f16(from),
                FloatType::BF16 => Self::load_bf16(from),
            }
        }
    }
}

/// A float as a matrix has it.
pub(super) trait Float: Copy {
    /// Sixteen of them.
    unsafe fn load<V: Lanes>(from: *const Self) -> V;
}

impl Float for f32 {
    #[inline(always)]
    unsafe fn load<V: Lanes>(from: *const Self) -> V {
        // SAFETY: the caller's.
        unsafe { V::load(from) }
    }
}

impl Float for f16 {
    #[inline(always)]
    unsafe fn load<V: Lanes>(from: *const Self) -> V {
        // SAFETY: the caller's.
        unsafe { V::load_f16(from.cast()) }
    }
}

/// The largest half float.
const MOST_HALF: f32 = f16::MAX.to_f32_const();

/// At most 16 floats.
#[inline(always)]
pub(super) unsafe fn load_part<V: Lanes>(from: &[f32]) -> V {
    // SAFETY: the caller's; a slice is as long as it says.
    unsafe {
        if from.len() == LANES { V::load(from.as_ptr()) } else { V::load_part(from.as_ptr(), from.len()) }
    }
}

/// The scalar product of two rows.
#[inline(always)]
pub(super) unsafe fn dot<V: Lanes>(a: *const f32, b: *const f32, length: usize) -> f32 {
    // SAFETY: the caller's.
    unsafe {
        let mut sum = V::zero();
        let whole = length / LANES * LANES;
        for at in (0..whole).step_by(LANES) {
            sum = V::load(a.add(at)).mul_add(V::load(b.add(at)), sum);
        }
        if whole < length {
            let (a, b) =
                (V::load_part(a.add(whole), length - whole), V::load_part(b.add(whole), length - whole));
            sum = a.mul_add(b, sum);
        }
        sum.sum()
    }
}

/// eˣ with a relative error below 3e-7; 0 below -87.7, about 2e38 above 88.37.
///
/// x = n ln 2 + r with |r| ≤ ln 2 / 2, eˣ = 2ⁿ eʳ, eʳ by its Taylor polynomial of degree 7, whose error there is
/// 6e-9. ln 2 is split in two (Cody and Waite, 1980), so that n times its first part is exact.
#[inline(always)]
pub(super) unsafe fn exp<V: Lanes>(x: V) -> V {
    /// ln 2 to 12 bits, and the rest.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    /// Adding and subtracting 1.5 · 2²³ rounds to a whole number.
    const ROUND: f32 = 12_582_912.0;
    const TAYLOR: [f32; 5] = [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5];
    // SAFETY: the caller's.
    unsafe {
        let x = x.clamp(V::splat(-88.03), V::splat(88.37));
        let round = V::splat(ROUND);
        let n = x.mul_add(V::splat(std::f32::consts::LOG2_E), round).sub(round);
        let n = n.clamp(V::splat(-127.0), V::splat(127.0));
        let r = n.mul_add(V::splat(-LN_2_HIGH), x);
        let r = n.mul_add(V::splat(-LN_2_LOW), r);
        let mut p = V::splat(1.0 / 5040.0);
        for coefficient in TAYLOR {
            p = p.mul_add(r, V::splat(coefficient));
        }
        let p = p.mul_add(r.mul(r), r).add(V::splat(1.0));
        p.mul(n.power_of_two())
    }
}

/// x / (1 + e⁻ˣ) (Elfwing, Uchibe, Doya, arXiv:1702.03118).
#[inline(always)]
pub(super) unsafe fn silu<V: Lanes>(x: V) -> V {
    // SAFETY: the caller's.
    unsafe { x.div(exp(V::zero().sub(x)).add(V::splat(1.0))) }
}

/// 1 / (1 + e⁻ˣ)
#[inline(always)]
pub(super) unsafe fn sigmoid<V: Lanes>(x: V) -> V {
    // SAFETY: the caller's.
    unsafe { V::splat(1.0).div(exp(V::zero().sub(x)).add(V::splat(1.0))) }
}

/// x Φ(x) by tanh: x / (1 + e⁻²ᵘ) with u = √(2/π) (x + 0.044715 x³) (Hendrycks, Gimpel, arXiv:1606.08415).
#[inline(always)]
pub(super) unsafe fn gelu_tanh<V: Lanes>(x: V) -> V {
    /// 2 √(2/π), and the same times 0.044715.
    const LINEAR: f32 = 1.595_769;
    const CUBIC: f32 = 0.071_354_82;
    // SAFETY: the caller's.
    unsafe {
        let u = x.mul(x.mul(x).mul_add(V::splat(CUBIC), V::splat(LINEAR)));
        x.div(exp(V::zero().sub(u)).add(V::splat(1.0)))
    }
}

/// x Φ(x) within 1e-7 |x|: with q = erfc(|x| / √2), that is max(x, 0) - |x| q / 2. erfc by formula 7.1.26 of
/// Abramowitz and Stegun (1964), whose error is at most 1.5e-7.
#[inline(always)]
unsafe fn gelu<V: Lanes>(x: V) -> V {
    /// Their p / √2.
    const P: f32 = 0.231_641_9;
    const COEFFICIENTS: [f32; 4] = [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6];
    // SAFETY: the caller's.
    unsafe {
        let magnitude = x.max(V::zero().sub(x));
        let t = V::splat(1.0).div(magnitude.mul_add(V::splat(P), V::splat(1.0)));
        let mut polynomial = V::splat(1.061_405_4);
        for coefficient in COEFFICIENTS {
            polynomial = polynomial.mul_add(t, V::splat(coefficient));
        }
        let tail = polynomial.mul(t).mul(exp(x.mul(x).mul(V::splat(-0.5))));
        x.max(V::zero()).sub(magnitude.mul(tail).mul(V::splat(0.5)))
    }
}

#[inline(always)]
pub(super) unsafe fn activate<V: Lanes>(activation: Activation, x: V) -> V {
    // SAFETY: the caller's.
    unsafe {
        match activation {
            Activation::Silu => silu(x),
            Activation::Gelu => gelu(x),
            Activation::GeluTanh => gelu_tanh(x),
            Activation::Relu => x.max(V::zero()),
            Activation::ReluSquared => {
                let x = x.max(V::zero());
                x.mul(x)
            }
        }
    }
}

/// The hyperbolic tangent, with an absolute error below 3e-7: 1 − 2 / (e²ˣ + 1).
#[inline(always)]
pub(super) unsafe fn tanh<V: Lanes>(x: V) -> V {
    // SAFETY: the caller's.
    unsafe {
        let e = exp(x.add(x)).add(V::splat(1.0));
        V::splat(1.0).sub(V::splat(2.0).div(e))
    }
}

/// How far ahead of its use the stream of weights is asked for, in bytes: beyond what processors do by
/// themselves, and across the end of a block, which the next one follows.
pub(super) const AHEAD: usize = 5120;

/// Asks for the cache line at an address that may lie anywhere.
#[inline(always)]
pub(super) fn prefetch(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 processor has the instruction, and it never faults.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address.cast());
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: every aarch64 processor has the instruction, and it never faults.
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{0}]", in(reg) address, options(nostack, readonly, preserves_flags));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = address;
}
