//! From a weight as its file has it to the kernels' layout.

use std::ops::Range;

use half::{bf16, f16};
use mlx_rs::error::Exception;

use super::packed::{BLOCK, Element, Layout, read_float};
use crate::engine::format::weight::{CodeTable, FloatType, Floats, OUTER, WeightData, middle};

/// A checked weight.
pub(super) enum Source<'a> {
    Dense {
        rows: usize,
        columns: usize,
        values: &'a Floats,
    },
    Affine {
        rows: usize,
        columns: usize,
        group: usize,
        bits: usize,
        packed: &'a [u32],
        scales: &'a Floats,
        biases: &'a Floats,
    },
    Nested {
        rows: usize,
        columns: usize,
        group: usize,
        bits: usize,
        packed: &'a [u32],
        outer: &'a [[f32; 2]],
        inner: &'a [[i8; 2]],
    },
    Codes {
        rows: usize,
        columns: usize,
        group: usize,
        table: CodeTable,
        packed: &'a [u32],
        scales: &'a Floats,
    },
}

impl<'a> Source<'a> {
    /// # Errors
    /// Not a matrix, an unknown number of bits, a group that is no multiple of 16 or does not divide the
    /// columns, or data of another length than the shape says.
    pub(super) fn new(weight: &'a WeightData) -> Result<Self, Exception> {
        match weight {
            WeightData::Dense { shape, values } => {
                let [rows, columns] = shape[..] else {
                    return Err(refused(&format!("the shape {shape:?} is not that of a matrix")));
                };
                check_size(rows, columns)?;
                check_floats("values", values, rows * columns)?;
                Ok(Self::Dense { rows, columns, values })
            }
            WeightData::Affine { rows, columns, group, bits, packed, scales, biases } => {
                let (rows, columns, group, bits) = (*rows, *columns, *group, *bits);
                check_quants(rows, columns, group, bits, packed)?;
                check_floats("scales", scales, rows * (columns / group))?;
                check_floats("biases", biases, rows * (columns / group))?;
                Ok(Self::Affine { rows, columns, group, bits, packed, scales, biases })
            }
            WeightData::Nested { rows, columns, group, bits, packed, outer, inner } => {
                let (rows, columns, group, bits) = (*rows, *columns, *group, *bits);
                check_quants(rows, columns, group, bits, packed)?;
                if !columns.is_multiple_of(OUTER) || !OUTER.is_multiple_of(group) {
                    return Err(refused(&format!("{columns} columns are no multiple of {OUTER}")));
                }
                if outer.len() != rows * (columns / OUTER) || inner.len() != rows * (columns / group) {
                    return Err(refused("the scales do not fit the shape"));
                }
                Ok(Self::Nested { rows, columns, group, bits, packed, outer, inner })
            }
            WeightData::Codes { rows, columns, group, table, packed, scales } => {
                let (rows, columns, group, table) = (*rows, *columns, *group, *table);
                check_quants(rows, columns, group, table.bits(), packed)?;
                check_floats("scales", scales, rows * (columns / group))?;
                Ok(Self::Codes { rows, columns, group, table, packed, scales })
            }
        }
    }

    pub(super) fn layout(&self) -> Layout {
        match *self {
            Self::Dense { rows, columns, values } => {
                Layout { rows, columns, element: Element::Dense(values.dtype) }
            }
            Self::Affine { rows, columns, group, bits, scales, biases, .. } => {
                let symmetric = is_symmetric(bits, scales, biases);
                let scale = affine_type(symmetric, scales, biases);
                Layout { rows, columns, element: Element::Affine { bits, group, scale, symmetric } }
            }
            Self::Nested { rows, columns, group, bits, outer, inner, .. } => {
                let symmetric = has_no_offsets(bits, outer, inner);
                Layout { rows, columns, element: Element::Nested { bits, group, symmetric } }
            }
            Self::Codes { rows, columns, group, table, scales, .. } => {
                let scale = scale_type(&[scales]);
                Layout { rows, columns, element: Element::Codes { table, group, scale } }
            }
        }
    }

