//! One or more linear maps of the same input, with what usually stands around them.

use std::f32::consts::SQRT_2;
use std::iter;

use mlx_rs::ops::indexing::IndexOp;
use mlx_rs::{Array, ops};

use super::Loader;
use super::adapted::{Delta, Linear};
use super::matrix::{Matrix, side_by_side, stack};
use super::norm::{Norm, onto, scaled};
use super::stored::Stored;
use crate::engine::config::style::Activation;
use crate::engine::ffi::Operand;
use crate::engine::format::affine;
#[cfg(target_os = "linux")]
use crate::engine::kernels::{self, PackedMatrix};
use crate::error::{Error, Result};

/// `[norm →] matrices side by side [+ bias]`.
#[derive(Debug)]
pub struct Projection {
    norm: Option<Norm>,
    weights: Weights,
    bias: Option<Array>,
    /// What an adapter adds.
    delta: Option<Box<Delta>>,
}

#[derive(Debug)]
enum Weights {
    Stock(Vec<Matrix>),
    #[cfg(target_os = "linux")]
    Packed(Vec<PackedMatrix>),
}

/// What follows the product.
enum After<'a, X> {
    Nothing,
    Scale(f32),
    Activate(Activation),
    /// Two matrices: `act(first) * second` (Shazeer, 2020).
    Gate(Activation),
    /// Times the factor, added to what came before the block.
    Residual(&'a X, f32),
}

impl Projection {
    /// Loads the modules of these names, which share an input of `columns` and give `rows[i]` each.
    pub fn load(
        loader: &Loader,
        names: &[String],
        rows: &[usize],
        columns: usize,
        norm: Option<Norm>,
        with_bias: bool,
    ) -> Result<Self> {
        let parts = names
            .iter()
            .zip(rows)
            .map(|(name, &rows)| Linear::load(loader, name, rows, columns))
            .collect::<Result<Vec<_>>>()?;
        let bias = with_bias.then(|| loader.biases(names, rows)).transpose()?;
        Self::of(loader, parts, norm, bias)
    }

    /// Of matrices that were found already.
    pub fn of(loader: &Loader, parts: Vec<Linear>, norm: Option<Norm>, bias: Option<Array>) -> Result<Self> {
        let delta = Delta::of(loader, &parts)?.map(Box::new);
        let weights = parts.into_iter().map(|part| part.weight).collect();
        Ok(Self { norm, weights: Weights::new(loader, weights)?, bias, delta })
    }

    /// Loads a gate and what it gates, of `rows` each: two modules, or one with the rows of both.
    pub fn load_gated(
        loader: &Loader,
        names: &[String],
        rows: usize,
        columns: usize,
        norm: Option<Norm>,
        with_bias: bool,
    ) -> Result<Self> {
        let [fused] = names else {
            return Self::load(loader, names, &[rows, rows], columns, norm, with_bias);
        };
        let both = Linear::load(loader, fused, 2 * rows, columns)?;
        let bias = with_bias.then(|| loader.biases(names, &[2 * rows])).transpose()?;
        Self::of(
            loader,
            vec![both.select(iter::once(0..rows))?, both.select(iter::once(rows..2 * rows))?],
            norm,
            bias,
        )
    }

    /// Loads queries, keys and values, `rows` of queries and of the others, and beside them what the gate of
    /// each head's result comes from: `head_dim` rows below the head's queries in the same module.
    pub fn load_with_gate(
        loader: &Loader,
        names: &[String],
        [q, kv]: [usize; 2],
        head_dim: usize,
        columns: usize,
        norm: Option<Norm>,
        with_bias: bool,
    ) -> Result<(Self, Self)> {
        let [query, key, value] = names else {
            return Err(Error::internal("a gate beside queries that are not alone"));
        };
        let whole = Linear::load(loader, query, 2 * q, columns)?;
        let rows = |part: usize| {
            (0..q / head_dim).map(move |head| (2 * head + part) * head_dim..(2 * head + part + 1) * head_dim)
        };
        let parts = vec![
            whole.select(rows(0))?,
            Linear::load(loader, key, kv, columns)?,
            Linear::load(loader, value, kv, columns)?,
        ];
        let mut biases = (None, None);
        if with_bias {
            let both = loader.biases(&names[..1], &[2 * q])?.reshape(&[-1, 2, head_dim as i32])?;
            let part = |part: i32| both.index((.., part, ..)).reshape(&[-1]);
            let others = loader.biases(&names[1..], &[kv, kv])?;
            biases = (Some(ops::concatenate(&[part(0)?, others], 0)?), Some(part(1)?));
        }
        let gate = Self::of(loader, vec![whole.select(rows(1))?], norm.clone(), biases.1)?;
        Ok((Self::of(loader, parts, norm, biases.0)?, gate))
    }

