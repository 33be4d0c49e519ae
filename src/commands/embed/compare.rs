//! What people do with vectors at once: how similar texts are, and which vectors of a file are nearest.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use half::f16;

use crate::cancel::Cancel;
use crate::cli::embed::Similarity;
use crate::error::{Code, Error, Result};
use crate::report::embed::NeighbourReport;

/// Texts of a matrix: beyond, it is better computed from a file of vectors.
const MOST: usize = 10_000;
/// Bytes of a file of vectors that are in memory at a time.
const BLOCK: usize = 4 << 20;
/// A header larger than this is none of a plain array.
const MAX_HEADER: usize = 64 << 10;

/// The cosines of vectors of `width` numbers: of each with each, or one row with those of pairs.
pub fn similarity(vectors: &[f32], width: usize, how: Similarity) -> Result<Vec<Vec<f32>>> {
    let rows: Vec<Vec<f32>> = vectors.chunks_exact(width).map(|row| direction(row.iter().copied())).collect();
    match how {
        Similarity::Matrix if rows.len() > MOST => Err(Error::new(
            Code::InvalidRequest,
            format!("a matrix of {} texts with each other is too large", rows.len()),
        )
        .hint(format!("compare at most {MOST}, or write vectors to a file and use --nearest"))),
        Similarity::Matrix => Ok(rows.iter().map(|a| rows.iter().map(|b| product(a, b)).collect()).collect()),
        Similarity::Pairs if rows.len() % 2 == 1 => {
            Err(Error::new(Code::InvalidRequest, format!("{} texts do not make pairs", rows.len()))
                .hint("give an even number of texts"))
        }
        Similarity::Pairs => Ok(vec![rows.chunks_exact(2).map(|pair| product(&pair[0], &pair[1])).collect()]),
    }
}

/// For each of the `queries` of `width` numbers the `count` most similar rows of a .npy file.
pub fn nearest(
    queries: &[f32],
    width: usize,
    count: usize,
    file: &Path,
    cancel: &Cancel,
) -> Result<Vec<Vec<NeighbourReport>>> {
    let queries: Vec<Vec<f32>> =
        queries.chunks_exact(width).map(|row| direction(row.iter().copied())).collect();
    let mut found: Vec<BinaryHeap<Found>> = queries.iter().map(|_| BinaryHeap::new()).collect();
    let mut array = NpyRows::open(file)?;
    if array.columns != width {
        return Err(Error::new(
            Code::InvalidRequest,
            format!("{} has vectors of {} numbers, the model makes {width}", file.display(), array.columns),
        )
        .hint("compare with vectors of the same model, made with the same --dimensions"));
    }
    let mut row = 0;
    while let Some(block) = array.next()? {
        cancel.check()?;
        for vector in block.chunks_exact(width) {
            let vector = direction(vector.iter().copied());
            for (query, best) in queries.iter().zip(&mut found) {
                let candidate = Found { score: product(query, &vector), row };
                if best.len() < count {
                    best.push(candidate);
                } else if best.peek().is_some_and(|worst| candidate < *worst) {
                    best.pop();
                    best.push(candidate);
                }
            }
            row += 1;
        }
    }
    let report = |found: Found| NeighbourReport { row: found.row, score: found.score };
    Ok(found.into_iter().map(|best| best.into_sorted_vec().into_iter().map(report).collect()).collect())
}

/// A candidate. The better one is the smaller one, so that a heap gives the worst.
#[derive(Debug, Clone, Copy)]
struct Found {
    score: f32,
    row: u64,
}

impl Ord for Found {
    fn cmp(&self, other: &Self) -> Ordering {
        other.score.total_cmp(&self.score).then(self.row.cmp(&other.row))
    }
}

