//! From a weight as its file has it to the kernels' layout, in parallel over blocks of rows.

use half::f16;
use mlx_rs::error::Exception;

use super::packed::{BLOCK, Element, Layout, Quant, read_float};
use super::pool;
use crate::engine::ffi::SharedSlice;
use crate::engine::format::weight::{FloatType, Floats, WeightData};

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
                check_size(rows, columns)?;
                if !matches!(bits, 2 | 3 | 4 | 5 | 6 | 8) {
                    return Err(refused(&format!("{bits} bits are not among 2, 3, 4, 5, 6 and 8")));
                }
                if group == 0 || group % 16 != 0 || columns % group != 0 || columns * bits % 32 != 0 {
                    return Err(refused(&format!("groups of {group} do not fit {columns} columns")));
                }
                if packed.len() != rows * (columns * bits / 32) {
                    return Err(refused(&format!("{} packed words do not fit the shape", packed.len())));
                }
                check_floats("scales", scales, rows * (columns / group))?;
                check_floats("biases", biases, rows * (columns / group))?;
                Ok(Self::Affine { rows, columns, group, bits, packed, scales, biases })
            }
        }
    }

    pub(super) fn layout(&self) -> Layout {
        match *self {
            Self::Dense { rows, columns, values } => {
                Layout { rows, columns, element: Element::Dense(values.dtype) }
            }
            Self::Affine { rows, columns, group, bits, scales, biases, .. } => {
                let quant = if bits <= 4 { Quant::Nibble } else { Quant::Byte };
                let scale = scale_type(scales, biases);
                Layout { rows, columns, element: Element::Affine { quant, group, scale } }
            }
        }
    }

    /// Writes all bytes of the layout.
    pub(super) fn fill(&self, layout: Layout, bytes: SharedSlice<'_, u8>) {
        let size = layout.block_bytes();
        pool::run(layout.blocks(), &|block| {
            // SAFETY: each block is one worker's, and only written.
            let out = unsafe { bytes.slice(block * size, size) };
            match self {
                Self::Dense { rows, columns, values } => {
                    pack_dense(out, block, *rows, *columns, values);
                }
                Self::Affine { .. } => self.pack_affine(out, block, layout.element),
            }
        });
    }

    fn pack_affine(&self, out: &mut [u8], block: usize, element: Element) {
        let Self::Affine { rows, columns, group, bits, packed, scales, biases } = *self else { return };
        let Element::Affine { quant, scale, .. } = element else { return };
        let (words, groups) = (columns * bits / 32, columns / group);
        if (block + 1) * BLOCK > rows {
            out.fill(0);
        }
        for (lane, row) in (block * BLOCK..rows.min((block + 1) * BLOCK)).enumerate() {
            let row_words = &packed[row * words..][..words];
            for (index, tile) in out.chunks_exact_mut(element.tile_bytes()).enumerate() {
                let (quants, rest) = tile.split_at_mut(element.quant_bytes());
                let first = index * group;
                match quant {
                    Quant::Nibble => {
                        for (step, line) in quants.chunks_exact_mut(BLOCK * 4).enumerate() {
                            let word = nibbles(row_words, bits, first + step * 8);
                            line[lane * 4..lane * 4 + 4].copy_from_slice(&word.to_le_bytes());
                        }
                    }
                    Quant::Byte if bits == 8 => {
                        let source = &row_words[first / 4..][..group / 4];
                        for (word, line) in source.iter().zip(quants.chunks_exact_mut(BLOCK * 4)) {
                            let [a, b, c, d] = word.to_le_bytes();
                            line[lane] = a;
                            line[BLOCK + lane] = b;
                            line[2 * BLOCK + lane] = c;
                            line[3 * BLOCK + lane] = d;
                        }
                    }
                    Quant::Byte => {
                        for (column, line) in quants.chunks_exact_mut(BLOCK).enumerate() {
                            line[lane] = quant_at(row_words, bits, first + column);
                        }
                    }
                }
                write_scale(scale, rest, lane, scales, row * groups + index);
                write_scale(scale, rest, BLOCK + lane, biases, row * groups + index);
            }
        }
    }
}

fn pack_dense(out: &mut [u8], block: usize, rows: usize, columns: usize, values: &Floats) {
    match values.dtype {
        FloatType::F32 => pack_columns::<4>(out, block, rows, columns, &values.bytes),
        FloatType::F16 | FloatType::BF16 => pack_columns::<2>(out, block, rows, columns, &values.bytes),
    }
}

/// Elements of `SIZE` bytes.
fn pack_columns<const SIZE: usize>(out: &mut [u8], block: usize, rows: usize, columns: usize, bytes: &[u8]) {
    if (block + 1) * BLOCK > rows {
        out.fill(0);
    }
    let (out, _) = out.as_chunks_mut::<SIZE>();
    for (lane, row) in (block * BLOCK..rows.min((block + 1) * BLOCK)).enumerate() {
        let (source, _) = bytes[row * columns * SIZE..][..columns * SIZE].as_chunks::<SIZE>();
        for (value, column) in source.iter().zip(out.chunks_exact_mut(BLOCK)) {
            column[lane] = *value;
        }
    }
}

/// Eight quants of at most 4 bits from `column` (a multiple of 8) on, a nibble each.
fn nibbles(words: &[u32], bits: usize, column: usize) -> u32 {
    if bits == 4 {
        return words[column / 8];
    }
    (0..8).fold(0, |word, i| word | u32::from(quant_at(words, bits, column + i)) << (4 * i))
}

/// Quant `column` of a row packed as consecutive bits.
fn quant_at(words: &[u32], bits: usize, column: usize) -> u8 {
    let (at, shift) = (column * bits / 32, column * bits % 32);
    let low = words[at] >> shift;
    let high = if shift + bits > 32 { words[at + 1] << (32 - shift) } else { 0 };
    ((low | high) & ((1 << bits) - 1)) as u8
}

/// 16-bit scales stay as they are. float32 ones (from GGUF, say) become float16 when all of them are
/// float16 values in fact.
fn scale_type(scales: &Floats, biases: &Floats) -> FloatType {
    if scales.dtype == biases.dtype && scales.dtype != FloatType::F32 {
        return scales.dtype;
    }
    let exact = |floats: &Floats| {
        let count = floats.bytes.len() / floats.dtype.size();
        (0..count).all(|index| {
            let value = read_float(floats.dtype, &floats.bytes, index);
            f16::from_f32(value).to_f32().to_bits() == value.to_bits()
        })
    };
    if exact(scales) && exact(biases) { FloatType::F16 } else { FloatType::F32 }
}

fn write_scale(to: FloatType, out: &mut [u8], at: usize, from: &Floats, index: usize) {
    let size = to.size();
    let out = &mut out[at * size..][..size];
    if to == from.dtype {
        out.copy_from_slice(&from.bytes[index * size..][..size]);
        return;
    }
    let value = read_float(from.dtype, &from.bytes, index);
    match to {
        FloatType::F32 => out.copy_from_slice(&value.to_le_bytes()),
        // The only other conversion is to float16, and exact, see `scale_type`.
        FloatType::F16 | FloatType::BF16 => out.copy_from_slice(&f16::from_f32(value).to_le_bytes()),
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

fn check_floats(what: &str, floats: &Floats, count: usize) -> Result<(), Exception> {
    if floats.bytes.len() == count * floats.dtype.size() {
        return Ok(());
    }
    Err(refused(&format!("{} bytes of {what} do not fit the shape", floats.bytes.len())))
}

fn refused(reason: &str) -> Exception {
    Exception::custom(format!("cannot pack a weight: {reason}"))
}
