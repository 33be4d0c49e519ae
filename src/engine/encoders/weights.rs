//! Weights of an encoder, read from its checkpoint into the form that the backend computes with.

use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;

use mlx_rs::Array;

use super::linear::Linear;
use super::table::Table;
use crate::engine::config::Affine;
use crate::engine::ffi::array;
use crate::engine::format::file::{damaged, unsupported};
use crate::engine::format::safetensors::Dtype as Stored;
use crate::engine::format::sizes::{Storage, WeightSizes};
use crate::engine::format::tensors::{Encoding, Tensor, Tensors, checkpoint_name};
use crate::engine::format::unpack::{Form, Unpacker};
use crate::engine::format::weight::{FloatType, Floats, WeightData};
use crate::engine::layers::Backend;
use crate::engine::layers::norm::Norm;
use crate::engine::models::names;
use crate::error::{Error, Result};

/// Bytes of GGUF blocks that are read at a time.
const PIECE: usize = 256 << 10;

/// What to do with weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// See that they are there and have the right shapes.
    Check,
    /// Load them for this backend, to compute in this type.
    Load { backend: Backend, dtype: FloatType },
}

/// The tensors of a checkpoint under the names that their architecture gives them.
pub struct Weights<'a> {
    tensors: Arc<Tensors>,
    mode: Mode,
    state: RefCell<State<'a>>,
}

struct State<'a> {
    sizes: WeightSizes,
    done: u64,
    progress: &'a mut dyn FnMut(u64, u64),
}

impl<'a> Weights<'a> {
    /// `progress` gets (done, total) bytes after each weight.
    pub fn new(tensors: Arc<Tensors>, mode: Mode, progress: &'a mut dyn FnMut(u64, u64)) -> Self {
        let state = State { sizes: WeightSizes::default(), done: 0, progress };
        Self { tensors, mode, state: RefCell::new(state) }
    }

    /// What the weights asked for so far take.
    pub fn sizes(&self) -> WeightSizes {
        self.state.borrow().sizes
    }

    /// The float type of most weights.
    pub fn stored_type(&self) -> FloatType {
        let mut bytes = [0; 3];
        for (_, tensor) in self.tensors.iter() {
            let index = match tensor.encoding.float() {
                Some(FloatType::F32) => 0,
                Some(FloatType::F16) | None => 1,
                Some(FloatType::BF16) => 2,
            };
            bytes[index] += tensor.bytes;
        }
        match bytes {
            [f32, f16, bf16] if f32 >= f16 && f32 >= bf16 => FloatType::F32,
            [_, f16, bf16] if f16 >= bf16 => FloatType::F16,
            _ => FloatType::BF16,
        }
    }

    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The type of activations: float32 where nothing is loaded.
    pub fn compute_type(&self) -> FloatType {
        match self.mode {
            Mode::Load { dtype, .. } => dtype,
            Mode::Check => FloatType::F32,
        }
    }