    /// Whether the scales keep their values in this layout of the same matrix.
    pub(super) fn fits(&self, layout: Layout) -> bool {
        let holds = |to: FloatType, own: FloatType| to == FloatType::F32 || to == own;
        match (self, layout.element) {
            (
                &Self::Affine { bits, group, scales, biases, .. },
                Element::Affine { bits: to_bits, group: to_group, scale, symmetric },
            ) => {
                (bits, group) == (to_bits, to_group)
                    && (!symmetric || is_symmetric(bits, scales, biases))
                    && holds(scale, affine_type(symmetric, scales, biases))
            }
            (
                &Self::Nested { bits, group, outer, inner, .. },
                Element::Nested { bits: to_bits, group: to_group, symmetric },
            ) => (bits, group) == (to_bits, to_group) && (!symmetric || has_no_offsets(bits, outer, inner)),
            (
                &Self::Codes { table, group, scales, .. },
                Element::Codes { table: to_table, group: to_group, scale },
            ) => (table, group) == (to_table, to_group) && holds(scale, scale_type(&[scales])),
            (&Self::Dense { values, .. }, Element::Dense(float)) => values.dtype == float,
            _ => false,
        }
    }

    /// Writes one block of the layout, of at most 16 of the source's rows; zeros follow them.
    pub(super) fn fill_block(&self, layout: Layout, rows: Range<usize>, out: &mut [u8]) {
        if rows.len() < BLOCK {
            out.fill(0);
        }
        match self {
            Self::Dense { columns, values, .. } => pack_dense(out, rows, *columns, values),
            _ => self.pack_tiles(out, rows, layout),
        }
    }

    /// Packs 16 rows of quants with what follows each group of them.
    fn pack_tiles(&self, out: &mut [u8], rows: Range<usize>, layout: Layout) {
        let (Some(group), columns) = (layout.element.group(), layout.columns) else { return };
        let (bits, packed) = match *self {
            Self::Dense { .. } => return,
            Self::Affine { bits, packed, .. } | Self::Nested { bits, packed, .. } => (bits, packed),
            Self::Codes { table, packed, .. } => (table.bits(), packed),
        };
        let (words, groups) = (columns * bits / 32, columns / group);
        let (tile_bytes, quant_bytes) = (layout.element.tile_bytes(), layout.element.quant_bytes());
        let quants = Quants { words: &packed[rows.start * words..rows.end * words], each: words, bits };
        for index in 0..groups {
            let tile = &mut out[layout.tile_start(index)..][..tile_bytes];
            let (to, rest) = tile.split_at_mut(quant_bytes);
            quants.pack(to, index * group..(index + 1) * group);
            let of_rows = rows.clone().map(|row| row * groups + index);
            match *self {
                Self::Dense { .. } => {}
                Self::Affine { scales, biases, .. } => {
                    let Element::Affine { scale, .. } = layout.element else { return };
                    let (to_scales, to_biases) = rest.split_at_mut(BLOCK * scale.size());
                    write_scales(scale, to_scales, scales, of_rows.clone());
                    // A symmetric matrix has no place for them.
                    write_scales(scale, to_biases, biases, of_rows);
                }
                Self::Nested { inner, .. } => {
                    for (lane, at) in of_rows.enumerate() {
                        let [scale, offset] = inner[at];
                        for (number, lanes) in [scale, offset].iter().zip(rest.chunks_exact_mut(BLOCK)) {
                            lanes[lane] = number.cast_unsigned();
                        }
                    }
                }
                Self::Codes { scales, .. } => {
                    let Element::Codes { scale, .. } = layout.element else { return };
                    write_scales(scale, rest, scales, of_rows);
                }
            }
        }
        if let Self::Nested { outer, .. } = *self {
            let outers = columns / OUTER;
            for (lane, row) in rows.enumerate() {
                for (head, factors) in
                    out.chunks_exact_mut(layout.element.outer_bytes()).zip(&outer[row * outers..])
                {
                    let lines = head[..layout.element.head_bytes()].chunks_exact_mut(BLOCK * 4);
                    for (line, factor) in lines.zip(factors) {
                        line[lane * 4..lane * 4 + 4].copy_from_slice(&factor.to_le_bytes());
                    }
                }
            }
        }
    }
}

