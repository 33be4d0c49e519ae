//! How much memory a model's weights take, by the code that computes with them.

use crate::engine::config::Affine;
use crate::engine::format::affine;
use crate::engine::format::block_float::BlockFloat;
use crate::engine::format::unpack::{Form, GROUP};
use crate::engine::format::weight::{CodeTable, FloatType, OUTER};

/// How a matrix is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    Dense(FloatType),
    Affine { affine: Affine, scale: FloatType },
    BlockFloat(BlockFloat),
    Blocks(Form),
}

/// Memory of all weights that a model needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WeightSizes {
    /// Bytes in the layout of the Linux CPU's kernels, where 16-bit floats stay what they are.
    pub kernel_bytes: u64,
    /// Bytes of packed elements where MLX's own operations compute.
    pub packed_bytes: u64,
    /// Numbers beside them that take what the computing type takes: dense matrices, vectors, scales
    /// and biases.
    pub floats: u64,
    /// Bytes of tables whose rows are read, as float32, when a token first needs them ...
    pub tables: u64,
    /// ... of which a token needs so many.
    pub row: u64,
}

/// A row that is read takes at least a page of memory.
const PAGE: u64 = 4096;

impl WeightSizes {
    /// Counts a matrix; one of unknown storage as float32.
    pub fn add_matrix(&mut self, rows: usize, columns: usize, storage: Option<Storage>) {
        let storage = storage.unwrap_or(Storage::Dense(FloatType::F32));
        let elements = rows as u64 * columns as u64;
        // The kernels' blocks are whole sixteens of rows.
        let padded = rows.next_multiple_of(16) as u64 * columns as u64;
        let bits = |bits: usize, of: u64| of * bits as u64 / 8;
        // The kernels' side has no biases where they follow from the scales.
        let numbers = |symmetric: bool| if symmetric { 1 } else { 2 };
        match storage {
            Storage::Dense(float) => {
                self.kernel_bytes += padded * float.size() as u64;
                self.floats += elements;
            }
            Storage::Affine { affine: Affine { group, bits: wide }, scale } => {
                self.kernel_bytes += bits(wide, padded) + padded / group as u64 * 2 * scale.size() as u64;
                self.packed_bytes += bits(wide, elements);
                self.floats += elements / group as u64 * 2;
            }
            Storage::Blocks(Form::Affine { bits: wide, symmetric }) => {
                self.kernel_bytes += bits(wide, padded) + padded / GROUP as u64 * 2 * numbers(symmetric);
                self.packed_bytes += bits(wide, elements);
                self.floats += elements / GROUP as u64 * 2;
            }
            Storage::Blocks(Form::Nested { bits: wide, group, symmetric }) => {
                let scales = (padded / group as u64 + padded / OUTER as u64 * 4) * numbers(symmetric);
                self.kernel_bytes += bits(wide, padded) + scales;
                let wide = if group < GROUP { affine::widened(wide) } else { wide };
                self.packed_bytes += bits(wide, elements);
                self.floats += elements / GROUP as u64 * 2;
            }
            Storage::Blocks(Form::Codes(CodeTable::Fp4)) => {
                self.add_matrix(rows, columns, Some(Storage::BlockFloat(BlockFloat::Mxfp4)));
            }
            Storage::Blocks(Form::Codes(table)) => {
                self.kernel_bytes += bits(table.bits(), padded) + padded / GROUP as u64 * 4;
                self.packed_bytes += bits(affine::SPACED_BITS, elements);
                self.floats += elements / GROUP as u64 * 2;
            }
            // Their scales are numbers of 16 bits, and a byte each where MLX computes.
            Storage::BlockFloat(mode) => {
                let group = mode.group() as u64;
                self.kernel_bytes += bits(mode.bits(), padded) + padded / group * 2;
                self.packed_bytes += bits(mode.bits(), elements) + elements / group;
            }
        }
    }