    /// Whether there is a tensor of this full name.
    pub fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// The first of these prefixes under which `name` is found; the first if there is none.
    pub fn prefix<'p>(&self, prefixes: &[&'p str], name: &str) -> &'p str {
        let found = prefixes.iter().find(|prefix| self.has(&format!("{prefix}{name}")));
        found.or(prefixes.first()).copied().unwrap_or_default()
    }

    /// One or more matrices `[rows[i], columns]` that share their input, with their biases side by side.
    pub fn linear(
        &self,
        names: &[String],
        rows: &[usize],
        columns: usize,
        with_bias: bool,
    ) -> Result<Linear> {
        let mut weights = Vec::with_capacity(names.len());
        let mut biases = Vec::new();
        for (name, &rows) in names.iter().zip(rows) {
            weights.extend(self.matrix(name, rows, columns)?);
            if with_bias {
                biases.extend(self.vector(&format!("{name}.bias"), rows)?);
            }
        }
        self.finish(weights, &biases, with_bias)
    }

    fn finish(&self, weights: Vec<WeightData>, biases: &[f32], with_bias: bool) -> Result<Linear> {
        match self.mode {
            Mode::Check => Ok(Linear::unloaded()),
            Mode::Load { backend, .. } => {
                let bias = if with_bias { Some(self.array(biases)?) } else { None };
                Linear::new(weights, bias, backend, array::dtype(self.compute_type()))
            }
        }
    }

    /// One matrix `[2 * inner, columns]` that holds both halves of a gate.
    pub fn gate(&self, names: &[String], inner: usize, columns: usize, with_bias: bool) -> Result<Linear> {
        let mut weights = Vec::new();
        let mut biases = Vec::new();
        for name in names {
            weights.extend(self.matrix(name, 2 * inner, columns)?);
            if with_bias {
                biases.extend(self.vector(&format!("{name}.bias"), 2 * inner)?);
            }
        }
        let mut split = Vec::with_capacity(2 * weights.len());
        for weight in weights {
            split.extend(halves(weight)?);
        }
        self.finish(split, &biases, with_bias)
    }

    /// The first row of a small table, such as that of text types; `None` if there is no such table.
    pub fn first_row(&self, name: &str, columns: usize) -> Result<Option<Vec<f32>>> {
        if !self.has(&format!("{name}.weight")) {
            return Ok(None);
        }
        let mut row = vec![0.0; columns];
        let mut table = self.table(name, 1, columns)?;
        if self.mode != Mode::Check {
            table.read(0, &mut row)?;
        }
        Ok(Some(row))
    }

    /// A layer norm; old checkpoints call its parts gamma and beta.
    pub fn norm(&self, name: &str, size: usize, epsilon: f32, with_bias: bool) -> Result<Norm> {
        let part = |new: &str, old: &str| {
            let old = format!("{name}.{old}");
            let name = if self.has(&old) { old } else { format!("{name}.{new}") };
            self.array(&self.vector(&name, size)?)
        };
        let weight = part("weight", "gamma")?;
        let bias = if with_bias { Some(part("bias", "beta")?) } else { None };
        let backend = match self.mode {
            Mode::Load { backend, .. } => backend,
            Mode::Check => Backend::Stock,
        };
        Ok(Norm::layer(weight, bias, epsilon, backend))
    }

    /// A table whose rows are read one by one. Rows beyond `rows` are allowed: vocabularies are padded.
    pub fn table(&self, name: &str, rows: usize, columns: usize) -> Result<Table> {
        let name = format!("{name}.weight");
        let tensor = self.require(&name)?;
        let path = self.tensors.path_of(tensor);
        if let Some(float) = tensor.encoding.float() {
            match tensor.shape[..] {
                [found, width] if found >= rows && width == columns => {}
                _ => return Err(self.mismatch(&name, &tensor.shape, &[rows, columns])),
            }
            self.state.borrow_mut().sizes.add_table(rows, columns);
            return Ok(Table::dense(Arc::clone(&self.tensors), tensor.clone(), float, rows, columns));
        }
        let module = name.strip_suffix(".weight").unwrap_or(&name);
        let found = tensor.shape.first().copied().unwrap_or(0);
        if found < rows {
            return Err(self.mismatch(&name, &tensor.shape, &[rows, columns]));
        }
        match self.matrix(module, found, columns)? {
            Some(weight) => Table::packed(weight).ok_or_else(|| strange(&name, tensor, path)),
            None => Ok(Table::unloaded()),
        }
    }

    /// A small tensor `[size]` (or with ones around) as float32; zeros where nothing is loaded.
    pub fn vector(&self, name: &str, size: usize) -> Result<Vec<f32>> {
        let tensor = self.require(name)?;
        if tensor.shape.iter().product::<usize>() != size {
            return Err(self.mismatch(name, &tensor.shape, &[size]));
        }
        self.state.borrow_mut().sizes.add_vector(size);
        match self.mode {
            Mode::Check => Ok(vec![0.0; size]),
            Mode::Load { .. } => Ok(self.floats(name, tensor)?.to_f32()),
        }
    }

    /// A vector in the compute type.
    pub fn array(&self, values: &[f32]) -> Result<Array> {
        let made = Array::from_slice(values, &[values.len() as i32]);
        Ok(made.as_dtype(array::dtype(self.compute_type()))?)
    }

    /// The matrix of a module; `None` where nothing is loaded.
    fn matrix(&self, module: &str, rows: usize, columns: usize) -> Result<Option<WeightData>> {
        let name = format!("{module}.weight");
        let tensor = self.require(&name)?;
        let path = self.tensors.path_of(tensor);
        let mut bytes = tensor.bytes;
        let mut packing = None;
        let shape = match tensor.encoding {
            Encoding::Safetensors(Stored::U32) => {
                let (scales, biases) = (format!("{module}.scales"), format!("{module}.biases"));
                let (scales, biases) = (self.require(&scales)?, self.require(&biases)?);
                bytes += scales.bytes + biases.bytes;
                let affine = match (&tensor.shape[..], &scales.shape[..]) {
                    ([packed_rows, words], [scale_rows, groups])
                        if packed_rows == scale_rows && scales.shape == biases.shape =>
                    {
                        Affine::fitting(columns, *words, *groups)
                    }
                    _ => None,
                };
                packing = affine.map(|affine| (affine, scales, biases));
                if packing.is_none() {
                    return Err(damaged(
                        path,
                        &format!("has {name:?} packed in a way that does not fit its size"),
                    ));
                }
                vec![tensor.shape[0], columns]
            }
            Encoding::Ggml(kind) if Form::of(kind).is_some() => tensor.shape.clone(),
            encoding if encoding.float().is_some() => tensor.shape.clone(),
            _ => return Err(strange(&name, tensor, path)),
        };
        if shape != [rows, columns] {
            return Err(self.mismatch(&name, &shape, &[rows, columns]));
        }
        let storage = match (&packing, tensor.encoding) {
            (Some((affine, scales, _)), _) => {
                scales.encoding.float().map(|scale| Storage::Affine { affine: *affine, scale })
            }
            (None, Encoding::Ggml(kind)) if tensor.encoding.float().is_none() => {
                Form::of(kind).map(Storage::Blocks)
            }
            _ => tensor.encoding.float().map(Storage::Dense),
        };
        self.state.borrow_mut().sizes.add_matrix(rows, columns, storage);
        if self.mode == Mode::Check {
            return Ok(None);
        }
        let weight = match (packing, tensor.encoding) {
            (Some((Affine { group, bits }, scales, biases)), _) => {
                let mut packed = vec![0u32; tensor.bytes as usize / 4];
                self.tensors.read_into(tensor, bytemuck::cast_slice_mut(&mut packed))?;
                let (scales, biases) = (self.floats(&name, scales)?, self.floats(&name, biases)?);
                if !(scales.all_finite() && biases.all_finite()) {
                    return Err(damaged(path, &format!("has scales of {name:?} that are no numbers")));
                }
                WeightData::Affine { rows, columns, group, bits, packed, scales, biases }
            }
            (None, Encoding::Ggml(kind)) if Form::of(kind).is_some() => {
                let block = kind.block_bytes() as usize;
                let fault = |_| damaged(path, &format!("has scales of {name:?} that are no numbers"));
                let mut unpacker = Unpacker::new(kind, tensor.bytes as usize / block).map_err(fault)?;
                self.tensors.read_pieces(tensor, PIECE / block * block, |blocks| {
                    unpacker.push(blocks);
                    Ok(())
                })?;
                unpacker.finish(rows, columns).map_err(fault)?
            }
            _ => WeightData::Dense { shape, values: self.floats(&name, tensor)? },
        };
        let mut state = self.state.borrow_mut();
        state.done += bytes;
        let (done, total) = (state.done, self.tensors.file_bytes());
        (state.progress)(done.min(total), total);
        Ok(Some(weight))
    }

    fn floats(&self, name: &str, tensor: &Tensor) -> Result<Floats> {
        let path = self.tensors.path_of(tensor);
        let dtype = tensor.encoding.float().ok_or_else(|| strange(name, tensor, path))?;
        Ok(Floats { dtype, bytes: self.tensors.read(tensor)? })
    }

    /// Tensors of a GGUF that decoders have too are renamed when the file is opened: to Llama's names, since
    /// no decoder is called as an encoder is.
    fn find(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name).or_else(|| self.tensors.get(&checkpoint_name(name, &names::PLAIN)?))
    }

    fn require(&self, name: &str) -> Result<&Tensor> {
        self.find(name).ok_or_else(|| damaged(self.tensors.main_path(), &format!("has no tensor {name:?}")))
    }

    fn mismatch(&self, name: &str, found: &[usize], expected: &[usize]) -> Error {
        damaged(
            self.tensors.main_path(),
            &format!("has tensor {name:?} of shape {found:?}, the configuration needs {expected:?}"),
        )
    }
}

