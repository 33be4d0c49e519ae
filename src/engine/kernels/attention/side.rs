//! The keys or the values of a cache, in float32, in float16 or packed: MLX's affine quantization with float32
//! scales and biases.

use half::f16;
use mlx_rs::Dtype;
use mlx_rs::error::Exception;

use super::Attention;
use crate::engine::ffi::{Buffers, Operand, SharedSlice, Tensor};
use crate::engine::kernels::check;
use crate::engine::kernels::lanes::{Float, LANES, Lanes, prefetch};

/// How numbers are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Packing {
    /// 4 or 8.
    pub(super) bits: usize,
    pub(super) group: usize,
}

/// Entries `[heads * capacity, width]`.
#[derive(Clone, Copy)]
pub(super) struct Side<'a> {
    width: usize,
    store: Store<'a>,
}

#[derive(Clone, Copy)]
enum Store<'a> {
    Floats(SharedSlice<'a, f32>),
    /// Bits of half floats.
    Halves(SharedSlice<'a, u16>),
    Packed {
        packing: Packing,
        /// Numbers, the first in the lowest bits.
        numbers: SharedSlice<'a, u8>,
        scales: SharedSlice<'a, f32>,
        biases: SharedSlice<'a, f32>,
    },
}

/// The smallest scale, as MLX has it.
const LEAST_SCALE: f32 = 1e-7;

impl Packing {
    /// Bytes of a row.
    fn bytes(self, width: usize) -> usize {
        width * self.bits / 8
    }
}

/// Entries one after the other.
#[derive(Clone, Copy)]
pub(super) enum Rows {
    Floats(*const f32),
    Halves(*const f16),
}

/// Checks the arrays of a cache: how many entries they have room for, and whether they are half floats.
pub(super) fn check(caches: &[Tensor], layer: &Attention) -> Result<(usize, bool), Exception> {
    let capacity = match caches.first().map(Tensor::shape) {
        Some(&[_, capacity, _]) => capacity as usize,
        other => return Err(Exception::custom(format!("a key cache has the shape {other:?}"))),
    };
    let is_half = layer.packing.is_none() && caches.iter().all(|cache| cache.dtype() == Dtype::Float16);
    let mut arrays = caches.iter();
    for width in layer.sides() {
        let mut next = || arrays.next().ok_or_else(|| Exception::custom("a cache without all its arrays"));
        let Some(packing) = layer.packing() else {
            let (array, expected) = (next()?, [layer.kv_heads, capacity, width]);
            if !is_half {
                check::shape(array, "a cache", &expected)?;
            } else if !array.shape().iter().map(|&size| size as usize).eq(expected) {
                return Err(Exception::custom(format!("a cache has the shape {:?}", array.shape())));
            }
            continue;
        };
        let Packing { bits, group } = packing;
        if !(bits == 4 || bits == 8) || group < 8 || !group.is_multiple_of(8) || !width.is_multiple_of(group)
        {
            return Err(Exception::custom(format!("heads of {width} packed as {packing:?}")));
        }
        let numbers = next()?;
        let expected = [layer.kv_heads, capacity, packing.bytes(width) / size_of::<u32>()];
        let fits = numbers.shape().iter().map(|&size| size as usize).eq(expected);
        if numbers.dtype() != Dtype::Uint32 || !fits {
            return Err(Exception::custom(format!("packed numbers of the shape {:?}", numbers.shape())));
        }
        for what in ["the scales of a cache", "the biases of a cache"] {
            check::shape(next()?, what, &[layer.kv_heads, capacity, width / group])?;
        }
    }
    match arrays.next() {
        Some(_) => Err(Exception::custom("a cache with more arrays than it needs")),
        None => Ok((capacity, is_half)),
    }
}

impl<'a> Side<'a> {
    /// The side whose arrays are outputs from `first` on.
    pub(super) fn of(
        buffers: &Buffers<'a>,
        first: usize,
        width: usize,
        packing: Option<Packing>,
        is_half: bool,
    ) -> Self {
        let store = match packing {
            None if is_half => Store::Halves(buffers.output(first)),
            None => Store::Floats(buffers.output(first)),
            Some(packing) => Store::Packed {
                packing,
                numbers: buffers.output_bytes(first),
                scales: buffers.output(first + 1),
                biases: buffers.output(first + 2),
            },
        };
        Self { width, store }
    }

    pub(super) fn width(&self) -> usize {
        self.width
    }

    pub(super) fn is_packed(&self) -> bool {
        matches!(self.store, Store::Packed { .. })
    }

    pub(super) fn is_half(&self) -> bool {
        matches!(self.store, Store::Halves(_))
    }

    /// Sets one entry to what `fill` writes: where it lies, or first into `scratch`, an entry's size at least.
    ///
    /// # Safety
    /// The processor has the instructions of `V`; nobody else reads or writes the entry.
    #[inline(always)]
    pub(super) unsafe fn set<V: Lanes>(
        &self,
        entry: usize,
        scratch: &mut [f32],
        fill: impl FnOnce(&mut [f32]),
    ) {
        let row = &mut scratch[..self.width];
        match self.store {
            Store::Floats(all) => {
                // SAFETY: the caller's.
                fill(unsafe { all.slice(entry * self.width, self.width) });
            }
            Store::Halves(all) => {
                fill(row);
                // SAFETY: the caller's; a row has room for its halves.
                unsafe { halve::<V>(row, all.range(entry * self.width, self.width)) };
            }
            Store::Packed { packing, numbers, scales, biases } => {
                let (bytes, groups) = (packing.bytes(self.width), self.width / packing.group);
                fill(row);
                // SAFETY: the caller's.
                let (numbers, scales, biases) = unsafe {
                    (
                        numbers.slice(entry * bytes, bytes),
                        scales.slice(entry * groups, groups),
                        biases.slice(entry * groups, groups),
                    )
                };
                let in_group = numbers.chunks_exact_mut(packing.bytes(packing.group));
                let groups = row.chunks_exact(packing.group).zip(in_group);
                for ((row, numbers), (scale, bias)) in groups.zip(scales.iter_mut().zip(biases)) {
                    (*scale, *bias) = pack(row, packing.bits, numbers);
                }
            }
        }
    }

    /// `count` entries one after the other: where they lie, or unpacked into `scratch`.
    ///
    /// # Safety
    /// Nobody writes the entries meanwhile.
    pub(super) unsafe fn rows(&self, entry: usize, count: usize, scratch: &mut [f32]) -> Rows {
        match self.store {
            Store::Floats(all) => Rows::Floats(all.range(entry * self.width, count * self.width)),
            Store::Halves(all) => Rows::Halves(all.range(entry * self.width, count * self.width).cast()),
            Store::Packed { packing, numbers, scales, biases } => {
                let (bytes, groups) = (packing.bytes(self.width), self.width / packing.group);
                // SAFETY: the caller's.
                let (numbers, scales, biases) = unsafe {
                    (
                        &*numbers.slice(entry * bytes, count * bytes),
                        &*scales.slice(entry * groups, count * groups),
                        &*biases.slice(entry * groups, count * groups),
                    )
                };
                let in_group = numbers.chunks_exact(packing.bytes(packing.group));
                let factors = scales.iter().zip(biases);
                for ((to, numbers), (scale, bias)) in
                    scratch.chunks_exact_mut(packing.group).zip(in_group).zip(factors)
                {
                    unpack(numbers, packing.bits, *scale, *bias, to);
                }
                Rows::Floats(scratch.as_ptr())
            }
        }
    }
}

impl Rows {
    /// What follows so many elements.
    #[inline(always)]
    pub(super) fn after(self, elements: usize) -> Self {
        match self {
            Self::Floats(from) => Self::Floats(from.wrapping_add(elements)),
            Self::Halves(from) => Self::Halves(from.wrapping_add(elements)),
        }
    }

    /// Asks for so many elements behind so many bytes, which may lie anywhere.
    #[inline(always)]
    pub(super) fn fetch(self, behind: usize, elements: usize) {
        let (from, size) = match self {
            Self::Floats(from) => (from.cast::<u8>(), size_of::<f32>()),
            Self::Halves(from) => (from.cast(), size_of::<f16>()),
        };
        for at in (0..elements * size).step_by(LANES * size_of::<f32>()) {
            prefetch(from.wrapping_add(behind + at));
        }
    }

    /// So many elements in float32: where they lie, or in `scratch`.
    ///
    /// # Safety
    /// The processor has the instructions of `V`; the elements are there.
    #[inline(always)]
    pub(super) unsafe fn floats<V: Lanes>(self, elements: usize, scratch: &mut [f32]) -> *const f32 {
        match self {
            Self::Floats(from) => from,
            Self::Halves(from) => {
                let scratch = &mut scratch[..elements];
                // SAFETY: the caller's.
                unsafe { widen::<V>(from, scratch) };
                scratch.as_ptr()
            }
        }
    }

    /// Copies as many elements as `to` has.
    ///
    /// # Safety
    /// The processor has the instructions of `V`; the elements are there.
    #[inline(always)]
    pub(super) unsafe fn copy<V: Lanes>(self, to: &mut [f32]) {
        // SAFETY: the caller's.
        unsafe {
            match self {
                Self::Floats(from) => to.copy_from_slice(std::slice::from_raw_parts(from, to.len())),
                Self::Halves(from) => widen::<V>(from, to),
            }
        }
    }
}

/// As many half floats as `to` has, in float32.
#[inline(always)]
unsafe fn widen<V: Lanes>(from: *const f16, to: &mut [f32]) {
    // SAFETY: the caller's; what is no whole vector goes through one that is.
    unsafe {
        let whole = to.len() / LANES * LANES;
        for at in (0..whole).step_by(LANES) {
            f16::load::<V>(from.add(at)).store(to.as_mut_ptr().add(at));
        }
        let rest = &mut to[whole..];
        if !rest.is_empty() {
            let mut halves = [f16::ZERO; LANES];
            std::ptr::copy_nonoverlapping(from.add(whole), halves.as_mut_ptr(), rest.len());
            f16::load::<V>(halves.as_ptr()).store_part(rest.as_mut_ptr(), rest.len());
        }
    }
}

/// Half floats of a row.
#[inline(always)]
unsafe fn halve<V: Lanes>(row: &[f32], to: *mut u16) {
    // SAFETY: the caller's; as above.
    unsafe {
        let (whole, rest) = row.as_chunks::<LANES>();
        for (at, vector) in whole.iter().enumerate() {
            V::load(vector.as_ptr()).store_f16(to.add(at * LANES).cast());
        }
        if !rest.is_empty() {
            let mut halves = [0_u16; LANES];
            V::load_part(rest.as_ptr(), rest.len()).store_f16(halves.as_mut_ptr().cast());
            std::ptr::copy_nonoverlapping(halves.as_ptr(), to.add(row.len() - rest.len()), rest.len());
        }
    }
}

/// Packs a group as MLX does: the extreme of larger size is met exactly, if it is a whole number of steps
/// from zero; so is zero. Scale and bias.
fn pack(row: &[f32], bits: usize, to: &mut [u8]) -> (f32, f32) {
    let (low, high) =
        row.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), &x| (low.min(x), high.max(x)));
    let most = ((1_u32 << bits) - 1) as f32;
    let mut scale = ((high - low) / most).max(LEAST_SCALE);
    let edge = if low.abs() > high.abs() {
        low
    } else {
        scale = -scale;
        high
    };
    let steps = (edge / scale).round_ties_even();
    let mut bias = 0.0;
    if steps != 0.0 {
        scale = edge / steps;
        bias = edge;
    }
    // A number that is none becomes 0.
    let number = |x: f32| ((x - bias) / scale).round_ties_even().clamp(0.0, most) as u8;
    if bits == 8 {
        for (to, &x) in to.iter_mut().zip(row) {
            *to = number(x);
        }
    } else {
        for (to, pair) in to.iter_mut().zip(row.chunks_exact(2)) {
            *to = number(pair[0]) | number(pair[1]) << 4;
        }
    }
    (scale, bias)
}

#[inline(always)]
fn unpack(numbers: &[u8], bits: usize, scale: f32, bias: f32, to: &mut [f32]) {
    if bits == 8 {
        for (to, &number) in to.iter_mut().zip(numbers) {
            *to = f32::from(number).mul_add(scale, bias);
        }
    } else {
        for (to, &pair) in to.chunks_exact_mut(2).zip(numbers) {
            to[0] = f32::from(pair & 15).mul_add(scale, bias);
            to[1] = f32::from(pair >> 4).mul_add(scale, bias);
        }
    }
}
