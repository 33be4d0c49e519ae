//! Linear maps of pooled vectors (`sentence_transformers.models.Dense`) and norms of them.

use std::path::Path;

use serde::Deserialize;

use crate::engine::encoders::Table;
use crate::engine::format::file::{damaged, read_small, unsupported};
use crate::engine::format::layout::Layout;
use crate::engine::format::tensors::{self, Encoding, Tensors};
use crate::engine::format::unpack::Unpacker;
use crate::engine::format::weight::Floats;
use crate::error::{Error, Result};

const MAX_JSON_BYTES: u64 = 1 << 20;
const MAX_WIDTH: usize = 1 << 20;

/// `activation(x Wᵀ + b)`, plus `x` or its own map of it where there is a residual.
#[derive(Debug)]
pub(super) struct Dense {
    weight: Vec<f32>,
    bias: Option<Vec<f32>>,
    columns: usize,
    activation: Activation,
    residual: Residual,
}

#[derive(Debug)]
enum Residual {
    None,
    Itself,
    Mapped(Vec<f32>),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Activation {
    Identity,
    Tanh,
    Relu,
    Sigmoid,
    Silu,
    Gelu,
}

#[derive(Debug, Deserialize)]
struct Config {
    in_features: usize,
    out_features: usize,
    #[serde(default = "yes")]
    bias: bool,
    activation_function: Option<String>,
    module_input_name: Option<String>,
    module_output_name: Option<String>,
    #[serde(default)]
    use_residual: bool,
}

fn yes() -> bool {
    true
}

/// A module's configuration and the headers of its weights.
#[derive(Debug)]
pub(super) struct DenseFiles {
    config: Config,
    activation: Activation,
    tensors: Tensors,
}

impl DenseFiles {
    /// Opens the module in `folder`. Nothing is loaded.
    pub(super) fn open(folder: &Path) -> Result<Self> {
        let path = folder.join("config.json");
        let config: Config = serde_json::from_slice(&read_small(&path, MAX_JSON_BYTES)?)
            .map_err(|error| damaged(&path, &format!("is no dense module: {error}")))?;
        let (rows, columns) = (config.out_features, config.in_features);
        if rows == 0 || columns == 0 || rows > MAX_WIDTH || columns > MAX_WIDTH {
            return Err(damaged(&path, &format!("maps {columns} numbers to {rows}")));
        }
        for name in [&config.module_input_name, &config.module_output_name].into_iter().flatten() {
            if name != "sentence_embedding" {
                return Err(unsupported(&path, &format!("maps {name:?} rather than pooled vectors")));
            }
        }
        // Without a word about it, the module has a hyperbolic tangent.
        let name = config.activation_function.as_deref().unwrap_or("torch.nn.modules.activation.Tanh");
        let activation = match name.rsplit('.').next() {
            Some("Identity") => Activation::Identity,
            Some("Tanh") => Activation::Tanh,
            Some("ReLU") => Activation::Relu,
            Some("Sigmoid") => Activation::Sigmoid,
            Some("SiLU") => Activation::Silu,
            Some("GELU") => Activation::Gelu,
            _ => return Err(unsupported(&path, &format!("needs the activation {name:?}"))),
        };
        let (tensors, _) = tensors::open(&Layout::find(folder)?)?;
        Ok(Self { config, activation, tensors })
    }

    pub(super) fn load(&self) -> Result<Dense> {
        let (rows, columns) = (self.config.out_features, self.config.in_features);
        let tensors = &self.tensors;
        let bias = if self.config.bias { Some(floats(tensors, "linear.bias", &[rows])?) } else { None };
        let residual = match (self.config.use_residual, rows == columns) {
            (false, _) => Residual::None,
            (true, true) => Residual::Itself,
            (true, false) => Residual::Mapped(matrix(tensors, "residual.weight", [rows, columns])?),
        };
        let weight = matrix(tensors, "linear.weight", [rows, columns])?;
        Ok(Dense { weight, bias, columns, activation: self.activation, residual })
    }
}

impl Dense {
    /// The module that a GGUF file has as the tensor of this name, if it has it: llama.cpp's converter keeps
    /// those of EmbeddingGemma, which have neither bias nor activation.
    pub(super) fn of_gguf(tensors: &Tensors, name: &str) -> Result<Option<Self>> {
        let Some(tensor) = tensors.get(&format!("{name}.weight")) else { return Ok(None) };
        let [rows, columns] = tensor.shape[..] else {
            return Err(damaged(tensors.path_of(tensor), &format!("has {name} of shape {:?}", tensor.shape)));
        };
        Ok(Some(Self {
            weight: matrix(tensors, &format!("{name}.weight"), [rows, columns])?,
            bias: None,
            columns,
            activation: Activation::Identity,
            residual: Residual::None,
        }))
    }

    /// Numbers that go in, and that come out.
    pub(super) fn widths(&self) -> (usize, usize) {
        (self.columns, self.weight.len() / self.columns)
    }

