//! The keys or the values of a cache, as they are or packed: MLX's affine quantization with float32 scales
//! and biases.

use mlx_rs::Dtype;
use mlx_rs::error::Exception;

use super::Attention;
use crate::engine::ffi::{Buffers, Operand, SharedSlice, Tensor};
use crate::engine::kernels::check;

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
    Plain(SharedSlice<'a, f32>),
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

/// Checks the arrays of a cache; how many entries they have room for.
pub(super) fn check(caches: &[Tensor], layer: &Attention) -> Result<usize, Exception> {
    let capacity = match caches.first().map(Tensor::shape) {
        Some(&[_, capacity, _]) => capacity as usize,
        other => return Err(Exception::custom(format!("a key cache has the shape {other:?}"))),
    };
    let mut arrays = caches.iter();
    for width in layer.sides() {
        let mut next = || arrays.next().ok_or_else(|| Exception::custom("a cache without all its arrays"));
        let Some(packing) = layer.packing() else {
            check::shape(next()?, "a cache", &[layer.kv_heads, capacity, width])?;
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
        None => Ok(capacity),
    }
}

impl<'a> Side<'a> {
    /// The side whose arrays are outputs from `first` on.
    pub(super) fn of(buffers: &Buffers<'a>, first: usize, width: usize, packing: Option<Packing>) -> Self {
        let store = match packing {
            None => Store::Plain(buffers.output(first)),
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

    /// Sets one entry to what `fill` writes.
    ///
    /// # Safety
    /// Nobody else reads or writes the entry.
    pub(super) unsafe fn set(&self, entry: usize, fill: impl FnOnce(&mut [f32])) {
        match self.store {
            Store::Plain(all) => {
                // SAFETY: the caller's.
                fill(unsafe { all.slice(entry * self.width, self.width) });
            }
            Store::Packed { packing, numbers, scales, biases } => {
                let (bytes, groups) = (packing.bytes(self.width), self.width / packing.group);
                let mut row = vec![0.0; self.width];
                fill(&mut row);
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
    pub(super) unsafe fn rows(&self, entry: usize, count: usize, scratch: &mut [f32]) -> *const f32 {
        match self.store {
            Store::Plain(all) => all.range(entry * self.width, count * self.width),
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
                scratch.as_ptr()
            }
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
