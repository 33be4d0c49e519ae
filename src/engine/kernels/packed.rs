//! How weights lie in memory for the kernels.
//!
//! Rows come in blocks of 16, the last one padded with zeros; a block is one aligned stream that a
//! kernel reads from end to end, 16 rows at a time:
//!
//! - dense: for each column the 16 rows' values, in the stored type;
//! - affine: for each group of columns a tile of quants, then 16 scales, then 16 biases, unless all of these
//!   are the same multiple of their scales (see [`Element::zero`]).
//!   Quants of eight bits: for each column 16 bytes, one a row. Of two to six: a row's quants of 16 columns
//!   are so many times two bytes of consecutive bits, the lowest the first column, as little-endian `u32` and,
//!   where two bytes are left, a `u16`; of each of these 16, one a row;
//! - nested: the same tiles with 16 signed bytes of scale and 16 of offset, and before each 256 columns
//!   16 float32 factors and 16 bases that they are multiplied with; without offsets and bases where those of
//!   affine ones would be missing;
//! - codes: tiles of four or eight bits, then 16 scales.
//!
//! So a matrix takes as many bits as its quants have, and their scales. Some may also stay as they lie in their file,
//! row by row: a block is 16 rows then, see [`rows`](super::rows).

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use half::{bf16, f16};
use mlx_rs::Array;
use mlx_rs::error::Exception;

use super::{pack, pool, rows};
use crate::engine::ffi::{Input, Region, SharedSlice, aligned, aligned_bytes};
use crate::engine::format::weight::{CodeTable, FloatType, OUTER, RowType, WeightData, middle};
use crate::error;

/// Rows of a block: one AVX-512 vector of float32.
pub(super) const BLOCK: usize = 16;

/// A weight matrix `[rows, columns]` in the kernels' layout, immutable and cheap to clone.
#[derive(Debug, Clone)]
pub struct PackedMatrix {
    content: Content,
    layout: Layout,
}

#[derive(Debug, Clone)]
enum Content {
    Packed(Array),
    Lying(Region),
}

/// Columns at whose multiples rows that stay as they lie can be cut.
pub(super) const ROW_STEP: usize = 32;

/// Bytes that a thread asks the system for at a time.
const FETCHED: usize = 8 << 20;

impl PackedMatrix {
    /// Repacks a weight.
    ///
    /// # Errors
    /// A shape that is not a matrix, sizes that contradict each other, bits or groups that no kernel
    /// knows, or no memory.
    pub fn pack(weight: &WeightData) -> Result<Self, Exception> {
        Self::pack_parts(weight, 1)
    }