fn strange(name: &str, tensor: &Tensor, path: &Path) -> Error {
    unsupported(path, &format!("has tensor {name:?} of type {}", tensor.encoding.name())).hint(
        "supported are F32, F16, BF16, MLX's affine quantization, and the types of GGUF that run supports",
    )
}

/// The upper and the lower half of a matrix's rows.
fn halves(weight: WeightData) -> Result<[WeightData; 2]> {
    let split = |values: Floats| {
        let mut upper = values.bytes;
        let lower = upper.split_off(upper.len() / 2);
        let dtype = values.dtype;
        [Floats { dtype, bytes: upper }, Floats { dtype, bytes: lower }]
    };
    match weight {
        WeightData::Dense { shape, values } => {
            let shape = vec![shape[0] / 2, shape[1]];
            Ok(split(values).map(|values| WeightData::Dense { shape: shape.clone(), values }))
        }
        WeightData::Affine { rows, columns, group, bits, packed: mut upper, scales, biases } => {
            let lower = upper.split_off(upper.len() / 2);
            let ([upper_scales, lower_scales], [upper_biases, lower_biases]) = (split(scales), split(biases));
            let half = |packed, scales, biases| WeightData::Affine {
                rows: rows / 2,
                columns,
                group,
                bits,
                packed,
                scales,
                biases,
            };
            Ok([half(upper, upper_scales, upper_biases), half(lower, lower_scales, lower_biases)])
        }
        WeightData::Nested { .. } | WeightData::Codes { .. } => {
            Err(Error::internal("a gate in one matrix of GGUF's blocks"))
        }
    }
}
