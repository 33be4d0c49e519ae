//! Products of many tokens: a panel of weights unpacked into the second-level cache, and an innermost
//! kernel that keeps its sums in registers.

use super::isa::Task;
use super::lanes::{AHEAD, Float, LANES, Lanes, prefetch};
use super::packed::{BLOCK, Element, Layout};
use super::quants::{Fp4, Fp8, Iq4, Quants, Scaling, by_bits, each_column, outer_factors};
use super::rows;
use crate::engine::format::weight::{CodeTable, OUTER};

/// Up to so many rows have registers for four vectors of columns.
const FEW: usize = 3;

/// A product of row-major matrices: `c[i][j] = Σ a[i][k] b[k][j]`, or `+=`, in float32.
///
/// To be run only where the pointers lead to matrices of these sizes.
#[derive(Clone, Copy)]
pub(super) struct Product<B = f32> {
    pub(super) a: *const f32,
    pub(super) a_stride: usize,
    /// The first two vectors of columns; further ones lie two vectors behind each.
    pub(super) b: [*const B; 2],
    pub(super) b_stride: usize,
    pub(super) c: *mut f32,
    pub(super) c_stride: usize,
    /// Rows of `a` and `c`.
    pub(super) rows: usize,
    /// Columns of `a`, rows of `b`.
    pub(super) depth: usize,
    /// Columns of `b` and `c`, a multiple of 16.
    pub(super) width: usize,
    /// Whether `c` is added to.
    pub(super) add: bool,
    pub(super) ahead: Ahead,
}

/// What is asked for while a product is computed, in equal parts during its tiles, so that the next product
/// does not have to wait for it: two runs of so many bytes.
#[derive(Clone, Copy)]
pub(super) struct Ahead {
    pub(super) starts: [*const u8; 2],
    pub(super) bytes: usize,
}

impl Ahead {
    pub(super) const NOTHING: Self = Self { starts: [std::ptr::null(); 2], bytes: 0 };
}

/// The columns of a matrix whose rows are as they should be.
pub(super) fn columns<B>(b: *const B) -> [*const B; 2] {
    [b, b.wrapping_add(LANES)]
}

impl<B: Float> Task for Product<B> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let mut column = 0;
        // SAFETY: the caller's; rows and columns stay within their bounds.
        unsafe {
            while column < self.width {
                let vectors = (self.width - column) / LANES;
                let most = if self.rows <= FEW {
                    ((sums::<V>() - 1) / self.rows).min(vectors)
                } else {
                    V::VECTORS.min(vectors)
                };
                if most >= 4 {
                    self.columns::<V, 4>(column);
                    column += 4 * LANES;
                } else if most >= 2 {
                    self.columns::<V, 2>(column);
                    column += 2 * LANES;
                } else {
                    self.columns::<V, 1>(column);
                    column += LANES;
                }
            }
        }
    }
}

/// Vectors of sums for which there are registers.
const fn sums<V: Lanes>() -> usize {
    V::TOKENS * V::VECTORS
}

impl<B: Float> Product<B> {
    /// `N` vectors of columns, all rows.
    #[inline(always)]
    unsafe fn columns<V: Lanes, const N: usize>(&self, column: usize) {
        let mut row = 0;
        while row < self.rows {
            let count = (self.rows - row).min(V::TOKENS);
            // SAFETY: the caller's.
            unsafe {
                match count {
                    12 => self.tile::<V, 12, N>(row, column),
                    11 => self.tile::<V, 11, N>(row, column),
                    10 => self.tile::<V, 10, N>(row, column),
                    9 => self.tile::<V, 9, N>(row, column),
                    8 => self.tile::<V, 8, N>(row, column),
                    7 => self.tile::<V, 7, N>(row, column),
                    6 => self.tile::<V, 6, N>(row, column),
                    5 => self.tile::<V, 5, N>(row, column),
                    4 => self.tile::<V, 4, N>(row, column),
                    3 => self.tile::<V, 3, N>(row, column),
                    2 => self.tile::<V, 2, N>(row, column),
                    _ => self.tile::<V, 1, N>(row, column),
                }
            }
            row += count;
        }
    }

    /// What is asked for during the tile that begins with this row: from where on, and how far a step goes.
    #[inline(always)]
    fn ahead_of<V: Lanes>(&self, row: usize) -> ([*const u8; 2], usize) {
        let Ahead { starts, bytes } = self.ahead;
        let at = bytes * row / self.rows;
        // Without anything to ask for, what is at hand.
        let starts = if bytes == 0 { self.b.map(<*const B>::cast) } else { starts };
        let step = (bytes * V::TOKENS).div_ceil(self.rows * self.depth);
        (starts.map(|start| start.wrapping_add(at)), step)
    }