    /// The same matrix as an embedding's table, as a model with tied weights uses it for its head.
    pub fn tied(table: &super::embedding::Embedding, norm: Norm) -> Self {
        Self { norm: Some(norm), weights: table.as_weights(), bias: None, delta: None }
    }

    /// `[L, columns] → [L, sum of rows]`.
    pub fn forward<X: Operand>(&self, x: &X) -> Result<X> {
        self.compute(x, &After::Nothing)
    }

    /// `[L, columns] → [L, sum of rows]`, times a factor.
    pub fn forward_scaled<X: Operand>(&self, x: &X, factor: f32) -> Result<X> {
        self.compute(x, &After::Scale(factor))
    }

    /// `[L, columns] → [L, rows]`: `act(first) * second`, for two matrices of equal size.
    pub fn forward_gated<X: Operand>(&self, x: &X, activation: Activation) -> Result<X> {
        self.compute(x, &After::Gate(activation))
    }

    /// `[L, columns] → [L, rows]`: `act(product)`.
    pub fn forward_activated<X: Operand>(&self, x: &X, activation: Activation) -> Result<X> {
        self.compute(x, &After::Activate(activation))
    }

    /// `[L, columns] → [L, rows]`: `residual + factor * product`.
    pub fn forward_onto<X: Operand>(&self, x: &X, residual: &X, factor: f32) -> Result<X> {
        self.compute(x, &After::Residual(residual, factor))
    }

    /// The arrays to evaluate at load.
    pub fn arrays(&self) -> Vec<&Array> {
        let mut arrays: Vec<&Array> = self.norm.iter().flat_map(Norm::arrays).chain(&self.bias).collect();
        arrays.extend(self.delta.iter().flat_map(|delta| delta.arrays()));
        match &self.weights {
            Weights::Stock(matrices) => arrays.extend(matrices.iter().flat_map(Matrix::arrays)),
            // Computed when they were packed.
            #[cfg(target_os = "linux")]
            Weights::Packed(_) => {}
        }
        arrays
    }

    fn compute<X: Operand>(&self, x: &X, after: &After<X>) -> Result<X> {
        let Some(delta) = &self.delta else { return self.product(x, after) };
        // The kernels apply the norm themselves; MLX's operations want its outcome.
        let normed = match (&self.norm, self.weights.is_stock()) {
            (Some(norm), true) => &X::from(norm.forward(&x.array()?)?),
            _ => x,
        };
        let add = |product: &X, factor: f32| delta.add(normed, self.norm.as_ref(), product, factor);
        match *after {
            After::Nothing => add(&self.product(x, after)?, 1.0),
            After::Scale(factor) | After::Residual(_, factor) => add(&self.product(x, after)?, factor),
            After::Activate(activation) => {
                let product = add(&self.product(x, &After::Nothing)?, 1.0)?;
                Ok(X::from(activate(&product.array()?, activation)?))
            }
            After::Gate(activation) => {
                let product = add(&self.product(x, &After::Nothing)?, 1.0)?;
                Ok(X::from(gated(&product.array()?, activation)?))
            }
        }
    }

