//! Originals that are packed while they are read, a few rows at a time.

use std::path::Path;

use super::{Checkpoint, matrix};
use crate::engine::config::{Affine, Packing};
use crate::engine::format::file::damaged;
use crate::engine::format::inventory::Needed;
use crate::engine::format::quantize::Quantizer;
use crate::engine::format::tensors::Tensor;
use crate::engine::format::weight::WeightData;
use crate::engine::models::OnLoad;
use crate::error::{Code, Error, Result};

/// Bytes of floats that are quantized at a time.
const QUANTIZED: usize = 4 << 20;
/// How the matrices are packed whose errors would do the most harm.
const PRECISE: Packing = Packing::Affine(Affine { group: 64, bits: 8 });

impl Checkpoint {
    /// The same with its matrices packed while they are read: those that mlx-lm's converter packs.
    ///
    /// # Errors
    /// INVALID_REQUEST for weights that are packed already, and where no row is of whole groups.
    pub fn quantized(mut self, packing: Packing) -> Result<Self> {
        let refused = |reason: &str, hint: &str| {
            let path = self.path().display();
            Err(Error::new(Code::InvalidRequest, format!("{path} {reason}")).hint(hint.to_owned()))
        };
        let matrices = || {
            self.needed().filter_map(|needed| match needed {
                Needed::Matrix { module, rows, columns, .. } => Some((module, rows, columns)),
                Needed::Vector { .. } | Needed::Conv { .. } => None,
            })
        };
        let is_dense = |module: &str| {
            self.tensors.get(&format!("{module}.weight")).is_some_and(|it| it.encoding.float().is_some())
        };
        let original = "leave --quantize out, or take the original model, in safetensors";
        if self.metadata().is_some() {
            return refused("is a GGUF file, not an original", original);
        }
        if !matrices().all(|(module, ..)| is_dense(&module)) {
            return refused("is quantized already", original);
        }
        let fits = |(module, rows, columns): (String, usize, usize)| {
            self.target(packing, &module, self.turned(&module, rows, columns).1).is_some()
        };
        if !matrices().any(fits) {
            let reason = format!("has no matrix whose rows are whole groups of {}", packing.group());
            return refused(&reason, "ask for smaller groups with --quantize-group-size 32");
        }
        self.on_load = Some(packing);
        Ok(self)
    }

    /// How a matrix with so many columns is packed where the model is packed in this way.
    pub(super) fn target(&self, asked: Packing, module: &str, columns: usize) -> Option<Packing> {
        let OnLoad { precise, whole } = self.config.architecture.on_load;
        let is_among = |ends: &[&str]| ends.iter().any(|end| module.ends_with(end));
        if is_among(whole) || !columns.is_multiple_of(asked.group()) {
            return None;
        }
        let packing = if is_among(precise) { PRECISE } else { asked };
        columns.is_multiple_of(packing.group()).then_some(packing)
    }

    /// Rows and columns as a matrix is computed with: some files have those of experts transposed.
    pub(super) fn turned(&self, module: &str, rows: usize, columns: usize) -> (usize, usize) {
        match self.config.experts {
            Some(experts) if self.is_transposed(module) => {
                let count = experts.routing.count.max(1);
                (count * columns, rows / count)
            }
            _ => (rows, columns),
        }
    }

    pub(super) fn is_transposed(&self, module: &str) -> bool {
        let names = &self.config.architecture.names.experts;
        let Some([gate_up, down]) = names.transposed else { return false };
        if gate_up == names.fused[0] && !self.config.experts.is_some_and(|experts| experts.turned) {
            return false;
        }
        // The name of down alone is that of another layout, too.
        let layer = [gate_up, down].iter().find_map(|name| module.strip_suffix(name));
        layer.is_some_and(|layer| self.contains(&format!("{layer}{gate_up}.weight")))
    }

    /// Packs a matrix of floats that could not be packed while it was read.
    pub fn packed_late(&self, module: &str, weight: WeightData) -> Result<WeightData> {
        let (Some(asked), WeightData::Dense { shape, values }) = (self.on_load, &weight) else {
            return Ok(weight);
        };
        let &[rows, columns] = shape.as_slice() else { return Ok(weight) };
        let Some(packing) = self.target(asked, module, columns) else { return Ok(weight) };
        let mut quantizer = Quantizer::new(packing, values.dtype, [rows, columns]);
        for rows in values.bytes.chunks(piece(columns * values.dtype.size())) {
            quantizer.push(rows)?;
        }
        let path = self.tensors.require(&format!("{module}.weight")).map(|it| self.tensors.path_of(it))?;
        quantizer.finish().ok_or_else(|| not_finite(&format!("{module}.weight"), path))
    }

    /// A matrix of floats, packed a few rows at a time if it is to be.
    pub(super) fn packed_on_load(&self, module: &str, tensor: &Tensor) -> Result<WeightData> {
        let (name, path) = (format!("{module}.weight"), self.tensors.path_of(tensor));
        let (rows, columns) = matrix(&name, tensor, path)?;
        let target = self.on_load.and_then(|asked| self.target(asked, module, columns));
        let (Some(packing), Some(dtype)) = (target, tensor.encoding.float()) else {
            return Ok(WeightData::Dense { shape: vec![rows, columns], values: self.floats(&name, tensor)? });
        };
        let mut quantizer = Quantizer::new(packing, dtype, [rows, columns]);
        self.tensors.read_pieces(tensor, piece(columns * dtype.size()), |rows| quantizer.push(rows))?;
        quantizer.finish().ok_or_else(|| not_finite(&name, path))
    }
}

/// How many bytes are quantized at a time: whole rows of `row` bytes, at least one.
fn piece(row: usize) -> usize {
    let row = row.max(1);
    (QUANTIZED / row).max(1) * row
}

fn not_finite(name: &str, path: &Path) -> Error {
    damaged(path, &format!("has values in {name:?} that are infinite or not a number"))
}