/// Quants of at most 16 rows of `each` words.
struct Quants<'a> {
    words: &'a [u32],
    each: usize,
    bits: usize,
}

impl Quants<'_> {
    /// Writes the quants of some columns as a tile has them, 16 columns at a time.
    fn pack(&self, to: &mut [u8], columns: Range<usize>) {
        let size = 2 * self.bits;
        let first = columns.start / BLOCK * size;
        let rows =
            self.words.chunks_exact(self.each).map(|row| &bytemuck::cast_slice::<u32, u8>(row)[first..]);
        if self.bits == 8 {
            for (part, square) in to.chunks_exact_mut(BLOCK * BLOCK).enumerate() {
                let mut bytes = [[0; BLOCK]; BLOCK];
                for (bytes, row) in bytes.iter_mut().zip(rows.clone()) {
                    bytes.copy_from_slice(&row[part * size..][..size]);
                }
                turn(&mut bytes);
                square.copy_from_slice(bytes.as_flattened());
            }
            return;
        }
        for (lane, row) in rows.enumerate() {
            for (to, row) in to.chunks_exact_mut(BLOCK * size).zip(row.chunks_exact(size)) {
                let ((words, half), (lines, rest)) =
                    (row.as_chunks::<4>(), to.as_chunks_mut::<{ BLOCK * 4 }>());
                for (line, word) in lines.iter_mut().zip(words) {
                    line[lane * 4..lane * 4 + 4].copy_from_slice(word);
                }
                if let &[low, high] = half {
                    rest[lane * 2..lane * 2 + 2].copy_from_slice(&[low, high]);
                }
            }
        }
    }
}

/// Rows become columns. Each step puts elements of two rows alternately, which processors do with whole rows.
fn turn(rows: &mut [[u8; BLOCK]; BLOCK]) {
    let alternately = |a: [u8; BLOCK], b: [u8; BLOCK], from: usize| -> [u8; BLOCK] {
        std::array::from_fn(|i| if i % 2 == 0 { a[from + i / 2] } else { b[from + i / 2] })
    };
    for _ in 0..BLOCK.ilog2() {
        let from = *rows;
        for i in 0..BLOCK / 2 {
            let (a, b) = (from[i], from[i + BLOCK / 2]);
            rows[2 * i] = alternately(a, b, 0);
            rows[2 * i + 1] = alternately(a, b, BLOCK / 2);
        }
    }
}

fn pack_dense(out: &mut [u8], rows: Range<usize>, columns: usize, values: &Floats) {
    match values.dtype {
        FloatType::F32 => pack_columns::<4>(out, rows, columns, &values.bytes),
        FloatType::F16 | FloatType::BF16 => pack_columns::<2>(out, rows, columns, &values.bytes),
    }
}

/// Elements of `SIZE` bytes.
fn pack_columns<const SIZE: usize>(out: &mut [u8], rows: Range<usize>, columns: usize, bytes: &[u8]) {
    let (out, _) = out.as_chunks_mut::<SIZE>();
    let (source, _) = bytes[rows.start * columns * SIZE..rows.end * columns * SIZE].as_chunks::<SIZE>();
    for (column, to) in out.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
        for (value, row) in to.iter_mut().zip(source.chunks_exact(columns)) {
            *value = row[column];
        }
    }
}

/// Whether each bias is its scale times that of the middle quant.
fn is_symmetric(bits: usize, scales: &Floats, biases: &Floats) -> bool {
    let zero = middle(bits);
    let is_zero = |scale: f32, bias: f32| (scale * zero).to_bits() == bias.to_bits();
    let first = |floats: &Floats| read_float(floats.dtype, &floats.bytes, 0);
    // Most others tell by their first one.
    is_zero(first(scales), first(biases))
        && scales.to_f32().into_iter().zip(biases.to_f32()).all(|(scale, bias)| is_zero(scale, bias))
}

/// The same of scales that are numbers themselves.
fn has_no_offsets(bits: usize, outer: &[[f32; 2]], inner: &[[i8; 2]]) -> bool {
    let zero = middle(bits);
    outer.iter().all(|[factor, base]| (factor * zero).to_bits() == base.to_bits())
        && inner.iter().all(|[scale, offset]| scale == offset)
}