    /// The product with the weights, without the adapter.
    fn product<X: Operand>(&self, x: &X, after: &After<X>) -> Result<X> {
        match &self.weights {
            Weights::Stock(matrices) => Ok(X::from(self.compute_stock(&x.array()?, matrices, after)?)),
            #[cfg(target_os = "linux")]
            Weights::Packed(matrices) => {
                let norm = self.norm.as_ref().map(Norm::in_kernels);
                let matrices: Vec<&PackedMatrix> = matrices.iter().collect();
                let epilogue = match *after {
                    After::Nothing => kernels::Epilogue::None,
                    After::Scale(factor) => kernels::Epilogue::Scale(factor),
                    After::Activate(activation) => kernels::Epilogue::Activate(activation),
                    After::Gate(activation) => kernels::Epilogue::Gate(activation),
                    After::Residual(residual, factor) => kernels::Epilogue::Residual(residual, factor),
                };
                Ok(kernels::project(x, norm.as_ref(), &matrices, self.bias.as_ref(), epilogue)?)
            }
        }
    }

    fn compute_stock<X: Operand>(&self, x: &Array, matrices: &[Matrix], after: &After<X>) -> Result<Array> {
        let normed = match &self.norm {
            Some(norm) => &norm.forward(x)?,
            None => x,
        };
        let mut product = side_by_side(matrices, normed)?;
        if let Some(bias) = &self.bias {
            product = ops::add(&product, bias)?;
        }
        match *after {
            After::Nothing => Ok(product),
            After::Scale(factor) => scaled(product, factor),
            After::Residual(residual, factor) => onto(&residual.array()?, product, factor),
            After::Activate(activation) => activate(&product, activation),
            After::Gate(activation) => gated(&product, activation),
        }
    }
}

/// `act(first half) * second half`.
fn gated(product: &Array, activation: Activation) -> Result<Array> {
    let halves = ops::split_equal(product, 2, -1)?;
    let [gate, up] = halves.as_slice() else {
        return Err(Error::internal("a gate that does not split in two"));
    };
    Ok(ops::multiply(activate(gate, activation)?, up)?)
}

/// Plain operations: MLX compiles its own activations at run time on a CPU.
pub fn activate(x: &Array, activation: Activation) -> Result<Array> {
    let number = |value: f32| Array::from_f32(value).as_dtype(x.dtype());
    Ok(match activation {
        Activation::Silu => ops::multiply(x, ops::sigmoid(x)?)?,
        Activation::Relu => ops::maximum(x, number(0.0)?)?,
        Activation::ReluSquared => ops::maximum(x, number(0.0)?)?.square()?,
        Activation::Gelu => {
            let erf = ops::erf(ops::divide(x, number(SQRT_2)?)?)?;
            ops::multiply(ops::multiply(x, number(0.5)?)?, ops::add(erf, number(1.0)?)?)?
        }
        Activation::GeluTanh => {
            // x Φ(x) ≈ x sigmoid(2 √(2/π) (x + 0.044715 x³)).
            let cubic =
                ops::add(ops::multiply(ops::multiply(x, x)?, number(0.071_354_82)?)?, number(1.595_769)?)?;
            ops::multiply(x, ops::sigmoid(ops::multiply(x, cubic)?)?)?
        }
    })
}

impl Weights {
    fn is_stock(&self) -> bool {
        matches!(self, Self::Stock(_))
    }

    fn new(loader: &Loader, weights: Vec<Stored>) -> Result<Self> {
        match loader.backend {
            #[cfg(target_os = "linux")]
            super::Backend::Kernels => {
                Ok(Self::Packed(weights.iter().map(|one| one.pack(loader, 1)).collect::<Result<Vec<_>>>()?))
            }
            _ => {
                let read = |one: Stored| Ok(affine::for_mlx(one.read(loader)?));
                let read = weights.into_iter().map(read).collect::<Result<Vec<_>>>()?;
                let matrices = stack(read)?;
                let matrices = matrices.iter().map(|one| Matrix::new(one, loader.dtype));
                Ok(Self::Stock(matrices.collect::<Result<Vec<_>>>()?))
            }
        }
    }
}

impl super::embedding::Embedding {
    fn as_weights(&self) -> Weights {
        match self {
            Self::Stock(matrix) => Weights::Stock(vec![matrix.clone()]),
            #[cfg(target_os = "linux")]
            Self::Packed(matrix) => Weights::Packed(vec![matrix.clone()]),
        }
    }
}
