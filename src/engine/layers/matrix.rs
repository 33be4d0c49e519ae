//! A weight matrix as MLX's own operations use it.

use std::ops::Range;

use mlx_rs::{Array, Dtype, ops};

use crate::engine::ffi::array::{dimensions, from_floats};
use crate::engine::ffi::quantized::BlockFloats;
use crate::engine::format::block_float::BlockFloat;
use crate::engine::format::weight::{Floats, WeightData};
use crate::error::{Error, Result};

/// A matrix `[rows, columns]`, dense or in one of MLX's quantizations.
#[derive(Debug, Clone)]
pub enum Matrix {
    Dense(Array),
    Affine { packed: Array, scales: Array, biases: Array, group: i32, bits: i32 },
    BlockFloat { mode: BlockFloat, packed: Array, scales: Array },
}

impl Matrix {
    /// Moves a weight to MLX; dense values, scales and biases take the compute type.
    pub fn new(weight: &WeightData, dtype: Dtype) -> Result<Self> {
        match weight {
            WeightData::Dense { shape, values } => {
                Ok(Self::Dense(from_floats(values, shape)?.as_dtype(dtype)?))
            }
            WeightData::Affine { rows, columns, group, bits, packed, scales, biases } => {
                let words = dimensions(&[*rows, packed.len() / rows.max(&1)])?;
                let groups = [*rows, columns / group.max(&1)];
                let floats =
                    |values: &Floats| -> Result<Array> { Ok(from_floats(values, &groups)?.as_dtype(dtype)?) };
                Ok(Self::Affine {
                    packed: Array::from_slice(packed, &words),
                    scales: floats(scales)?,
                    biases: floats(biases)?,
                    group: *group as i32,
                    bits: *bits as i32,
                })
            }
            WeightData::Codes { rows, columns, group, table, packed, scales } => {
                let mode = BlockFloat::of_codes(*table, *group);
                let bytes = mode.and_then(|mode| Some((mode, mode.bytes(scales)?)));
                let (mode, bytes) = bytes.ok_or_else(not_converted)?;
                let words = dimensions(&[*rows, packed.len() / rows.max(&1)])?;
                Ok(Self::BlockFloat {
                    mode,
                    packed: Array::from_slice(packed, &words),
                    scales: Array::from_slice(&bytes, &dimensions(&[*rows, columns / group.max(&1)])?),
                })
            }
            WeightData::Nested { .. } => Err(not_converted()),
        }
    }

    /// The arrays to evaluate at load.
    pub fn arrays(&self) -> Vec<&Array> {
        match self {
            Self::Dense(weight) => vec![weight],
            Self::Affine { packed, scales, biases, .. } => vec![packed, scales, biases],
            Self::BlockFloat { packed, scales, .. } => vec![packed, scales],
        }
    }

    /// `x [L, columns]` times the transposed matrix: `[L, rows]`.
    pub fn forward(&self, x: &Array) -> Result<Array> {
        Ok(match self {
            Self::Dense(weight) => ops::matmul(x, weight.transpose_axes(&[1, 0])?)?,
            Self::Affine { packed, scales, biases, group, bits } => {
                ops::quantized_matmul(x, packed, scales, biases, true, *group, *bits)?
            }
            Self::BlockFloat { mode, packed, scales } => {
                BlockFloats { mode: *mode, packed, scales }.product(x)?
            }
        })
    }

    /// The matrices of several experts, one below the other, times rows `x [L, U, 1, columns]` of which
    /// each goes to the expert of its index `[L, experts a token]`: `[L, experts a token, 1, rows]`. U may be 1.
    pub fn gather(&self, x: &Array, chosen: &Array, experts: i32) -> Result<Array> {
        let by_expert = |array: &Array| array.reshape(&[experts, -1, array.dim(-1)]);
        Ok(match self {
            Self::Dense(weight) => {
                ops::gather_mm(x, by_expert(weight)?.swap_axes(-1, -2)?, None, chosen, false)?
            }
            Self::Affine { packed, scales, biases, group, bits } => ops::gather_qmm(
                x,
                by_expert(packed)?,
                by_expert(scales)?,
                &by_expert(biases)?,
                None,
                chosen,
                true,
                *group,
                *bits,
                false,
            )?,
            Self::BlockFloat { mode, packed, scales } => {
                let (packed, scales) = (by_expert(packed)?, by_expert(scales)?);
                BlockFloats { mode: *mode, packed: &packed, scales: &scales }.gathered(x, chosen)?
            }
        })
    }

