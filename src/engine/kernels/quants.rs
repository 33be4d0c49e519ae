//! Sixteen columns of a tile at a time, as numbers.

use super::lanes::{FP4, IQ4, Lanes};
use super::packed::{BLOCK, Element};
use crate::engine::format::weight::FloatType;

/// How the quants of a tile are read.
pub(super) trait Quants {
    /// Bytes of 16 columns.
    const STEP: usize;
    /// 16 columns before they are numbers.
    type Loaded<V: Lanes>: Copy;

    /// # Safety
    /// `V`'s instructions exist, and so many bytes.
    unsafe fn load<V: Lanes>(from: *const u8) -> Self::Loaded<V>;

    /// The 16 rows' numbers of a column, times 2 to the power of [`Quants::power`].
    ///
    /// # Safety
    /// `V`'s instructions exist; what was loaded still does.
    unsafe fn column<V: Lanes>(loaded: Self::Loaded<V>, column: usize) -> V;

    fn power<V: Lanes>(column: usize) -> i32;
}

/// Some bits, a number of their own or the index of one.
pub(super) trait Few {
    const BITS: usize;
    /// How many bits of a word can become numbers where they lie; others are moved there first.
    const LYING: usize = 0;
    /// Numbers are too large by 2 to the power of this, and of where they lie.
    const POWER: i32 = 0;

    /// The numbers of the bits from `from` on, which is 0 or leaves them within [`Few::LYING`]. The other bits of
    /// `words` are ignored.
    unsafe fn number<V: Lanes>(words: V::Words, from: usize) -> V;
}

/// Numbers from the lowest bits.
pub(super) struct Number<const BITS: usize>;
/// Numbers from where their bits lie.
pub(super) struct Raised<const BITS: usize>;
/// Bits taken for those of subnormal floats: what lies in the lower 24 bits of a word, the rest being 0, is the float
/// of so many times 2⁻¹⁴⁹ (IEEE 754-2019, 3.4). Nothing is converted.
pub(super) struct Subnormal<const BITS: usize>;
pub(super) struct Iq4;
pub(super) struct Fp4;

/// The lowest bit of a float's is 2 to the power of minus this.
pub(super) const SUBNORMAL: i32 = 149;

impl<const BITS: usize> Few for Number<BITS> {
    const BITS: usize = BITS;

    #[inline(always)]
    unsafe fn number<V: Lanes>(words: V::Words, _from: usize) -> V {
        // SAFETY: the caller's.
        unsafe { V::low_bits::<BITS>(words) }
    }
}

impl<const BITS: usize> Few for Raised<BITS> {
    const BITS: usize = BITS;
    /// The highest bit would be a sign.
    const LYING: usize = 31;

    #[inline(always)]
    unsafe fn number<V: Lanes>(words: V::Words, from: usize) -> V {
        // SAFETY: the caller's.
        unsafe { V::bits_in_place::<BITS>(words, from) }
    }
}

impl<const BITS: usize> Few for Subnormal<BITS> {
    const BITS: usize = BITS;
    /// The mantissa, and the exponent's lowest bit, at which floats end to be subnormal without a gap.
    const LYING: usize = 24;
    const POWER: i32 = -SUBNORMAL;

    #[inline(always)]
    unsafe fn number<V: Lanes>(words: V::Words, from: usize) -> V {
        // SAFETY: the caller's.
        unsafe { V::bits_as_float::<BITS>(words, from) }
    }
}

impl Few for Iq4 {
    const BITS: usize = 4;

    #[inline(always)]
    unsafe fn number<V: Lanes>(words: V::Words, _from: usize) -> V {
        // SAFETY: the caller's.
        unsafe { V::look_up(words, &IQ4) }
    }
}

impl Few for Fp4 {
    const BITS: usize = 4;

    #[inline(always)]
    unsafe fn number<V: Lanes>(words: V::Words, _from: usize) -> V {
        // SAFETY: the caller's.
        unsafe { V::look_up(words, &FP4) }
    }
}

/// Words of consecutive bits, in which a column may begin in one and end in the next.
impl<F: Few> Quants for F {
    const STEP: usize = F::BITS * 2 * BLOCK;
    type Loaded<V: Lanes> = [V::Words; 3];

