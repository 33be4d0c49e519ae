//! The parts that language models are made of. Each part has two ways to compute: MLX's own
//! operations (any device), and the fused kernels of the Linux CPU device. A model file does not
//! see the difference.
//!
//! Activations are `[L, K]`: L tokens of one sequence, row-major.

mod attend;
pub mod attention;
pub mod embedding;
pub mod experts;
pub mod matrix;
pub mod mlp;
pub mod norm;
pub mod projection;
pub mod rope;
pub mod sequences;

#[cfg(test)]
pub(crate) use attend::append;

use std::cell::RefCell;

use mlx_rs::{Array, Dtype, ops};

use crate::engine::ffi::array;
use crate::engine::format::checkpoint::Checkpoint;
use crate::engine::format::weight::{Floats, WeightData};
use crate::error::{Code, Error, Result};

/// Which code computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// MLX's own operations.
    Stock,
    /// The fused kernels in MLX's graph, on the Linux CPU device, in float32.
    Kernels,
}

impl Backend {
    /// The fastest backend of this device.
    pub fn of(on_gpu: bool) -> Self {
        if cfg!(target_os = "linux") && !on_gpu { Self::Kernels } else { Self::Stock }
    }
}

/// Reads weights out of a checkpoint into the form that the backend computes with.
pub struct Loader<'a> {
    checkpoint: &'a Checkpoint,
    pub backend: Backend,
    /// Type of activations, norms and dense weights.
    pub dtype: Dtype,
    /// Tokens that generation may not pass.
    pub context: usize,
    progress: RefCell<Progress<'a>>,
}

struct Progress<'a> {
    done: u64,
    report: &'a mut dyn FnMut(u64, u64),
}

impl<'a> Loader<'a> {
    /// `report` gets (done, total) bytes after each weight.
    pub fn new(
        checkpoint: &'a Checkpoint,
        backend: Backend,
        dtype: Dtype,
        context: usize,
        report: &'a mut dyn FnMut(u64, u64),
    ) -> Self {
        Self { checkpoint, backend, dtype, context, progress: RefCell::new(Progress { done: 0, report }) }
    }

    /// The matrix of the module `name`, `[rows, columns]`.
    pub fn matrix(&self, name: &str, rows: usize, columns: usize) -> Result<WeightData> {
        let weight = self.checkpoint.weight(name)?;
        let shape = match &weight {
            WeightData::Dense { shape, .. } => shape.clone(),
            other => other.matrix_shape().map(|(rows, columns)| vec![rows, columns]).unwrap_or_default(),
        };
        if shape != [rows, columns] {
            return Err(self.mismatch(name, &format!("is {shape:?}"), &format!("[{rows}, {columns}]")));
        }
        let mut progress = self.progress.borrow_mut();
        progress.done += weight.bytes() as u64;
        let (done, total) = (progress.done, self.checkpoint.file_bytes());
        (progress.report)(done.min(total), total);
        Ok(weight)
    }

    /// A vector `[size]` such as a norm's weight or a bias, in the compute type.
    pub fn vector(&self, name: &str, size: usize) -> Result<Array> {
        self.shifted_vector(name, size, 0.0)
    }

    /// A vector with a number added to each element.
    pub fn shifted_vector(&self, name: &str, size: usize, plus: f32) -> Result<Array> {
        let mut values = self.checkpoint.vector(name)?;
        if values.len() != size {
            return Err(self.mismatch(name, &format!("has {} elements", values.len()), &size.to_string()));
        }
        for value in &mut values {
            *value += plus;
        }
        Ok(array::from_floats(&Floats::singles(&values), &[size])?.as_dtype(self.dtype)?)
    }

    /// The biases of these modules, one after the other.
    pub fn biases(&self, modules: &[String], sizes: &[usize]) -> Result<Array> {
        let parts = modules
            .iter()
            .zip(sizes)
            .map(|(module, &size)| self.vector(&format!("{module}.bias"), size))
            .collect::<Result<Vec<_>>>()?;
        Ok(ops::concatenate(&parts, 0)?)
    }

    /// Whether the checkpoint has the matrix of this module.
    pub fn has(&self, module: &str) -> bool {
        self.checkpoint.contains(&format!("{module}.weight"))
    }

    fn mismatch(&self, name: &str, found: &str, expected: &str) -> Error {
        let path = self.checkpoint.path().display();
        Error::new(
            Code::IntegrityFailed,
            format!("{path}: the tensor {name} {found} where the configuration says {expected}"),
        )
        .hint("the configuration and the weights do not belong together: fetch the model again")
    }
}