/// The type of an affine matrix's scales, and of its biases where they are stored.
fn affine_type(symmetric: bool, scales: &Floats, biases: &Floats) -> FloatType {
    if symmetric { scale_type(&[scales]) } else { scale_type(&[scales, biases]) }
}

/// 16-bit scales stay as they are. float32 ones (from GGUF, say) become 16-bit when all of them are such
/// values in fact.
fn scale_type(all: &[&Floats]) -> FloatType {
    let first = all.first().map_or(FloatType::F32, |floats| floats.dtype);
    if first != FloatType::F32 && all.iter().all(|floats| floats.dtype == first) {
        return first;
    }
    let exact = |narrow: fn(f32) -> f32| {
        all.iter().all(|floats| {
            let count = floats.bytes.len() / floats.dtype.size();
            (0..count).all(|index| {
                let value = read_float(floats.dtype, &floats.bytes, index);
                narrow(value).to_bits() == value.to_bits()
            })
        })
    };
    if exact(|value| f16::from_f32(value).to_f32()) {
        FloatType::F16
    } else if exact(|value| bf16::from_f32(value).to_f32()) {
        FloatType::BF16
    } else {
        FloatType::F32
    }
}

/// Writes the scales at these places side by side.
fn write_scales(to: FloatType, out: &mut [u8], from: &Floats, places: impl Iterator<Item = usize>) {
    match to.size() {
        _ if to != from.dtype => {
            for (out, at) in out.chunks_exact_mut(to.size()).zip(places) {
                let value = read_float(from.dtype, &from.bytes, at);
                match to {
                    FloatType::F32 => out.copy_from_slice(&value.to_le_bytes()),
                    // Exact, see `scale_type`.
                    FloatType::F16 => out.copy_from_slice(&f16::from_f32(value).to_le_bytes()),
                    FloatType::BF16 => out.copy_from_slice(&bf16::from_f32(value).to_le_bytes()),
                }
            }
        }
        2 => copy_places::<2>(out, &from.bytes, places),
        _ => copy_places::<4>(out, &from.bytes, places),
    }
}

/// Copies values of so many bytes.
fn copy_places<const SIZE: usize>(out: &mut [u8], from: &[u8], places: impl Iterator<Item = usize>) {
    let (from, _) = from.as_chunks::<SIZE>();
    for (out, at) in out.as_chunks_mut::<SIZE>().0.iter_mut().zip(places) {
        *out = from[at];
    }
}

/// Sizes that leave room for every product computed with them.
fn check_size(rows: usize, columns: usize) -> Result<(), Exception> {
    let limit = i32::MAX as usize;
    if rows == 0 || columns == 0 || rows > limit || columns > limit || rows.saturating_mul(columns) > 1 << 40
    {
        return Err(refused(&format!("{rows} rows of {columns} columns are out of range")));
    }
    Ok(())
}

/// Quants of a known size, in groups that fit the columns.
fn check_quants(
    rows: usize,
    columns: usize,
    group: usize,
    bits: usize,
    packed: &[u32],
) -> Result<(), Exception> {
    check_size(rows, columns)?;
    if !matches!(bits, 2 | 3 | 4 | 5 | 6 | 8) {
        return Err(refused(&format!("{bits} bits are not among 2, 3, 4, 5, 6 and 8")));
    }
    let fits = group > 0
        && group.is_multiple_of(16)
        && columns.is_multiple_of(group)
        && (columns * bits).is_multiple_of(32);
    if !fits {
        return Err(refused(&format!("groups of {group} do not fit {columns} columns")));
    }
    if packed.len() != rows * (columns * bits / 32) {
        return Err(refused(&format!("{} packed words do not fit the shape", packed.len())));
    }
    Ok(())
}

fn check_floats(what: &str, floats: &Floats, count: usize) -> Result<(), Exception> {
    if floats.bytes.len() == count * floats.dtype.size() {
        return Ok(());
    }
    Err(refused(&format!("{} bytes of {what} do not fit the shape", floats.bytes.len())))
}

fn refused(reason: &str) -> Exception {
    Exception::custom(format!("cannot pack a weight: {reason}"))
}