    #[inline(always)]
    unsafe fn load<V: Lanes>(from: *const u8) -> [V::Words; 3] {
        // SAFETY: the caller's: six bits are three words, five two and a half one.
        unsafe {
            let word = |at: usize| {
                let line = from.add(at * 4 * BLOCK);
                if at < F::BITS / 2 { V::load_words(line) } else { V::load_halves(line) }
            };
            let last = (F::BITS - 1) / 2;
            [word(0), word(last.min(1)), word(last)]
        }
    }

    #[inline(always)]
    unsafe fn column<V: Lanes>(words: [V::Words; 3], column: usize) -> V {
        let (word, from) = (column * F::BITS / 32, column * F::BITS % 32);
        let lying = lying::<V, F>(column);
        // SAFETY: the caller's.
        unsafe {
            let mut bits = V::without(words[word], from - lying);
            if from + F::BITS > 32 {
                bits = V::joined(bits, words[word + 1], 32 - from);
            }
            F::number(bits, lying)
        }
    }

    #[inline(always)]
    fn power<V: Lanes>(column: usize) -> i32 {
        F::POWER + lying::<V, F>(column) as i32
    }
}

/// From which bit on those of a column become a number, when its word was moved for the first of as many columns as can
/// be taken from a word that was moved once.
#[inline(always)]
fn lying<V: Lanes, F: Few>(column: usize) -> usize {
    let from = column * F::BITS % 32;
    let together = (F::LYING / F::BITS).clamp(1, V::MASKS);
    let nth = from / F::BITS % together;
    if from + F::BITS > 32 { 0 } else { nth * F::BITS }
}

/// Bytes, each a number.
pub(super) struct Bytes;
/// Bytes, each a number, as subnormal floats.
pub(super) struct SubnormalBytes;
/// Bytes, each a small float.
pub(super) struct Fp8;

macro_rules! bytes {
    ($($quants:ident $load:ident $power:expr;)*) => {$(
        impl Quants for $quants {
            const STEP: usize = BLOCK * 16;
            type Loaded<V: Lanes> = *const u8;

            #[inline(always)]
            unsafe fn load<V: Lanes>(from: *const u8) -> *const u8 {
                from
            }

            #[inline(always)]
            unsafe fn column<V: Lanes>(from: *const u8, column: usize) -> V {
                // SAFETY: the caller's.
                unsafe { V::$load(from.add(column * BLOCK)) }
            }

            #[inline(always)]
            fn power<V: Lanes>(_column: usize) -> i32 {
                $power
            }
        }
    )*};
}

bytes! {
    Bytes load_bytes 0;
    SubnormalBytes load_bytes_as_floats -SUBNORMAL;
    Fp8 load_fp8 0;
}

/// The factors and the bases before [`OUTER`](crate::engine::format::weight::OUTER) columns of nested elements. Of
/// a symmetric matrix the second are its first quants, which nobody looks at.
///
/// # Safety
/// `V`'s instructions exist, and such columns.
#[inline(always)]
pub(super) unsafe fn outer_factors<V: Lanes>(head: *const u8) -> [V; 2] {
    // SAFETY: the caller's.
    unsafe { [V::load(head.cast()), V::load(head.add(BLOCK * 4).cast())] }
}

/// What follows the quants of a tile, found out once for all tiles.
#[derive(Clone, Copy)]
pub(super) struct Scaling {
    kind: Kind,
    /// Bytes of a tile that are not quants.
    pub(super) bytes: usize,
    /// As [`Element::zero`].
    pub(super) zero: Option<f32>,
}

/// Sixteen scales, or as many biases too.
#[derive(Clone, Copy)]
enum Kind {
    Scales(FloatType),
    Both(FloatType),
    Signed,
    BothSigned,
}