    /// Repacks matrices of equal size that lie one below the other, so that each of them begins a block:
    /// where their rows are no multiple of 16, rows of zeros follow.
    ///
    /// # Errors
    /// As [`PackedMatrix::pack`], and rows that do not divide.
    pub fn pack_parts(weight: &WeightData, parts: usize) -> Result<Self, Exception> {
        let source = pack::Source::new(weight)?;
        let blocks = Blocks::new(source.layout(), parts)?;
        let fill = |bytes: SharedSlice<'_, u8>| {
            pool::run(blocks.layout.blocks(), &|block| {
                // SAFETY: each block is one worker's, and only written.
                let out = unsafe { blocks.slice(bytes, block) };
                source.fill_block(blocks.layout, blocks.rows(block), out);
            });
            Ok::<_, Exception>(())
        };
        let array = aligned_bytes(blocks.layout.bytes(), fill)?;
        Ok(Self { content: Content::Packed(array), layout: blocks.layout })
    }

    /// Matrices of equal size, one below the other, that are not packed but stay where their rows lie. `None` where
    /// these are not whole blocks, or lie askew.
    pub fn lying(rows: &Region, row_type: RowType, columns: usize, parts: usize) -> Option<Self> {
        let row_bytes = row_type.bytes(columns);
        let count = rows.len().checked_div(row_bytes)?;
        let fits = rows.len() == count * row_bytes
            && rows.as_ptr().addr().is_multiple_of(size_of::<f32>())
            && columns.is_multiple_of(ROW_STEP)
            && count.is_multiple_of(BLOCK * parts);
        let layout = Layout { rows: count, columns, element: Element::Rows(row_type) };
        fits.then(|| Self { content: Content::Lying(rows.clone()), layout })
    }

    /// Brings what lies in a file into memory; whether scales that were never read are numbers.
    pub fn fetch(&self) -> bool {
        let (Content::Lying(rows), Element::Rows(row_type)) = (&self.content, self.layout.element) else {
            return true;
        };
        let row_bytes = row_type.bytes(self.layout.columns);
        let piece = (FETCHED / row_bytes).max(1) * row_bytes;
        let finite = AtomicBool::new(true);
        pool::run_patiently(rows.len().div_ceil(piece), &|index| {
            let piece = index * piece..rows.len().min((index + 1) * piece);
            rows.fetch(piece.clone());
            if !rows::is_finite(row_type, &rows[piece]) {
                finite.store(false, Ordering::Relaxed);
            }
        });
        finite.into_inner()
    }

    /// Packs matrices as [`PackedMatrix::pack_parts`] does while they are read: by all threads, a few rows at a
    /// time, so that they are in memory but once. `read` gives any of the `rows`.
    ///
    /// # Errors
    /// Those of `read` and of [`PackedMatrix::pack_parts`].
    pub fn read(
        rows: usize,
        parts: usize,
        read: &(dyn Fn(Range<usize>) -> error::Result<WeightData> + Sync),
    ) -> error::Result<Self> {
        let first = read(0..rows.min(BLOCK))?;
        let layout = Layout { rows, ..pack::Source::new(&first)?.layout() };
        let blocks = Blocks::new(layout, parts)?;
        let (layout, runs) = (blocks.layout, blocks.runs());
        let one = |bytes: SharedSlice<'_, u8>, run: Range<usize>| -> Result<(), Unfit> {
            let start = blocks.rows(run.start).start;
            let weight = read(start..blocks.rows(run.end - 1).end)?;
            let source = pack::Source::new(&weight)?;
            if !source.fits(layout) {
                return Err(Unfit::Scales);
            }
            for block in run {
                let rows = blocks.rows(block);
                // SAFETY: each block is in one run, which is one worker's, and only written.
                let out = unsafe { blocks.slice(bytes, block) };
                source.fill_block(layout, rows.start - start..rows.end - start, out);
            }
            Ok(())
        };
        let fill = |bytes: SharedSlice<'_, u8>| {
            let (unfit, found) = (AtomicBool::new(false), Mutex::new(Ok(())));
            pool::run_patiently(runs.len(), &|index| {
                if unfit.load(Ordering::Relaxed) {
                    return;
                }
                if let Err(why) = one(bytes, runs[index].clone()) {
                    unfit.store(true, Ordering::Relaxed);
                    *found.lock().unwrap_or_else(PoisonError::into_inner) = Err(why);
                }
            });
            found.into_inner().unwrap_or_else(PoisonError::into_inner)
        };
        match aligned_bytes(layout.bytes(), fill) {
            Ok(array) => Ok(Self { content: Content::Packed(array), layout }),
            Err(Unfit::Error(error)) => Err(error),
            // Only all of the rows tell the type of the scales.
            Err(Unfit::Scales) => Ok(Self::pack_parts(&read(0..rows)?, parts)?),
        }
    }

    pub fn rows(&self) -> usize {
        self.layout.rows
    }

    pub fn columns(&self) -> usize {
        self.layout.columns
    }

    /// Bytes in memory.
    pub fn nbytes(&self) -> usize {
        match &self.content {
            Content::Packed(array) => array.nbytes(),
            Content::Lying(rows) => rows.len(),
        }
    }

    /// The input of a kernel that reads the matrix by a [`View`].
    pub(super) fn input(&self) -> Input<'_> {
        match &self.content {
            Content::Packed(array) => Input::Array(array),
            Content::Lying(rows) => Input::Region(rows),
        }
    }

    pub(super) fn layout(&self) -> Layout {
        self.layout
    }
}