    /// The innermost kernel: `T` rows, `N` vectors of columns.
    #[inline(always)]
    unsafe fn tile<V: Lanes, const T: usize, const N: usize>(&self, row: usize, column: usize) {
        // Shapes that `columns` never asks for need no code.
        if T * N > sums::<V>() || (N > V::VECTORS && T > FEW) {
            return;
        }
        // SAFETY: the caller's.
        unsafe {
            let c = self.c.add(row * self.c_stride + column);
            let mut sums = [[V::zero(); N]; T];
            if self.add {
                for (t, sums) in sums.iter_mut().enumerate() {
                    for (n, sum) in sums.iter_mut().enumerate() {
                        *sum = V::load(c.add(t * self.c_stride + n * LANES));
                    }
                }
            }
            // Every fourth row has its own pointer and the others are reached by the stride, which is
            // what addressing modes can do without spending registers or additions.
            let a = self.a.add(row * self.a_stride);
            let mut a: [*const f32; 3] = std::array::from_fn(|i| a.wrapping_add(4 * i * self.a_stride));
            let mut b: [*const B; N] = std::array::from_fn(|n| {
                let vector = column / LANES + n;
                self.b[vector % 2].wrapping_add(vector / 2 * 2 * LANES)
            });
            let (mut ahead, step) = self.ahead_of::<V>(row);
            for _ in 0..self.depth {
                // Only the shape that most of the work has is worth the code.
                if T == V::TOKENS && N == 2 {
                    ahead.into_iter().for_each(prefetch);
                    ahead = ahead.map(|address| address.wrapping_add(step));
                }
                let mut weights = [V::zero(); N];
                for (weights, b) in weights.iter_mut().zip(b) {
                    *weights = B::load(b);
                }
                for (t, sums) in sums.iter_mut().enumerate() {
                    let value = V::splat(*a[t / 4].add(t % 4 * self.a_stride));
                    for (sum, weights) in sums.iter_mut().zip(weights) {
                        *sum = value.mul_add(weights, *sum);
                    }
                }
                a = a.map(|pointer| pointer.wrapping_add(1));
                b = b.map(|pointer| pointer.wrapping_add(self.b_stride));
            }
            for (t, sums) in sums.into_iter().enumerate() {
                for (n, sum) in sums.into_iter().enumerate() {
                    sum.store(c.add(t * self.c_stride + n * LANES));
                }
            }
        }
    }
}

/// Writes columns `first..last` (at borders of groups) of a block as float32: `to[k][0..16]`, `stride`
/// floats from one column to the next.
///
/// # Safety
/// `V`'s instructions exist; `block` is as long as `layout` says, `to` has room.
#[inline(always)]
pub(super) unsafe fn unpack<V: Lanes>(
    layout: Layout,
    block: *const u8,
    first: usize,
    last: usize,
    to: *mut f32,
    stride: usize,
) {
    // SAFETY: the caller's.
    unsafe {
        match layout.element {
            Element::Dense(float) => {
                for column in first..last {
                    let from = block.add(column * BLOCK * float.size());
                    prefetch(from.wrapping_add(AHEAD));
                    let values = V::load_as(float, from);
                    values.store(to.add((column - first) * stride));
                }
            }
            Element::Rows(row_type) => {
                rows::unpack::<V>(block, row_type, layout.columns, first..last, to, stride);
            }
            Element::Affine { .. } | Element::Nested { .. } | Element::Codes { .. } => {
                unpack_tiles::<V>(layout, block, first, last, to, stride);
            }
        }
    }
}

#[inline(always)]
unsafe fn unpack_tiles<V: Lanes>(
    layout: Layout,
    block: *const u8,
    first: usize,
    last: usize,
    to: *mut f32,
    stride: usize,
) {
    let element = layout.element;
    let group = element.group().unwrap_or(1);
    let scaling = Scaling::new(element);
    let mut to = to;
    // SAFETY: the caller's.
    unsafe {
        for index in first / group..last / group {
            let tile = block.add(layout.tile_start(index));
            for ahead in (0..element.tile_bytes()).step_by(64) {
                prefetch(tile.wrapping_add(AHEAD + ahead));
            }
            let outer = match element {
                Element::Nested { .. } => {
                    outer_factors(block.add(index * group / OUTER * element.outer_bytes()))
                }
                _ => [V::zero(); 2],
            };
            let (scales, stored) = scaling.read(tile.add(element.quant_bytes()), outer);
            let biases = match scaling.zero {
                Some(zero) => Some(scales.mul(V::splat(zero))),
                None => stored,
            };
            match element {
                Element::Dense(_) | Element::Rows(_) => {}
                Element::Affine { bits, .. } | Element::Nested { bits, .. } => {
                    by_bits!(bits, Number, Bytes, Q => unpack_quants::<V, Q>(tile, group, scales, biases, to, stride));
                }
                Element::Codes { table, .. } => match table {
                    CodeTable::Iq4 => unpack_quants::<V, Iq4>(tile, group, scales, biases, to, stride),
                    CodeTable::Fp4 => unpack_quants::<V, Fp4>(tile, group, scales, biases, to, stride),
                    CodeTable::Fp8 => unpack_quants::<V, Fp8>(tile, group, scales, biases, to, stride),
                },
            }
            to = to.add(group * stride);
        }
    }
}

/// A tile's quants times scales, plus biases where there are some.
#[inline(always)]
unsafe fn unpack_quants<V: Lanes, Q: Quants>(
    tile: *const u8,
    group: usize,
    scales: V,
    biases: Option<V>,
    to: *mut f32,
    stride: usize,
) {
    // SAFETY: the caller's.
    unsafe {
        for step in 0..group / LANES {
            let loaded = Q::load::<V>(tile.add(step * Q::STEP));
            each_column!(column => {
                let quants = Q::column::<V>(loaded, column);
                let values = match biases {
                    Some(biases) => quants.mul_add(scales, biases),
                    None => quants.mul(scales),
                };
                values.store(to.add((step * LANES + column) * stride));
            });
        }
    }
}