impl Scaling {
    /// Of elements that have scales.
    pub(super) fn new(element: Element) -> Self {
        let zero = element.zero();
        let kind = match element {
            Element::Codes { scale, .. } => Kind::Scales(scale),
            Element::Affine { scale, .. } if zero.is_some() => Kind::Scales(scale),
            Element::Affine { scale, .. } => Kind::Both(scale),
            Element::Nested { .. } if zero.is_some() => Kind::Signed,
            Element::Nested { .. } => Kind::BothSigned,
            Element::Dense(_) | Element::Rows(_) => unreachable!("floats are not scaled"),
        };
        Self { kind, bytes: element.tile_bytes() - element.quant_bytes(), zero }
    }

    /// The scales, and the biases where they are stored; `outer` is for nested elements.
    ///
    /// # Safety
    /// `V`'s instructions exist; `line` is where the scales of a tile begin.
    #[inline(always)]
    pub(super) unsafe fn read<V: Lanes>(self, line: *const u8, outer: [V; 2]) -> (V, Option<V>) {
        // SAFETY: the caller's.
        unsafe {
            match self.kind {
                Kind::Scales(float) => (V::load_as(float, line), None),
                Kind::Both(float) => {
                    (V::load_as(float, line), Some(V::load_as(float, line.add(BLOCK * float.size()))))
                }
                Kind::Signed => (V::load_signed_bytes(line).mul(outer[0]), None),
                Kind::BothSigned => {
                    let biases = V::load_signed_bytes(line.add(BLOCK));
                    (V::load_signed_bytes(line).mul(outer[0]), Some(biases.mul(outer[1])))
                }
            }
        }
    }
}

/// `$body` with `$quants` as the kind of numbers that have so many bits, read as `$few` (or `$bytes`) does.
macro_rules! by_bits {
    ($bits:expr, $few:ident, $bytes:ident, $quants:ident => $body:expr) => {
        match $bits {
            2 => $crate::engine::kernels::quants::by_bits!(@ $quants, $crate::engine::kernels::quants::$few<2>, $body),
            3 => $crate::engine::kernels::quants::by_bits!(@ $quants, $crate::engine::kernels::quants::$few<3>, $body),
            4 => $crate::engine::kernels::quants::by_bits!(@ $quants, $crate::engine::kernels::quants::$few<4>, $body),
            5 => $crate::engine::kernels::quants::by_bits!(@ $quants, $crate::engine::kernels::quants::$few<5>, $body),
            6 => $crate::engine::kernels::quants::by_bits!(@ $quants, $crate::engine::kernels::quants::$few<6>, $body),
            _ => $crate::engine::kernels::quants::by_bits!(@ $quants, $crate::engine::kernels::quants::$bytes, $body),
        }
    };
    (@ $quants:ident, $type:ty, $body:expr) => {{
        type $quants = $type;
        $body
    }};
}

/// `$body` with `$quants` as the kind of numbers that have so many bits, as the products of a few tokens read them: as
/// subnormal floats, which is for the caller to decide, or else in the way that is quickest for the lanes.
macro_rules! by_reading {
    ($lanes:ty, $subnormal:expr, $bits:expr, $quants:ident => $body:expr) => {
        if <$lanes>::SUBNORMALS && $subnormal {
            $crate::engine::kernels::quants::by_bits!($bits, Subnormal, SubnormalBytes, $quants => $body)
        } else if <$lanes>::IN_PLACE {
            $crate::engine::kernels::quants::by_bits!($bits, Raised, Bytes, $quants => $body)
        } else {
            $crate::engine::kernels::quants::by_bits!($bits, Number, Bytes, $quants => $body)
        }
    };
}

/// `$body` for each of 16 columns, one after the other and not in a loop: which bits a column has is known where
/// this is compiled.
#[cfg(not(debug_assertions))]
macro_rules! each_column {
    ($column:ident => $body:block) => {
        each_column!(@ $column $body 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
    };
    (@ $column:ident $body:block $($number:literal)*) => {$({
        let $column: usize = $number;
        $body
    })*};
}

/// The same as a loop: without optimization all of the columns' variables would lie on the stack at once.
#[cfg(debug_assertions)]
macro_rules! each_column {
    ($column:ident => $body:block) => {
        for $column in 0..$crate::engine::kernels::lanes::LANES $body
    };
}

pub(super) use {by_bits, by_reading, each_column};
