//! Matrices that are read by rows, as they are wanted.

use std::ops::Range;

use super::{Checkpoint, Packed, check_codes, element_unsupported, matrix, not_finite};
use crate::engine::config::{Affine, Packing};
#[cfg(target_os = "linux")]
use crate::engine::ffi::Region;
use crate::engine::format::ggml_type::GgmlType;
use crate::engine::format::safetensors::Dtype;
use crate::engine::format::tensors::{Encoding, Tensor, Tensors};
use crate::engine::format::unpack::{Fault, Form, Unpacker};
#[cfg(target_os = "linux")]
use crate::engine::format::weight::RowType;
use crate::engine::format::weight::{CodeTable, FloatType, Floats, WeightData};
use crate::error::{Error, Result};

/// Bytes of GGUF blocks that are read at a time: they stay in the processor's cache until unpacked.
const PIECE: usize = 256 << 10;

/// A matrix whose shape is known, and whose rows are not read yet. Several threads may read at once.
#[derive(Clone)]
pub struct MatrixRows<'a> {
    tensors: &'a Tensors,
    name: String,
    tensor: &'a Tensor,
    rows: usize,
    columns: usize,
    stored: Stored<'a>,
}

#[derive(Clone)]
enum Stored<'a> {
    Floats(FloatType),
    /// GGUF's.
    Blocks(GgmlType),
    /// MLX's.
    Packed(Packed<'a>),
}

impl Checkpoint {
    /// The matrix of a linear or embedding module, to be read by rows; `None` where rows change while they
    /// are read.
    ///
    /// # Errors
    /// Those of [`Checkpoint::weight`] that need no reading.
    pub fn rows(&self, module: &str) -> Result<Option<MatrixRows<'_>>> {
        let name = format!("{module}.weight");
        let tensor = self.tensors.require(&name)?;
        let path = self.tensors.path_of(tensor);
        let stored = match tensor.encoding {
            Encoding::Ggml(kind) if Form::of(kind).is_some() => Stored::Blocks(kind),
            Encoding::Safetensors(Dtype::U32 | Dtype::U8) => {
                Stored::Packed(self.packing(module, tensor, self.columns.get(module).copied())?)
            }
            Encoding::Safetensors(Dtype::F8E4M3) => return Ok(None),
            encoding => match encoding.float() {
                None => return Err(element_unsupported(&name, tensor, path)),
                Some(_) if self.on_load.is_some() && !self.is_transposed(module) => return Ok(None),
                Some(float) => Stored::Floats(float),
            },
        };
        let (rows, columns) = match &stored {
            Stored::Packed(packed) => (packed.rows, packed.columns),
            _ => matrix(&name, tensor, path)?,
        };
        Ok(Some(MatrixRows { tensors: &self.tensors, name, tensor, rows, columns, stored }))
    }
}

impl MatrixRows<'_> {
    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Reads some of the rows.
    ///
    /// # Errors
    /// INTEGRITY_FAILED for numbers that are none, and where the file has become shorter; INTERNAL for rows
    /// that there are not.
    pub fn read(&self, rows: Range<usize>) -> Result<WeightData> {
        if rows.start > rows.end || rows.end > self.rows {
            return Err(Error::internal(format!("rows {rows:?} of {}, which has {}", self.name, self.rows)));
        }
        match &self.stored {
            Stored::Floats(dtype) => Ok(WeightData::Dense {
                shape: vec![rows.len(), self.columns],
                values: self.floats(self.tensor, *dtype, &rows)?,
            }),
            Stored::Blocks(kind) => self.blocks(*kind, &rows),
            Stored::Packed(packed) => self.packed(packed, &rows),
        }
    }

    /// Some of the rows where they lie, and how; `None` for types that are to be packed, and where there is no
    /// such place.
    #[cfg(target_os = "linux")]
    pub fn region(&self, rows: &Range<usize>) -> Option<(Region, RowType)> {
        let row_type = match self.stored {
            Stored::Floats(float) => RowType::Floats(float),
            Stored::Blocks(GgmlType::Q8_0) => RowType::Q8,
            Stored::Blocks(_) | Stored::Packed(_) => return None,
        };
        let part = (rows.end <= self.rows).then(|| self.part(self.tensor, rows))?;
        Some((self.tensors.region(&part)?, row_type))
    }

    /// What a tensor, which all rows share out equally, has for these.
    fn part(&self, tensor: &Tensor, rows: &Range<usize>) -> Tensor {
        let each = tensor.bytes / self.rows.max(1) as u64;
        let (offset, bytes) = (tensor.offset + each * rows.start as u64, each * rows.len() as u64);
        Tensor { offset, bytes, shape: Vec::new(), ..*tensor }
    }

    fn floats(&self, tensor: &Tensor, dtype: FloatType, rows: &Range<usize>) -> Result<Floats> {
        Ok(Floats { dtype, bytes: self.tensors.read(&self.part(tensor, rows))? })
    }

    /// What is said of numbers that are none.
    pub fn not_finite(&self) -> Error {
        not_finite(&self.name, self.tensors.path_of(self.tensor))
    }

    /// A matrix in GGUF blocks.
    fn blocks(&self, kind: GgmlType, rows: &Range<usize>) -> Result<WeightData> {
        let fault = |fault: Fault| match fault {
            Fault::Type => element_unsupported(&self.name, self.tensor, self.tensors.path_of(self.tensor)),
            Fault::NotFinite => self.not_finite(),
        };
        let (part, block) = (self.part(self.tensor, rows), kind.block_bytes() as usize);
        let mut unpacker = Unpacker::new(kind, part.bytes as usize / block).map_err(fault)?;
        self.tensors.read_pieces(&part, PIECE / block * block, |blocks| {
            unpacker.push(blocks);
            Ok(())
        })?;
        unpacker.finish(rows.len(), self.columns).map_err(fault)
    }

    /// A matrix as MLX packs it: `.weight`, `.scales` and, if it is affine, `.biases`.
    fn packed(&self, from: &Packed, rows: &Range<usize>) -> Result<WeightData> {
        let part = self.part(self.tensor, rows);
        let mut packed = vec![0u32; part.bytes as usize / 4];
        self.tensors.read_into(&part, bytemuck::cast_slice_mut(&mut packed))?;
        let floats = |tensor: &Tensor| {
            let dtype = tensor
                .encoding
                .float()
                .ok_or_else(|| element_unsupported(&self.name, tensor, self.tensors.path_of(tensor)))?;
            self.floats(tensor, dtype, rows)
        };
        let (rows_read, columns) = (rows.len(), self.columns);
        match (from.packing, from.biases) {
            (Packing::Affine(Affine { group, bits }), Some(biases)) => {
                let (scales, biases) = (floats(from.scales)?, floats(biases)?);
                if !(scales.all_finite() && biases.all_finite()) {
                    return Err(self.not_finite());
                }
                Ok(WeightData::Affine { rows: rows_read, columns, group, bits, packed, scales, biases })
            }
            (Packing::BlockFloat(mode), _) => {
                let scales = self.tensors.read(&self.part(from.scales, rows))?;
                let scales = mode.scales(&scales).ok_or_else(|| self.not_finite())?;
                let (table, group) = (mode.table(), mode.group());
                if table == CodeTable::Fp8 {
                    check_codes(bytemuck::cast_slice(&packed)).ok_or_else(|| self.not_finite())?;
                }
                Ok(WeightData::Codes { rows: rows_read, columns, group, table, packed, scales })
            }
            (Packing::Affine(_), None) => Err(Error::internal("affine weights without biases")),
        }
    }
}
