//! The parts that language models are made of. Each part has two ways to compute: MLX's own
//! operations (any device), and the fused kernels of the Linux CPU device. A model file does not
//! see the difference.
//!
//! Activations are `[L, K]`: L tokens, row-major, of one sequence or of several, one below the other.

pub mod adapted;
pub mod ahead;
mod attend;
pub mod attention;
mod chunks;
pub mod conv;
pub mod delta_net;
mod delta_rule;
pub mod embedding;
pub mod experts;
pub mod latent;
pub mod layer_inputs;
pub mod mamba;
pub mod matrix;
pub mod mlp;
pub mod norm;
pub mod projection;
pub mod rope;
mod scan;
pub mod sequences;
pub mod short_conv;
pub mod step;
pub mod stored;

#[cfg(test)]
pub(crate) use attend::append;

use std::cell::RefCell;
use std::collections::BTreeSet;

use mlx_rs::{Array, Dtype, ops};

use crate::engine::ffi::array;
use crate::engine::format::adapter::{Adapter, LowRank};
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
    /// What is added to the weights, and the modules that have asked for it.
    adapter: Option<&'a Adapter>,
    adapted: RefCell<BTreeSet<String>>,
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
        let progress = RefCell::new(Progress { done: 0, report });
        Self { checkpoint, backend, dtype, context, progress, adapter: None, adapted: RefCell::default() }
    }

    /// With an adapter to the weights.
    #[must_use]
    pub fn with_adapter(self, adapter: Option<&'a Adapter>) -> Self {
        Self { adapter, ..self }
    }

    /// What the adapter adds to the module `name`, `[rows, columns]`.
    pub fn low_rank(&self, name: &str, rows: usize, columns: usize) -> Result<Option<LowRank>> {
        let Some(adapter) = self.adapter else { return Ok(None) };
        let Some(mut part) = adapter.of(name, rows, columns)? else { return Ok(None) };
        self.adapted.borrow_mut().insert(name.to_owned());
        let config = &self.checkpoint.config;
        let is_rotated = name.ends_with(".q_proj") || name.ends_with(".k_proj");
        // Adapters have the rows of Hugging Face checkpoints; a GGUF with neighbouring pairs has them
        // in another order.
        if is_rotated
            && self.checkpoint.metadata().is_some()
            && config.rope.traditional
            && !config.style.interleaved
        {
            part.b = neighbours(&part.b, part.rank, config.head_dim);
        }
        Ok(Some(part))
    }

    /// What the adapter adds to the matrices `[rows, columns]` of so many experts: in a module of all, or in
    /// modules of their own. Their a lie one below the other, `[count * rank, columns]`, and their b.
    pub fn low_ranks(
        &self,
        all: &str,
        each: impl Fn(usize) -> String,
        count: usize,
        [rows, columns]: [usize; 2],
    ) -> Result<Option<LowRank>> {
        let Some(adapter) = self.adapter else { return Ok(None) };
        if let Some(part) = adapter.of_experts(all, count, rows, columns)? {
            self.adapted.borrow_mut().insert(all.to_owned());
            return Ok(Some(part));
        }
        let parts = (0..count).map(|expert| self.low_rank(&each(expert), rows, columns));
        let parts = parts.collect::<Result<Vec<_>>>()?;
        let rank = parts.iter().flatten().map(|part| part.rank).max().unwrap_or(0);
        if rank == 0 {
            return Ok(None);
        }
        let (mut a, mut b) = (Vec::new(), Vec::new());
        for part in &parts {
            let (own, part_a, part_b) =
                part.as_ref().map_or((0, &[][..], &[][..]), |part| (part.rank, &part.a[..], &part.b[..]));
            a.extend_from_slice(part_a);
            a.resize(a.len() + (rank - own) * columns, 0.0);
            for row in 0..rows {
                b.extend_from_slice(&part_b[row * own..(row + 1) * own]);
                b.resize(b.len() + rank - own, 0.0);
            }
        }
        Ok(Some(LowRank { rank, a, b }))
    }

    /// An error unless the model has taken over all of the adapter.
    pub fn check_adapted(&self) -> Result<()> {
        self.adapter.map_or(Ok(()), |adapter| adapter.check_used(&self.adapted.borrow()))
    }

    /// Tells of so many more bytes that are loaded.
    fn report(&self, bytes: u64) {
        let mut progress = self.progress.borrow_mut();
        progress.done += bytes;
        let (done, total) = (progress.done, self.checkpoint.file_bytes());
        (progress.report)(done.min(total), total);
    }

    /// Packs a matrix that was made of the module `name`, if its weights are packed while they are loaded.
    pub fn packed(&self, name: &str, weight: WeightData) -> Result<WeightData> {
        self.checkpoint.packed_late(name, weight)
    }

    /// A vector `[size]` such as a norm's weight or a bias, in the compute type.
    pub fn vector(&self, name: &str, size: usize) -> Result<Array> {
        self.shifted_vector(name, size, 0.0)
    }

    /// A vector with a number added to each element.
    pub fn shifted_vector(&self, name: &str, size: usize, plus: f32) -> Result<Array> {
        let mut values = self.values(name, size)?;
        for value in &mut values {
            *value += plus;
        }
        Ok(array::from_floats(&Floats::singles(&values), &[size])?.as_dtype(self.dtype)?)
    }

    /// A small tensor of so many elements, flat, in float32 whatever the compute type.
    pub fn floats(&self, name: &str, size: usize) -> Result<Array> {
        array::from_floats(&Floats::singles(&self.values(name, size)?), &[size])
    }

    /// The decays of a recurrent layer's heads, `-exp(A_log)` float32, which GGUF files have as such.
    pub fn decay(&self, name: &str, heads: usize) -> Result<Array> {
        let stored = self.floats(name, heads)?;
        if self.checkpoint.metadata().is_some() {
            return Ok(stored);
        }
        Ok(ops::negative(stored.exp()?)?)
    }

    fn values(&self, name: &str, size: usize) -> Result<Vec<f32>> {
        let values = self.checkpoint.vector(name)?;
        if values.len() != size {
            return Err(self.mismatch(name, &format!("has {} elements", values.len()), &size.to_string()));
        }
        Ok(values)
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

/// Rows of heads whose rotated pairs are half a head apart, in the order where they are neighbours.
fn neighbours(values: &[f32], columns: usize, head_dim: usize) -> Vec<f32> {
    let rows = values.len() / columns.max(1);
    (0..rows)
        .flat_map(|row| {
            let (head, within) = (row / head_dim, row % head_dim);
            let from = head * head_dim + within % 2 * (head_dim / 2) + within / 2;
            values[from * columns..][..columns].iter().copied()
        })
        .collect()
}