    /// The matrices of several heads, one below the other, times what each head has, `x [H, L, columns]`:
    /// `[H, L, rows of one]`.
    pub fn by_head(&self, x: &Array) -> Result<Array> {
        let heads = x.dim(0);
        let own = |array: &Array| array.reshape(&[heads, -1, array.dim(-1)]);
        Ok(match self {
            Self::Dense(weight) => ops::matmul(x, own(weight)?.swap_axes(-1, -2)?)?,
            Self::Affine { packed, scales, biases, group, bits } => {
                ops::quantized_matmul(x, own(packed)?, own(scales)?, &own(biases)?, true, *group, *bits)?
            }
            Self::BlockFloat { mode, packed, scales } => {
                BlockFloats { mode: *mode, packed: &own(packed)?, scales: &own(scales)? }.product(x)?
            }
        })
    }

    /// The rows of these ids, `[L] → [L, columns]`.
    pub fn rows(&self, ids: &Array) -> Result<Array> {
        let take = |array: &Array| array.take_axis(ids, 0);
        Ok(match self {
            Self::Dense(weight) => take(weight)?,
            Self::Affine { packed, scales, biases, group, bits } => {
                ops::dequantize(take(packed)?, take(scales)?, &take(biases)?, *group, *bits)?
            }
            Self::BlockFloat { mode, packed, scales } => {
                BlockFloats { mode: *mode, packed: &take(packed)?, scales: &take(scales)? }.unpacked()?
            }
        })
    }
}

fn not_converted() -> Error {
    Error::internal("a weight that was not brought into MLX's form")
}

/// The products of `x [L, columns]` with each of the matrices, one beside the other: `[L, all rows]`.
pub fn side_by_side(matrices: &[Matrix], x: &Array) -> Result<Array> {
    let mut products = matrices.iter().map(|matrix| matrix.forward(x)).collect::<Result<Vec<_>>>()?;
    Ok(match (products.len(), products.pop()) {
        (1, Some(only)) => only,
        (_, last) => {
            products.extend(last);
            ops::concatenate(&products, -1)?
        }
    })
}

/// Stacks weights that share their input, as far as they have one form: fewer, larger products.
pub fn stack(weights: Vec<WeightData>) -> Result<Vec<WeightData>> {
    let mut stacked: Vec<WeightData> = Vec::with_capacity(weights.len());
    for weight in weights {
        if let Some(last) = stacked.last_mut()
            && append(last, &weight)
        {
            continue;
        }
        stacked.push(weight);
    }
    if stacked.is_empty() {
        return Err(Error::internal("a projection without matrices"));
    }
    Ok(stacked)
}

/// Appends the rows of `lower` to `upper` where both have the same form.
pub fn append(upper: &mut WeightData, lower: &WeightData) -> bool {
    match (upper, lower) {
        (
            WeightData::Dense { shape, values },
            WeightData::Dense { shape: shape_below, values: values_below },
        ) if shape.len() == 2
            && shape_below.len() == 2
            && shape[1] == shape_below[1]
            && values.dtype == values_below.dtype =>
        {
            shape[0] += shape_below[0];
            values.bytes.extend_from_slice(&values_below.bytes);
            true
        }
        (
            WeightData::Affine { rows, columns, group, bits, packed, scales, biases },
            WeightData::Affine {
                rows: rows_below,
                columns: columns_below,
                group: group_below,
                bits: bits_below,
                packed: packed_below,
                scales: scales_below,
                biases: biases_below,
            },
        ) if (&*columns, &*group, &*bits) == (columns_below, group_below, bits_below)
            && scales.dtype == scales_below.dtype
            && biases.dtype == biases_below.dtype =>
        {
            *rows += rows_below;
            packed.extend_from_slice(packed_below);
            scales.bytes.extend_from_slice(&scales_below.bytes);
            biases.bytes.extend_from_slice(&biases_below.bytes);
            true
        }
        (
            WeightData::Nested { rows, columns, group, bits, packed, outer, inner },
            WeightData::Nested {
                rows: rows_below,
                columns: columns_below,
                group: group_below,
                bits: bits_below,
                packed: packed_below,
                outer: outer_below,
                inner: inner_below,
            },
        ) if (&*columns, &*group, &*bits) == (columns_below, group_below, bits_below) => {
            *rows += rows_below;
            packed.extend_from_slice(packed_below);
            outer.extend_from_slice(outer_below);
            inner.extend_from_slice(inner_below);
            true
        }
        (
            WeightData::Codes { rows, columns, group, table, packed, scales },
            WeightData::Codes {
                rows: rows_below,
                columns: columns_below,
                group: group_below,
                table: table_below,
                packed: packed_below,
                scales: scales_below,
            },
        ) if (&*columns, &*group, &*table) == (columns_below, group_below, table_below)
            && scales.dtype == scales_below.dtype =>
        {
            *rows += rows_below;
            packed.extend_from_slice(packed_below);
            scales.bytes.extend_from_slice(&scales_below.bytes);
            true
        }
        _ => false,
    }
}