/// Why rows cannot be packed as the first ones are.
enum Unfit {
    /// They have scales that the first ones do not foretell.
    Scales,
    Error(error::Error),
}

impl<E: Into<error::Error>> From<E> for Unfit {
    fn from(error: E) -> Self {
        Self::Error(error.into())
    }
}

/// Elements that a thread reads and packs at a time: their bytes stay in its caches.
pub(super) const RUN: usize = 1 << 16;

/// Blocks of matrices of equal size, each of which begins one.
struct Blocks {
    /// With the rows that follow each matrix.
    layout: Layout,
    /// Rows of a matrix.
    each: usize,
}

impl Blocks {
    /// Of a layout without rows between the parts.
    fn new(mut layout: Layout, parts: usize) -> Result<Self, Exception> {
        if parts == 0 || !layout.rows.is_multiple_of(parts) {
            return Err(Exception::custom(format!("{} rows are not {parts} equal parts", layout.rows)));
        }
        let each = layout.rows / parts;
        if parts > 1 {
            layout.rows = parts * each.next_multiple_of(BLOCK);
        }
        Ok(Self { layout, each })
    }

    /// Blocks of a matrix.
    fn of_part(&self) -> usize {
        self.each.div_ceil(BLOCK)
    }

    /// The rows of a block, as they are numbered without the rows between the parts.
    fn rows(&self, block: usize) -> Range<usize> {
        let (part, first) = (block / self.of_part() * self.each, block % self.of_part() * BLOCK);
        part + first..part + self.each.min(first + BLOCK)
    }

    /// All blocks, in runs of some [`RUN`] elements.
    fn runs(&self) -> Vec<Range<usize>> {
        let (count, most) = (self.layout.blocks(), (RUN / (BLOCK * self.layout.columns)).max(1));
        (0..count).step_by(most).map(|start| start..count.min(start + most)).collect()
    }

    /// # Safety
    /// The block is one worker's, and only written.
    unsafe fn slice<'a>(&self, bytes: SharedSlice<'a, u8>, block: usize) -> &'a mut [u8] {
        let size = self.layout.block_bytes();
        // SAFETY: the caller's.
        unsafe { bytes.slice(block * size, size) }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Element {
    Dense(FloatType),
    /// Not packed: a row after the other.
    Rows(RowType),
    /// `group` columns share a scale and a bias, both of type `scale`.
    Affine {
        bits: usize,
        group: usize,
        scale: FloatType,
        symmetric: bool,
    },
    /// [`WeightData::Nested`].
    Nested {
        bits: usize,
        group: usize,
        symmetric: bool,
    },
    /// [`WeightData::Codes`].
    Codes {
        table: CodeTable,
        group: usize,
        scale: FloatType,
    },
}

/// A matrix without its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) element: Element,
}

impl Layout {
    pub(super) fn blocks(self) -> usize {
        self.rows.div_ceil(BLOCK)
    }

    /// Bytes of 16 rows.
    pub(super) fn block_bytes(self) -> usize {
        match self.element {
            Element::Dense(float) => self.columns * BLOCK * float.size(),
            Element::Rows(row_type) => BLOCK * row_type.bytes(self.columns),
            Element::Affine { group, .. } | Element::Codes { group, .. } => {
                self.columns / group * self.element.tile_bytes()
            }
            Element::Nested { .. } => self.columns / OUTER * self.element.outer_bytes(),
        }
    }

    /// Where the tile of group `index` begins in a block.
    pub(super) fn tile_start(self, index: usize) -> usize {
        let element = self.element;
        match element {
            Element::Nested { group, .. } => {
                let together = OUTER / group;
                index / together * element.outer_bytes()
                    + element.head_bytes()
                    + index % together * element.tile_bytes()
            }
            _ => index * element.tile_bytes(),
        }
    }