    /// Counts a matrix that the kernels' side holds as plain numbers, float32 where it was packed.
    pub fn add_unpacked(&mut self, rows: usize, columns: usize, storage: Option<Storage>) {
        let before = self.kernel_bytes;
        self.add_matrix(rows, columns, storage);
        self.kernel_bytes = before + rows as u64 * columns as u64 * FloatType::F32.size() as u64;
    }

    /// Counts a norm's weight or a bias.
    pub fn add_vector(&mut self, size: usize) {
        self.kernel_bytes += 4 * size as u64;
        self.floats += size as u64;
    }

    /// Counts a table of embeddings of floats.
    pub fn add_table(&mut self, rows: usize, columns: usize) {
        let row = columns as u64 * FloatType::F32.size() as u64;
        self.tables += rows as u64 * row;
        self.row += row.max(PAGE);
    }

    /// Bytes in all, computed with in `dtype`, once `tokens` tokens were looked up in tables.
    pub fn bytes(&self, kernels: bool, dtype: FloatType, tokens: usize) -> u64 {
        let tables = self.tables.min(self.row.saturating_mul(tokens as u64));
        let rest = if kernels {
            self.kernel_bytes
        } else {
            self.packed_bytes.saturating_add(self.floats.saturating_mul(dtype.size() as u64))
        };
        rest.saturating_add(tables)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::format::ggml_type::GgmlType;

    fn matrix(rows: usize, columns: usize, storage: Storage) -> WeightSizes {
        let mut sizes = WeightSizes::default();
        sizes.add_matrix(rows, columns, Some(storage));
        sizes
    }

    #[test]
    fn halves_stay_halves_on_the_cpu() {
        let sizes = matrix(32, 100, Storage::Dense(FloatType::BF16));
        assert_eq!(sizes.bytes(true, FloatType::F32, 0), 6400);
        assert_eq!(sizes.bytes(false, FloatType::F32, 0), 12800);
        assert_eq!(sizes.bytes(false, FloatType::BF16, 0), 6400);
    }

    #[test]
    fn a_table_counts_as_far_as_its_rows_are_read() {
        let mut sizes = WeightSizes::default();
        sizes.add_table(30_000, 384);
        let bytes = |tokens| sizes.bytes(true, FloatType::F32, tokens);
        assert_eq!((bytes(0), bytes(1), bytes(100)), (0, 4096, 409_600));
        assert_eq!(bytes(usize::MAX), 30_000 * 384 * 4);
    }

    #[test]
    fn blocks_take_little_more_than_their_file() {
        // Type, and how much more than the file the kernels and MLX (in float16) may take.
        for (kind, kernels, mlx) in [
            (GgmlType::Q4_0, 1.0, 1.12),
            (GgmlType::Q4_1, 1.0, 1.0),
            (GgmlType::Q5_0, 1.0, 1.1),
            (GgmlType::Q5_1, 1.0, 1.0),
            (GgmlType::Q8_0, 1.0, 1.06),
            (GgmlType::Q2_K, 1.24, 1.91),
            (GgmlType::Q3_K, 1.06, 1.75),
            (GgmlType::Q4_K, 1.06, 1.12),
            (GgmlType::Q5_K, 1.05, 1.1),
            (GgmlType::Q6_K, 1.02, 1.38),
            (GgmlType::IQ4_NL, 1.12, 2.0),
            (GgmlType::IQ4_XS, 1.18, 2.12),
            (GgmlType::MXFP4, 1.06, 1.0),
        ] {
            let (rows, columns) = (64, 1024);
            let sizes = matrix(rows, columns, Storage::Blocks(Form::of(kind).expect("blocks")));
            let file = (rows as u64 * columns as u64 / kind.block_elements() * kind.block_bytes()) as f64;
            let share = |bytes: u64| bytes as f64 / file;
            let (found, other) =
                (share(sizes.bytes(true, FloatType::F32, 0)), share(sizes.bytes(false, FloatType::F16, 0)));
            assert!((0.99..=kernels).contains(&found), "{}: {found} on the CPU", kind.name());
            assert!((0.99..=mlx).contains(&other), "{}: {other} by MLX", kind.name());
        }
    }
}