/// The columns of `x` between these cuts.
pub fn parts<const N: usize>(x: &Array, cuts: &[i32]) -> Result<[Array; N]> {
    let parts = ops::split_at_indices(x, cuts, -1)?;
    parts.try_into().map_err(|_| Error::internal("columns that were not cut as they should be"))
}

/// These rows of a matrix, one below the other.
pub fn select_rows(
    weight: &WeightData,
    ranges: impl IntoIterator<Item = Range<usize>>,
) -> Result<WeightData> {
    let ranges: Vec<Range<usize>> = ranges.into_iter().collect();
    let rows = ranges.iter().map(ExactSizeIterator::len).sum();
    let fits =
        |all: usize| all > 0 && ranges.iter().all(|range| range.start <= range.end && range.end <= all);
    let Some((all, columns)) = weight.matrix_shape().filter(|(all, _)| fits(*all)) else {
        return Err(Error::internal("rows that a matrix does not have"));
    };
    let floats = |from: &Floats| Floats { dtype: from.dtype, bytes: cut(&from.bytes, all, &ranges) };
    Ok(match weight {
        WeightData::Dense { values, .. } => {
            WeightData::Dense { shape: vec![rows, columns], values: floats(values) }
        }
        WeightData::Affine { group, bits, packed, scales, biases, .. } => WeightData::Affine {
            rows,
            columns,
            group: *group,
            bits: *bits,
            packed: cut(packed, all, &ranges),
            scales: floats(scales),
            biases: floats(biases),
        },
        WeightData::Nested { group, bits, packed, outer, inner, .. } => WeightData::Nested {
            rows,
            columns,
            group: *group,
            bits: *bits,
            packed: cut(packed, all, &ranges),
            outer: cut(outer, all, &ranges),
            inner: cut(inner, all, &ranges),
        },
        WeightData::Codes { group, table, packed, scales, .. } => WeightData::Codes {
            rows,
            columns,
            group: *group,
            table: *table,
            packed: cut(packed, all, &ranges),
            scales: floats(scales),
        },
    })
}

/// The transposes of `count` dense matrices of equal size that lie one below the other.
pub fn transposed(weight: &WeightData, count: usize) -> Result<WeightData> {
    let WeightData::Dense { shape, values } = weight else {
        return Err(Error::internal("a packed matrix cannot be transposed"));
    };
    let &[all, columns] = shape.as_slice() else {
        return Err(Error::internal("only a matrix can be transposed"));
    };
    let (rows, size) = (all / count.max(1), values.dtype.size());
    let mut bytes = Vec::with_capacity(values.bytes.len());
    for one in values.bytes.chunks_exact((rows * columns * size).max(1)) {
        for column in 0..columns {
            for row in one.chunks_exact(columns * size) {
                bytes.extend_from_slice(&row[column * size..][..size]);
            }
        }
    }
    let values = Floats { dtype: values.dtype, bytes };
    Ok(WeightData::Dense { shape: vec![count * columns, rows], values })
}

/// What belongs to these rows, of values that all rows share out equally.
fn cut<T: Copy>(values: &[T], all: usize, ranges: &[Range<usize>]) -> Vec<T> {
    let each = values.len() / all;
    ranges.iter().flat_map(|range| &values[range.start * each..range.end * each]).copied().collect()
}
