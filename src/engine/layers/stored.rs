//! Matrices on their way from the checkpoint: rows are chosen before they are read.

use std::ops::Range;

use super::Loader;
use super::matrix::{append, select_rows};
use crate::engine::format::checkpoint::MatrixRows;
use crate::engine::format::weight::WeightData;
#[cfg(target_os = "linux")]
use crate::engine::kernels::PackedMatrix;
use crate::error::{Code, Error, Result};

/// A matrix `[rows, columns]` of a checkpoint, some of its rows, or several matrices one below the other.
pub struct Stored<'a> {
    source: Source<'a>,
    /// Bytes in the file.
    bytes: u64,
}

enum Source<'a> {
    /// What changed while it was read.
    Read(WeightData),
    /// What is still in the file.
    Rows(Rows<'a>),
}

struct Rows<'a> {
    matrices: Vec<MatrixRows<'a>>,
    chosen: Vec<Chosen>,
}

/// Some rows of a matrix.
struct Chosen {
    matrix: usize,
    rows: Range<usize>,
    /// How many rows there are up to the last of these, those before them included.
    until: usize,
}

impl<'a> Loader<'a> {
    /// The matrix of the module `name`, `[rows, columns]`.
    pub fn stored(&self, name: &str, rows: usize, columns: usize) -> Result<Stored<'a>> {
        let (source, shape) = if let Some(matrix) = self.checkpoint.rows(name)? {
            let shape = [matrix.rows(), matrix.columns()];
            (Source::Rows(Rows::new(matrix, Some(0..rows))), shape)
        } else {
            let weight = self.checkpoint.weight(name)?;
            let shape = weight.matrix_shape().map_or([0, 0], |(rows, columns)| [rows, columns]);
            (Source::Read(weight), shape)
        };
        if shape != [rows, columns] {
            return Err(self.mismatch(name, &format!("is {shape:?}"), &format!("[{rows}, {columns}]")));
        }
        Ok(Stored { source, bytes: self.checkpoint.stored_bytes(name) })
    }

    /// The same, read.
    pub fn matrix(&self, name: &str, rows: usize, columns: usize) -> Result<WeightData> {
        self.stored(name, rows, columns)?.read(self)
    }
}

impl Stored<'_> {
    /// Of a matrix that was made of others.
    pub fn made(weight: WeightData) -> Self {
        Self { source: Source::Read(weight), bytes: 0 }
    }

    /// Matrices one below the other.
    ///
    /// # Errors
    /// MODEL_UNSUPPORTED where they are not all stored in the same way.
    pub fn stacked(all: Vec<Self>) -> Result<Self> {
        let mut all = all.into_iter();
        let mut stacked = all.next().ok_or_else(|| Error::internal("no matrix to stack others below"))?;
        for Self { source, bytes } in all {
            let fit = match (&mut stacked.source, source) {
                (Source::Rows(upper), Source::Rows(lower)) => upper.add(lower),
                (Source::Read(upper), Source::Read(lower)) => append(upper, &lower),
                _ => false,
            };
            if !fit {
                return Err(stored_differently());
            }
            stacked.bytes += bytes;
        }
        Ok(stacked)
    }

    /// These rows of the matrix of one module.
    pub fn select(&self, ranges: impl IntoIterator<Item = Range<usize>>) -> Result<Self> {
        match &self.source {
            Source::Read(weight) => {
                Ok(Self { source: Source::Read(select_rows(weight, ranges)?), bytes: self.bytes })
            }
            Source::Rows(Rows { matrices, .. }) => {
                let [matrix] = matrices.as_slice() else {
                    return Err(Error::internal("rows of several matrices"));
                };
                let rows = Rows::new(matrix.clone(), ranges);
                let bytes = self.bytes / matrix.rows().max(1) as u64 * rows.count() as u64;
                Ok(Self { source: Source::Rows(rows), bytes })
            }
        }
    }

    /// Reads all of it.
    pub fn read(self, loader: &Loader) -> Result<WeightData> {
        let weight = match self.source {
            Source::Read(weight) => weight,
            Source::Rows(rows) => rows.read(0..rows.count())?,
        };
        loader.report(self.bytes);
        Ok(weight)
    }

    /// As so many matrices of equal size for the kernels: as they lie in the file, if these can read that, else
    /// packed while they are read.
    #[cfg(target_os = "linux")]
    pub fn pack(&self, loader: &Loader, parts: usize) -> Result<PackedMatrix> {
        let packed = match &self.source {
            Source::Read(weight) => PackedMatrix::pack_parts(weight, parts)?,
            Source::Rows(rows) => match rows.lying(parts)? {
                Some(lying) => lying,
                None => PackedMatrix::read(rows.count(), parts, &|range| rows.read(range))?,
            },
        };
        loader.report(self.bytes);
        Ok(packed)
    }
}