    pub(super) fn bytes(self) -> usize {
        self.blocks() * self.block_bytes()
    }
}

impl Element {
    /// Columns that share a scale; `None` for dense ones.
    pub(super) fn group(self) -> Option<usize> {
        match self {
            Self::Dense(_) | Self::Rows(_) => None,
            Self::Affine { group, .. } | Self::Nested { group, .. } | Self::Codes { group, .. } => {
                Some(group)
            }
        }
    }

    /// Columns at whose multiples a run of them may begin.
    pub(super) fn step(self) -> usize {
        match self {
            Self::Nested { .. } => OUTER,
            Self::Rows(_) => ROW_STEP,
            other => other.group().unwrap_or(1),
        }
    }

    /// Bits of a quant or code; of floats none.
    fn bits(self) -> usize {
        match self {
            Self::Dense(_) | Self::Rows(_) => 0,
            Self::Affine { bits, .. } | Self::Nested { bits, .. } => bits,
            Self::Codes { table, .. } => table.bits(),
        }
    }

    /// Bytes of the quants of a tile, where its scales begin.
    pub(super) fn quant_bytes(self) -> usize {
        self.group().unwrap_or(0) * BLOCK / 8 * self.bits()
    }

    /// Bytes of a tile: one group of columns, 16 rows.
    pub(super) fn tile_bytes(self) -> usize {
        self.quant_bytes()
            + match self {
                Self::Dense(_) | Self::Rows(_) => 0,
                Self::Affine { scale, .. } => self.numbers() * BLOCK * scale.size(),
                Self::Nested { .. } => self.numbers() * BLOCK,
                Self::Codes { scale, .. } => BLOCK * scale.size(),
            }
    }

    /// How many numbers a row has beside the quants: a scale, and a bias where that is stored.
    fn numbers(self) -> usize {
        if self.zero().is_some() { 1 } else { 2 }
    }

    /// What all biases are times their scales, where none are stored: a symmetric matrix has quants whose
    /// middle is zero.
    pub(super) fn zero(self) -> Option<f32> {
        match self {
            Self::Affine { bits, symmetric: true, .. } | Self::Nested { bits, symmetric: true, .. } => {
                Some(middle(bits))
            }
            _ => None,
        }
    }

    /// Bytes of the factors and bases before [`OUTER`] columns.
    pub(super) fn head_bytes(self) -> usize {
        self.numbers() * BLOCK * 4
    }

    /// Bytes of [`OUTER`] columns of nested elements.
    pub(super) fn outer_bytes(self) -> usize {
        self.head_bytes() + OUTER / self.group().unwrap_or(OUTER) * self.tile_bytes()
    }
}

/// A packed matrix as a kernel sees it.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) layout: Layout,
    /// At least `layout.bytes()`; aligned where they are packed.
    bytes: &'a [u8],
}

impl<'a> View<'a> {
    /// `input` is the content of [`PackedMatrix::input`].
    pub(super) fn new(layout: Layout, input: &'a [u8]) -> Self {
        let bytes = if matches!(layout.element, Element::Rows(_)) { input } else { aligned(input) };
        assert!(bytes.len() >= layout.bytes(), "a packed matrix is shorter than its layout");
        Self { layout, bytes }
    }

