//! Originals in eight-bit floats, as DeepSeek, Qwen and llm-compressor publish them: e4m3 in `.weight`, and
//! beside it what its numbers are multiplied by, `.weight_scale_inv` for blocks of rows and columns, or
//! `.weight_scale` for rows or all of the matrix.
//!
//! An element is exactly its number times its scale. They become groups of 32 that have one scale each, or
//! float32 where blocks are no whole groups. Matrices of all experts in one tensor have scales each of their own.

use super::{Checkpoint, matrix, not_finite};
use crate::engine::format::block_float::{BlockFloat, e4m3};
use crate::engine::format::file::{damaged, unsupported};
use crate::engine::format::tensors::Tensor;
use crate::engine::format::weight::{CodeTable, Floats, WeightData};
use crate::error::Result;

const GROUP: usize = BlockFloat::Mxfp8.group();
/// Names of the scales after the module's.
pub const SCALES: [&str; 2] = ["weight_scale_inv", "weight_scale"];

/// A matrix of such floats whose tensors fit one another.
pub(super) struct SmallFloats<'a> {
    pub rows: usize,
    pub columns: usize,
    name: String,
    scales: &'a Tensor,
    /// Rows of one expert, or all.
    each: usize,
    /// Rows and columns that share a scale.
    block: [usize; 2],
}

impl SmallFloats<'_> {
    /// Whether each group of 32 elements of a row shares a scale.
    pub(super) fn is_grouped(&self) -> bool {
        let [_, wide] = self.block;
        self.columns.is_multiple_of(GROUP) && (wide >= self.columns || wide.is_multiple_of(GROUP))
    }

    /// The row of scales that belongs to a row of numbers.
    fn row_of_scales(&self, row: usize) -> usize {
        row / self.each * self.each.div_ceil(self.block[0]) + row % self.each / self.block[0]
    }
}