impl<'a> Rows<'a> {
    fn new(matrix: MatrixRows<'a>, ranges: impl IntoIterator<Item = Range<usize>>) -> Self {
        let mut until = 0;
        let chosen = ranges.into_iter().map(|rows| {
            until += rows.len();
            Chosen { matrix: 0, rows, until }
        });
        Self { chosen: chosen.collect(), matrices: vec![matrix] }
    }

    fn count(&self) -> usize {
        self.chosen.last().map_or(0, |last| last.until)
    }

    /// Rows that follow each other in one matrix, where they lie.
    #[cfg(target_os = "linux")]
    fn lying(&self, parts: usize) -> Result<Option<PackedMatrix>> {
        let ([matrix], [chosen]) = (self.matrices.as_slice(), self.chosen.as_slice()) else {
            return Ok(None);
        };
        let Some((region, row_type)) = matrix.region(&chosen.rows) else { return Ok(None) };
        let lying = PackedMatrix::lying(&region, row_type, matrix.columns(), parts);
        match &lying {
            Some(found) if !found.fetch() => Err(matrix.not_finite()),
            _ => Ok(lying),
        }
    }

    /// Adds rows below these, if they have as many columns.
    fn add(&mut self, lower: Self) -> bool {
        let (before, matrices) = (self.count(), self.matrices.len());
        let renumbered = |Chosen { matrix, rows, until }| {
            let (matrix, until) = (matrix + matrices, until + before);
            Chosen { matrix, rows, until }
        };
        self.chosen.extend(lower.chosen.into_iter().map(renumbered));
        self.matrices.extend(lower.matrices);
        self.matrices.windows(2).all(|two| two[0].columns() == two[1].columns())
    }

    /// Reads some of the rows, as they are numbered here.
    fn read(&self, wanted: Range<usize>) -> Result<WeightData> {
        let first = self.chosen.partition_point(|chosen| chosen.until <= wanted.start);
        let of_these = self.chosen[first..].iter();
        let of_these: Vec<&Chosen> =
            of_these.take_while(|chosen| chosen.until - chosen.rows.len() < wanted.end).collect();
        let mut all = None;
        for of_one in of_these.chunk_by(|a, b| a.matrix == b.matrix) {
            let cut = |chosen: &&Chosen| {
                let from = chosen.until - chosen.rows.len();
                let start = chosen.rows.start + wanted.start.saturating_sub(from);
                start..chosen.rows.end - chosen.until.saturating_sub(wanted.end)
            };
            let ranges: Vec<Range<usize>> = of_one.iter().map(cut).collect();
            below(&mut all, rows_of(&self.matrices[of_one[0].matrix], &ranges)?)?;
        }
        all.ok_or_else(|| Error::internal("no rows to read"))
    }
}

/// Rows that lie close to each other are read at once, with those between them.
fn rows_of(matrix: &MatrixRows, ranges: &[Range<usize>]) -> Result<WeightData> {
    let count: usize = ranges.iter().map(ExactSizeIterator::len).sum();
    let first = ranges.iter().map(|range| range.start).min().unwrap_or(0);
    let end = ranges.iter().map(|range| range.end).max().unwrap_or(0);
    match ranges {
        [only] => matrix.read(only.clone()),
        several if end - first <= 2 * count => {
            let within = several.iter().map(|range| range.start - first..range.end - first);
            select_rows(&matrix.read(first..end)?, within)
        }
        several => {
            let mut all = None;
            for range in several {
                below(&mut all, matrix.read(range.clone())?)?;
            }
            all.ok_or_else(|| Error::internal("no rows to read"))
        }
    }
}