    pub(super) fn apply(&self, vector: &[f32]) -> Vec<f32> {
        let mut mapped = product(&self.weight, vector);
        if let Some(bias) = &self.bias {
            add(&mut mapped, bias);
        }
        for value in &mut mapped {
            *value = self.activation.apply(*value);
        }
        match &self.residual {
            Residual::None => {}
            Residual::Itself => add(&mut mapped, vector),
            Residual::Mapped(weight) => add(&mut mapped, &product(weight, vector)),
        }
        mapped
    }
}

impl Activation {
    fn apply(self, x: f32) -> f32 {
        match self {
            Self::Identity => x,
            Self::Tanh => x.tanh(),
            Self::Relu => x.max(0.0),
            Self::Sigmoid => 1.0 / (1.0 + (-x).exp()),
            Self::Silu => x / (1.0 + (-x).exp()),
            Self::Gelu => x * normal(x),
        }
    }
}

/// The normal distribution's function, by the series of its integral (Marsaglia, 2004).
fn normal(x: f32) -> f32 {
    let x = f64::from(x);
    if x.abs() > 8.0 {
        return if x > 0.0 { 1.0 } else { 0.0 };
    }
    let (mut sum, mut term, mut n) = (x, x, 1.0);
    while term.abs() > 1e-16 * sum.abs() && n < 400.0 {
        n += 2.0;
        term *= x * x / n;
        sum += term;
    }
    (0.5 + sum * (-0.5 * x * x).exp() / std::f64::consts::TAU.sqrt()) as f32
}

/// The norm that a `LayerNorm` module makes of pooled vectors.
#[derive(Debug)]
pub(super) struct VectorNorm {
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl VectorNorm {
    pub(super) fn load(folder: &Path, width: usize) -> Result<Self> {
        let (tensors, _) = tensors::open(&Layout::find(folder)?)?;
        Ok(Self {
            weight: floats(&tensors, "norm.weight", &[width])?,
            bias: floats(&tensors, "norm.bias", &[width])?,
        })
    }

    pub(super) fn apply(&self, vector: &mut [f32]) {
        /// The default of `torch.nn.LayerNorm`.
        const EPSILON: f64 = 1e-5;
        let count = vector.len() as f64;
        let mean = vector.iter().map(|&x| f64::from(x)).sum::<f64>() / count;
        let variance = vector.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / count;
        let factor = 1.0 / (variance + EPSILON).sqrt();
        for ((value, weight), bias) in vector.iter_mut().zip(&self.weight).zip(&self.bias) {
            *value = ((f64::from(*value) - mean) * factor) as f32 * weight + bias;
        }
    }
}

/// `weight [rows, columns]` times a vector.
fn product(weight: &[f32], vector: &[f32]) -> Vec<f32> {
    weight.chunks_exact(vector.len()).map(|row| row.iter().zip(vector).map(|(a, b)| a * b).sum()).collect()
}

fn add(sums: &mut [f32], values: &[f32]) {
    sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
}

fn floats(tensors: &Tensors, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
    let tensor = tensors.require(name)?;
    let path = tensors.path_of(tensor);
    if tensor.shape != shape {
        return Err(damaged(path, &format!("has {name} of shape {:?}, expected {shape:?}", tensor.shape)));
    }
    let dtype = tensor
        .encoding
        .float()
        .ok_or_else(|| unsupported(path, &format!("has {name} of type {}", tensor.encoding.name())))?;
    Ok(Floats { dtype, bytes: tensors.read(tensor)? }.to_f32())
}

/// A matrix, which a GGUF may have in blocks.
fn matrix(tensors: &Tensors, name: &str, shape: [usize; 2]) -> Result<Vec<f32>> {
    let tensor = tensors.require(name)?;
    let Encoding::Ggml(kind) = tensor.encoding else { return floats(tensors, name, &shape) };
    if tensor.encoding.float().is_some() {
        return floats(tensors, name, &shape);
    }
    let path = tensors.path_of(tensor);
    let fault = |_| unsupported(path, &format!("has {name} of type {}", kind.name()));
    let mut unpacker =
        Unpacker::new(kind, tensor.bytes as usize / kind.block_bytes() as usize).map_err(fault)?;
    unpacker.push(&tensors.read(tensor)?);
    let [rows, columns] = shape;
    let mut table = Table::packed(unpacker.finish(rows, columns).map_err(fault)?)
        .ok_or_else(|| Error::internal("blocks that are not packed"))?;
    let mut values = vec![0.0; rows * columns];
    for (row, to) in values.chunks_exact_mut(columns.max(1)).enumerate() {
        table.read(row, to)?;
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn activations_are_what_torch_has() {
        for (activation, expected) in [
            (Activation::Identity, [-1.5, 0.5]),
            (Activation::Tanh, [-0.905_148_3, 0.462_117_16]),
            (Activation::Relu, [0.0, 0.5]),
            (Activation::Sigmoid, [0.182_425_52, 0.622_459_35]),
            (Activation::Silu, [-0.273_638_28, 0.311_229_68]),
            (Activation::Gelu, [-0.100_210_8, 0.345_731_23]),
        ] {
            for (x, expected) in [-1.5, 0.5].into_iter().zip(expected) {
                assert!((activation.apply(x) - expected).abs() < 1e-6, "{activation:?} of {x}");
            }
        }
        assert_eq!((Activation::Gelu.apply(20.0), Activation::Gelu.apply(-20.0)), (20.0, 0.0));
    }
}