impl Checkpoint {
    /// # Errors
    /// INTEGRITY_FAILED where the scales are missing or do not fit, MODEL_UNSUPPORTED for scales of another type.
    pub(super) fn small_floats(&self, module: &str, tensor: &Tensor) -> Result<SmallFloats<'_>> {
        let weight = format!("{module}.weight");
        let path = self.tensors.path_of(tensor);
        let (rows, columns) = matrix(&weight, tensor, path)?;
        let names = SCALES.map(|name| format!("{module}.{name}"));
        let found = names.into_iter().find_map(|name| Some((self.tensors.get(&name)?, name)));
        let (scales, name) = found
            .ok_or_else(|| damaged(path, &format!("has no scales for the eight-bit floats in {weight:?}")))?;
        let (each, own) = match (tensor.shape.as_slice(), scales.shape.as_slice()) {
            (&[count, each, _], [experts, own @ ..]) if *experts == count => (each, own),
            (_, all) => (rows, all),
        };
        let block = match (own, self.config.float_blocks) {
            ([] | [1] | [1, 1], None) => [each, columns],
            ([count] | [count, 1], None) if *count == each => [1, columns],
            ([down, across], Some([high, wide]))
                if [*down, *across] == [each.div_ceil(high), columns.div_ceil(wide)] =>
            {
                [high, wide.min(columns)]
            }
            _ => {
                return Err(damaged(
                    path,
                    &format!(
                        "has scales {:?} for the {rows} rows and {columns} columns of {weight:?}",
                        scales.shape
                    ),
                ));
            }
        };
        if scales.encoding.float().is_none() {
            return Err(unsupported(
                path,
                &format!("has scales of type {} in {name:?}", scales.encoding.name()),
            ));
        }
        if each == 0 || columns == 0 {
            return Err(damaged(path, &format!("has nothing in {weight:?}")));
        }
        Ok(SmallFloats { rows, columns, name, scales, each, block })
    }

    /// Reads such a matrix.
    pub(super) fn read_small_floats(&self, module: &str, tensor: &Tensor) -> Result<WeightData> {
        let small = self.small_floats(module, tensor)?;
        let SmallFloats { rows, columns, ref name, scales, block: [_, wide], .. } = small;
        let across = columns.div_ceil(wide);
        let of_blocks = self.floats(name, scales)?.to_f32();
        let path = self.tensors.path_of(tensor);
        if !of_blocks.iter().all(|scale| scale.is_finite()) {
            return Err(not_finite(name, path));
        }
        let of_row = |row: usize| &of_blocks[small.row_of_scales(row) * across..][..across];
        let not_finite = || not_finite(&format!("{module}.weight"), path);
        if !small.is_grouped() || self.is_transposed(module) {
            let codes = self.tensors.read(tensor)?;
            super::check_codes(&codes).ok_or_else(not_finite)?;
            let mut values = Vec::with_capacity(codes.len());
            for (row, codes) in codes.chunks_exact(columns).enumerate() {
                let scales = of_row(row);
                values.extend(codes.iter().enumerate().map(|(at, code)| e4m3(*code) * scales[at / wide]));
            }
            return Ok(WeightData::Dense { shape: vec![rows, columns], values: Floats::singles(&values) });
        }
        let mut packed = vec![0u32; tensor.bytes as usize / 4];
        self.tensors.read_into(tensor, bytemuck::cast_slice_mut(&mut packed))?;
        super::check_codes(bytemuck::cast_slice(&packed)).ok_or_else(not_finite)?;
        let mut scales = Vec::with_capacity(rows * columns / GROUP);
        for row in 0..rows {
            scales.extend((0..columns).step_by(GROUP).map(|column| of_row(row)[column / wide]));
        }
        let (group, table, scales) = (GROUP, CodeTable::Fp8, Floats::singles(&scales));
        Ok(WeightData::Codes { rows, columns, group, table, packed, scales })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::error::Code;

    const MODULE: &str = "model.layers.0.self_attn.q_proj";

    /// The tiny model in blocks, its files changed.
    fn changed(config: impl Fn(String) -> String, weights: impl Fn(&mut Vec<u8>)) -> Result<WeightData> {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/fp8/blocks");
        let folder = tempfile::tempdir().unwrap();
        let text = fs::read_to_string(from.join("config.json")).unwrap();
        fs::write(folder.path().join("config.json"), config(text)).unwrap();
        let mut bytes = fs::read(from.join("model.safetensors")).unwrap();
        weights(&mut bytes);
        fs::write(folder.path().join("model.safetensors"), bytes).unwrap();
        Checkpoint::open(folder.path())?.weight(MODULE)
    }

    fn unchanged(_: &mut Vec<u8>) {}

    #[test]
    fn each_block_has_its_scale() {
        let weight = changed(|text| text, unchanged).unwrap();
        let WeightData::Codes { rows: 64, columns: 64, group: 32, table: CodeTable::Fp8, scales, .. } =
            weight
        else {
            panic!("{weight:?}");
        };
        let scales = scales.to_f32();
        assert_eq!(scales.len(), 128);
        for row in 0..64 {
            // Blocks of 48 rows.
            let first = if row < 48 { 0 } else { 48 };
            assert_eq!(scales[2 * row..][..2], scales[2 * first..][..2], "row {row}");
        }
        assert!(scales[0].to_bits() != scales[1].to_bits() && scales[0].to_bits() != scales[96].to_bits());
    }

    #[test]
    fn scales_that_do_not_fit_are_errors() {
        for size in ["[0, 32]", "[48]", "[48, 32, 1]", "\"48\"", "[64, 64]", "null"] {
            let config = |text: String| {
                let start = text.find("\"weight_block_size\"").unwrap();
                let end = start + text[start..].find(']').unwrap() + 1;
                format!("{}\"weight_block_size\": {size}{}", &text[..start], &text[end..])
            };
            let error = changed(config, unchanged).unwrap_err();
            assert_eq!(error.code(), Code::IntegrityFailed, "{size}: {error}");
        }
        let renamed = |bytes: &mut Vec<u8>| {
            let (name, other) = (b"q_proj.weight_scale_inv", b"q_proj.weight_scale_out");
            let at = bytes.windows(name.len()).position(|window| window == name).unwrap();
            bytes[at..][..other.len()].copy_from_slice(other);
        };
        let error = changed(|text| text, renamed).unwrap_err();
        assert!(error.code() == Code::IntegrityFailed && error.message().contains("no scales"), "{error}");
    }

    #[test]
    fn codes_that_are_no_numbers_are_errors() {
        let spoilt = |bytes: &mut Vec<u8>| {
            let start = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            bytes[start..].fill(0x7f);
        };
        assert_eq!(changed(|text| text, spoilt).unwrap_err().code(), Code::IntegrityFailed);
    }
}
