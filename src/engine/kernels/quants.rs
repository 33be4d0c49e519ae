//! Sixteen columns of a tile at a time, as numbers.

use super::lanes::{FP4, IQ4, Lanes};
use super::packed::{BLOCK, Element};

/// How the quants of a tile are read.
pub(super) trait Quants {
    /// Bytes of 16 columns.
    const STEP: usize;
    /// 16 columns before they are numbers.
    type Loaded<V: Lanes>: Copy;

    /// # Safety
    /// `V`'s instructions exist, and so many bytes.
    unsafe fn load<V: Lanes>(from: *const u8) -> Self::Loaded<V>;

    /// The 16 rows' numbers of a column.
    ///
    /// # Safety
    /// `V`'s instructions exist; what was loaded still does.
    unsafe fn column<V: Lanes>(loaded: Self::Loaded<V>, column: usize) -> V;
}

/// Some bits, a number of their own or the index of one.
pub(super) trait Few {
    const BITS: usize;

    /// The number of the lowest bits.
    unsafe fn number<V: Lanes>(words: V::Words) -> V;
}

pub(super) struct Number<const BITS: usize>;
pub(super) struct Iq4;
pub(super) struct Fp4;

impl<const BITS: usize> Few for Number<BITS> {
    const BITS: usize = BITS;

    #[inline(always)]
    unsafe fn number<V: Lanes>(words: V::Words) -> V {
        // SAFETY: the caller's.
        unsafe { V::low_bits::<BITS>(words) }
    }
}

impl Few for Iq4 {
    const BITS: usize = 4;

    #[inline(always)]
    unsafe fn number<V: Lanes>(words: V::Words) -> V {
        // SAFETY: the caller's.
        unsafe { V::look_up(words, &IQ4) }
    }
}

impl Few for Fp4 {
    const BITS: usize = 4;

    #[inline(always)]
    unsafe fn number<V: Lanes>(words: V::Words) -> V {
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
        // SAFETY: the caller's.
        unsafe {
            let mut bits = V::without(words[word], from);
            if from + F::BITS > 32 {
                bits = V::joined(bits, words[word + 1], 32 - from);
            }
            F::number(bits)
        }
    }
}

/// Bytes, each a number.
pub(super) struct Bytes;
/// Bytes, each a small float.
pub(super) struct Fp8;

macro_rules! bytes {
    ($($quants:ident $load:ident;)*) => {$(
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
        }
    )*};
}

bytes! {
    Bytes load_bytes;
    Fp8 load_fp8;
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

/// The scales behind the quants of a tile, and the biases, stored or not, of elements that have some; `outer` is
/// for nested ones.
///
/// # Safety
/// `V`'s instructions exist; `line` is where the scales of a tile of such elements begin.
#[inline(always)]
pub(super) unsafe fn scales_and_biases<V: Lanes>(
    element: Element,
    line: *const u8,
    outer: [V; 2],
) -> (V, Option<V>) {
    // SAFETY: the caller's.
    unsafe {
        let scales = match element {
            Element::Dense(_) | Element::Rows(_) => V::zero(),
            Element::Affine { scale, .. } | Element::Codes { scale, .. } => V::load_as(scale, line),
            Element::Nested { .. } => V::load_signed_bytes(line).mul(outer[0]),
        };
        let biases = match (element, element.zero()) {
            (_, Some(zero)) => Some(scales.mul(V::splat(zero))),
            (Element::Affine { scale, .. }, None) => Some(V::load_as(scale, line.add(BLOCK * scale.size()))),
            (Element::Nested { .. }, None) => Some(V::load_signed_bytes(line.add(BLOCK)).mul(outer[1])),
            (Element::Dense(_) | Element::Rows(_) | Element::Codes { .. }, None) => None,
        };
        (scales, biases)
    }
}

/// `$body` with `$quants` as the kind of numbers that have so many bits.
macro_rules! by_bits {
    ($bits:expr, $quants:ident => $body:expr) => {
        match $bits {
            2 => by_bits!(@ $quants, $crate::engine::kernels::quants::Number<2>, $body),
            3 => by_bits!(@ $quants, $crate::engine::kernels::quants::Number<3>, $body),
            4 => by_bits!(@ $quants, $crate::engine::kernels::quants::Number<4>, $body),
            5 => by_bits!(@ $quants, $crate::engine::kernels::quants::Number<5>, $body),
            6 => by_bits!(@ $quants, $crate::engine::kernels::quants::Number<6>, $body),
            _ => by_bits!(@ $quants, $crate::engine::kernels::quants::Bytes, $body),
        }
    };
    (@ $quants:ident, $type:ty, $body:expr) => {{
        type $quants = $type;
        $body
    }};
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

pub(super) use {by_bits, each_column};