impl PartialOrd for Found {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Found {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Found {}

/// The vector with the length 1.
fn direction(vector: impl Iterator<Item = f32> + Clone) -> Vec<f32> {
    let squares: f64 = vector.clone().map(|value| f64::from(value) * f64::from(value)).sum();
    let factor = if squares > 0.0 { 1.0 / squares.sqrt() } else { 0.0 };
    vector.map(|value| (f64::from(value) * factor) as f32).collect()
}

fn product(a: &[f32], b: &[f32]) -> f32 {
    // Several sums at a time, as vector units have it.
    let mut sums = [0.0; 16];
    let (a_lanes, a_rest) = a.as_chunks::<16>();
    let (b_lanes, b_rest) = b.as_chunks::<16>();
    for (a, b) in a_lanes.iter().zip(b_lanes) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

/// Rows of a .npy file with a matrix of float32, float16, float64 or int8.
struct NpyRows {
    reader: BufReader<File>,
    path: std::path::PathBuf,
    columns: usize,
    rows_left: u64,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    F16,
    F32,
    F64,
    I8,
}

impl NpyRows {
    fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|error| Error::io("open", path, error))?;
        let mut reader = BufReader::new(file);
        let mut read = |length: usize| -> Result<Vec<u8>> {
            let mut bytes = vec![0; length];
            reader.read_exact(&mut bytes).map_err(|_| broken(path, "ends inside its header"))?;
            Ok(bytes)
        };
        let start = read(8)?;
        if !start.starts_with(b"\x93NUMPY") {
            return Err(broken(path, "is not a .npy file"));
        }
        let length = match start[6] {
            1 => read(2)?.iter().rev().fold(0, |length, &byte| length << 8 | usize::from(byte)),
            2 | 3 => read(4)?.iter().rev().fold(0, |length, &byte| length << 8 | usize::from(byte)),
            other => return Err(broken(path, &format!("has the unknown version {other}"))),
        };
        if length > MAX_HEADER {
            return Err(broken(path, &format!("has a header of {length} bytes")));
        }
        let header = String::from_utf8_lossy(&read(length)?).into_owned();
        let value = |key: &str| Some(header.split_once(&format!("'{key}':"))?.1.trim_start());
        let kind = match value("descr").and_then(|rest| rest.split('\'').nth(1)) {
            Some("<f4") => Kind::F32,
            Some("<f2") => Kind::F16,
            Some("<f8") => Kind::F64,
            Some("|i1") => Kind::I8,
            other => return Err(broken(path, &format!("has elements of the type {other:?}"))),
        };
        if value("fortran_order").is_none_or(|rest| !rest.starts_with("False")) {
            return Err(broken(path, "has its numbers column by column"));
        }
        let shape =
            value("shape").and_then(|rest| rest.strip_prefix('(')?.split_once(')')).map(|parts| parts.0);
        let sizes: Option<Vec<u64>> =
            shape.map(|shape| shape.split(',').filter_map(|size| size.trim().parse().ok()).collect());
        let (rows, columns) = match sizes.as_deref() {
            Some([rows, columns]) if (1..=1 << 24).contains(columns) => (*rows, *columns as usize),
            _ => return Err(broken(path, &format!("has the shape ({})", shape.unwrap_or_default()))),
        };
        Ok(Self { reader, path: path.to_owned(), columns, rows_left: rows, kind })
    }

    /// The next rows, one after the other.
    fn next(&mut self) -> Result<Option<Vec<f32>>> {
        let size = match self.kind {
            Kind::I8 => 1,
            Kind::F16 => 2,
            Kind::F32 => 4,
            Kind::F64 => 8,
        };
        let row_bytes = self.columns * size;
        let rows = ((BLOCK / row_bytes).max(1) as u64).min(self.rows_left);
        if rows == 0 {
            return Ok(None);
        }
        let mut bytes = vec![0; rows as usize * row_bytes];
        self.reader
            .read_exact(&mut bytes)
            .map_err(|_| broken(&self.path, "ends before the last row that its header tells of"))?;
        self.rows_left -= rows;
        Ok(Some(match self.kind {
            Kind::I8 => bytes.iter().map(|byte| f32::from(byte.cast_signed())).collect(),
            Kind::F16 => bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
            Kind::F32 => bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            Kind::F64 => bytes.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect(),
        }))
    }
}

fn broken(path: &Path, reason: &str) -> Error {
    Error::new(Code::IntegrityFailed, format!("{} {reason}", path.display()))
        .hint("give a .npy file with a matrix of float32, float16, float64 or int8, a vector a row")
        .detail("path", path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosines_do_not_depend_on_lengths() {
        let vectors = [1.0, 0.0, 3.0, 3.0, 0.0, -2.0, 0.0, 0.0];
        let half = std::f32::consts::FRAC_1_SQRT_2;
        let near = |a: &[Vec<f32>], b: &[&[f32]]| {
            a.len() == b.len()
                && a.iter().flatten().zip(b.iter().copied().flatten()).all(|(a, b)| (a - b).abs() < 1e-6)
        };
        let pairs = similarity(&vectors, 2, Similarity::Pairs).unwrap();
        assert!(near(&pairs, &[&[half, 0.0]]), "{pairs:?}");
        let matrix = similarity(&vectors[..6], 2, Similarity::Matrix).unwrap();
        assert!(near(&matrix, &[&[1.0, half, 0.0], &[half, 1.0, -half], &[0.0, -half, 1.0]]), "{matrix:?}");
        assert!(similarity(&vectors[..6], 2, Similarity::Pairs).is_err());
    }

    #[test]
    fn the_nearest_rows_come_first_and_equals_in_their_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npy");
        let rows: [[f32; 2]; 5] = [[0.0, 1.0], [2.0, 0.0], [1.0, 1.0], [4.0, 0.0], [-1.0, 0.0]];
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (5, 2), }\n";
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.bytes());
        bytes.extend(rows.iter().flatten().flat_map(|value| value.to_le_bytes()));
        std::fs::write(&path, &bytes).unwrap();
        let found = nearest(&[1.0, 0.0], 2, 3, &path, &Cancel::default()).unwrap();
        let rows: Vec<u64> = found[0].iter().map(|found| found.row).collect();
        assert_eq!(rows, [1, 3, 2]);
        assert!((found[0][2].score - std::f32::consts::FRAC_1_SQRT_2).abs() < 1e-6);

        assert_eq!(
            nearest(&[1.0], 1, 3, &path, &Cancel::default()).unwrap_err().code(),
            Code::InvalidRequest
        );
        for (length, what) in [(bytes.len() - 1, "last row"), (30, "header"), (4, "header")] {
            std::fs::write(&path, &bytes[..length]).unwrap();
            let error = nearest(&[1.0, 0.0], 2, 3, &path, &Cancel::default()).unwrap_err();
            assert!(error.message().contains(what), "{error}");
        }
    }
}