fn below(all: &mut Option<WeightData>, lower: WeightData) -> Result<()> {
    match all {
        None => *all = Some(lower),
        Some(upper) => {
            if !append(upper, &lower) {
                return Err(stored_differently());
            }
        }
    }
    Ok(())
}

fn stored_differently() -> Error {
    Error::new(Code::ModelUnsupported, "matrices that belong together are not all stored in the same way")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use mlx_rs::Dtype;

    use super::*;
    use crate::engine::format::checkpoint::Checkpoint;
    use crate::engine::layers::Backend;

    const NAME: &str = "model.layers.0.mlp.down_proj";

    /// Of each form of weights, that of a GGUF in blocks too.
    fn each(check: impl Fn(&Loader, &Stored, &WeightData, usize)) {
        let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/tiny");
        for file in
            ["llama_bf16", "quant_3bit_g64", "quant_mxfp4", "gguf/llama_Q4_1.gguf", "gguf/mixed_K.gguf"]
        {
            let checkpoint = Checkpoint::open(&tiny.join(file)).unwrap();
            let whole = checkpoint.weight(NAME).unwrap();
            let (rows, columns) = whole.matrix_shape().unwrap();
            let mut progress = |_, _| ();
            let loader = Loader::new(&checkpoint, Backend::Stock, Dtype::Float32, 64, &mut progress);
            check(&loader, &loader.stored(NAME, rows, columns).unwrap(), &whole, rows);
            assert!(loader.stored(NAME, rows + 1, columns).is_err());
        }
    }

    #[test]
    fn chosen_rows_are_those_of_the_whole() {
        each(|loader, stored, whole, rows| {
            let every_other = (0..rows / 2).map(|row| 2 * row + 1..2 * row + 2).collect();
            let far_apart = vec![0..3, rows - 2..rows];
            let alone = Some(3..9).into_iter().collect();
            let turned = vec![rows / 2..rows, 0..rows / 2];
            for ranges in [alone, every_other, far_apart, turned] {
                let expected = select_rows(whole, ranges.clone()).unwrap();
                let chosen = stored.select(ranges.clone()).unwrap();
                let Source::Rows(lazy) = &chosen.source else { panic!("read at once") };
                let count = lazy.count();
                // In any parts, too.
                for part in [0..count, 0..1, 1..count, count / 3..count / 2 + 1] {
                    let within = select_rows(&expected, Some(part.clone())).unwrap();
                    assert_eq!(lazy.read(part.clone()).unwrap(), within, "{part:?} of {ranges:?}");
                }
                assert_eq!(chosen.read(loader).unwrap(), expected);
            }
            assert!(stored.select(Some(1..rows + 1)).unwrap().read(loader).is_err());
        });
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn only_rows_that_follow_each_other_stay_where_they_are() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/tiny/llama_bf16");
        let checkpoint = Checkpoint::open(&path).unwrap();
        let mut progress = |_, _| ();
        let loader = Loader::new(&checkpoint, Backend::Kernels, Dtype::Float32, 64, &mut progress);
        let stored = loader.stored(NAME, 64, 96).unwrap();
        let stays = |stored: &Stored| format!("{:?}", stored.pack(&loader, 1).unwrap()).contains("Lying");
        assert!(stays(&stored) && stays(&stored.select(Some(16..48)).unwrap()));
        assert!(!stays(&stored.select([0..16, 32..48]).unwrap()));
        assert!(!stays(&stored.select(Some(0..24)).unwrap()));
        let twice = Stored::stacked(vec![stored.select(Some(0..16)).unwrap(), stored]).unwrap();
        assert!(!stays(&twice));
    }

    #[test]
    fn matrices_lie_one_below_the_other() {
        each(|loader, stored, whole, rows| {
            let part = |range: Range<usize>| stored.select(Some(range)).unwrap();
            let stacked = Stored::stacked(vec![part(2..rows), part(0..5), part(1..2)]).unwrap();
            let expected = select_rows(whole, [2..rows, 0..5, 1..2]).unwrap();
            assert_eq!(stacked.read(loader).unwrap(), expected);
        });
    }
}