    /// The stream of 16 rows.
    pub(super) fn block(&self, index: usize) -> &'a [u8] {
        let size = self.layout.block_bytes();
        &self.bytes[index * size..][..size]
    }

    /// Writes the values of one row.
    pub(super) fn read_row(&self, row: usize, values: &mut [f32]) {
        let block = self.block(row / BLOCK);
        let lane = row % BLOCK;
        let zero = self.layout.element.zero();
        match self.layout.element {
            Element::Dense(float) => {
                for (column, value) in values.iter_mut().enumerate() {
                    *value = read_float(float, block, column * BLOCK + lane);
                }
            }
            Element::Rows(row_type) => {
                let bytes = row_type.bytes(self.layout.columns);
                rows::read_row(row_type, &block[lane * bytes..][..bytes], values);
            }
            Element::Affine { bits, group, scale, .. } => {
                let tiles = block.chunks_exact(self.layout.element.tile_bytes());
                for (tile, values) in tiles.zip(values.chunks_exact_mut(group)) {
                    let (quants, rest) = tile.split_at(self.layout.element.quant_bytes());
                    let a = read_float(scale, rest, lane);
                    let b = zero.map_or_else(|| read_float(scale, rest, BLOCK + lane), |zero| zero * a);
                    fill(values, quants, bits, lane, a, b);
                }
            }
            Element::Nested { bits, group, .. } => {
                let outers = block.chunks_exact(self.layout.element.outer_bytes());
                for (outer, values) in outers.zip(values.chunks_exact_mut(OUTER)) {
                    let (head, tiles) = outer.split_at(self.layout.element.head_bytes());
                    let factor = read_float(FloatType::F32, head, lane);
                    let tiles = tiles.chunks_exact(self.layout.element.tile_bytes());
                    for (tile, values) in tiles.zip(values.chunks_exact_mut(group)) {
                        let (quants, rest) = tile.split_at(self.layout.element.quant_bytes());
                        let signed = |at: usize| f32::from(rest[at].cast_signed());
                        let base = || read_float(FloatType::F32, head, BLOCK + lane);
                        let a = factor * signed(lane);
                        let b = zero.map_or_else(|| base() * signed(BLOCK + lane), |zero| zero * a);
                        fill(values, quants, bits, lane, a, b);
                    }
                }
            }
            Element::Codes { table, group, scale } => {
                let tiles = block.chunks_exact(self.layout.element.tile_bytes());
                for (tile, values) in tiles.zip(values.chunks_exact_mut(group)) {
                    let (quants, rest) = tile.split_at(self.layout.element.quant_bytes());
                    let scale = read_float(scale, rest, lane);
                    for (value, code) in values.iter_mut().zip(of_lane(quants, table.bits(), lane)) {
                        *value = scale * table.number(code);
                    }
                }
            }
        }
    }
}

/// `scale * quant + bias` of one row of a tile, rounded once.
fn fill(values: &mut [f32], quants: &[u8], bits: usize, lane: usize, scale: f32, bias: f32) {
    let (scale, bias) = (f64::from(scale), f64::from(bias));
    for (value, quant) in values.iter_mut().zip(of_lane(quants, bits, lane)) {
        *value = (scale * f64::from(quant) + bias) as f32;
    }
}

/// The quants of one row of a tile.
fn of_lane(quants: &[u8], bits: usize, lane: usize) -> impl Iterator<Item = u8> {
    quants.chunks_exact(BLOCK * 2 * bits).flat_map(move |columns| {
        let mut row = [0; 16];
        if bits == 8 {
            for (quant, column) in row.iter_mut().zip(columns.chunks_exact(BLOCK)) {
                *quant = column[lane];
            }
            return row;
        }
        let lines = columns.chunks(BLOCK * 4);
        for (bytes, line) in row.chunks_mut(4).zip(lines) {
            let size = line.len() / BLOCK;
            bytes[..size].copy_from_slice(&line[lane * size..][..size]);
        }
        let row = u128::from_le_bytes(row);
        std::array::from_fn(|column| (row >> (column * bits)) as u8 & ((1 << bits) - 1))
    })
}

/// Element `index` of little-endian floats.
pub(super) fn read_float(float: FloatType, bytes: &[u8], index: usize) -> f32 {
    match float {
        FloatType::F32 => {
            let at = index * 4;
            f32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        }
        FloatType::F16 => f16::from_le_bytes([bytes[index * 2], bytes[index * 2 + 1]]).to_f32(),
        FloatType::BF16 => bf16::from_le_bytes([bytes[index * 2], bytes[index * 2 + 1]]).to_f32(),
    }
}
