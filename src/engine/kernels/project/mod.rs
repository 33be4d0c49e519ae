//! Products with weights: `y = epilogue(norm(x) · Wᵀ + bias)`, several matrices over the same `x` at once.

mod few;
mod job;
mod many;

use std::ffi::CStr;

use mlx_rs::error::Exception;
use mlx_rs::{Array, Dtype};

use super::check;
use super::gemv;
use super::isa::Isa;
use super::norm::{Norm, NormShape};
use super::packed::{Layout, PackedMatrix};
use crate::engine::config::style::Activation;
use crate::engine::ffi::{Buffers, Kernel, Operand, OutputSpec, record};
use job::Job;

const MAX_MATRICES: usize = 3;

/// What happens to the products before they are stored.
#[derive(Debug)]
pub enum Epilogue<'a, X> {
    /// The products of the matrices side by side: `N` is the sum of their rows.
    None,
    /// Products times a factor.
    Scale(f32),
    /// `act(products)`.
    Activate(Activation),
    /// `act(first) * second` of two matrices of the same shape: `N` is the rows of one.
    Gate(Activation),
    /// `residual + factor * products`, with a residual `[L, N]`.
    Residual(&'a X, f32),
}

/// `[L, N]` from `x` `[L, K]` and one to three matrices `[N_i, K]`.
///
/// `norm` first normalises each row of `x`. `bias` `[sum of rows]` is added to the products, in the order
/// of the matrices, before anything else happens to them.
///
/// # Errors
/// Shapes or types that do not fit each other.
pub fn project<X: Operand>(
    x: &X,
    norm: Option<&Norm<'_>>,
    matrices: &[&PackedMatrix],
    bias: Option<&Array>,
    epilogue: Epilogue<'_, X>,
) -> Result<X, Exception> {
    let (tokens, columns) = check::matrix(x, "the input of a projection")?;
    let [first, ..] = matrices else {
        return Err(Exception::custom("a projection by no matrix"));
    };
    if matrices.len() > MAX_MATRICES {
        return Err(Exception::custom(format!("a projection by {} matrices", matrices.len())));
    }
    if let Some(matrix) = matrices.iter().find(|matrix| matrix.columns() != columns) {
        return Err(Exception::custom(format!(
            "a projection of {columns} columns by a matrix of {}",
            matrix.columns()
        )));
    }
    let all_rows: usize = matrices.iter().map(|matrix| matrix.rows()).sum();
    let mut kernel = Project {
        isa: Isa::current(),
        tokens,
        columns,
        width: all_rows,
        count: matrices.len(),
        layouts: [first.layout(); MAX_MATRICES],
        norm: None,
        has_bias: bias.is_some(),
        finish: Finish::Store(None),
        factor: 1.0,
    };
    for (layout, matrix) in kernel.layouts.iter_mut().zip(matrices) {
        *layout = matrix.layout();
    }
    let mut inputs = vec![x.input()];
    inputs.extend(matrices.iter().map(|matrix| matrix.input()));
    if let Some(norm) = norm {
        kernel.norm = Some(norm.prepare(columns, &mut inputs)?);
    }
    if let Some(bias) = bias {
        check::shape(bias, "the bias of a projection", &[all_rows])?;
        inputs.push(bias.input());
    }
    match epilogue {
        Epilogue::None => {}
        Epilogue::Scale(factor) => kernel.factor = factor,
        Epilogue::Activate(activation) => kernel.finish = Finish::Store(Some(activation)),
        Epilogue::Gate(activation) => {
            if matrices.len() != 2 || matrices[1].rows() != first.rows() {
                return Err(Exception::custom("a gate takes two matrices of the same shape"));
            }
            kernel.width = first.rows();
            kernel.finish = Finish::Gate(activation);
        }
        Epilogue::Residual(residual, factor) => {
            check::shape(residual, "the residual of a projection", &[tokens, all_rows])?;
            kernel.finish = Finish::Add;
            kernel.factor = factor;
            inputs.push(residual.input());
        }
    }
    let shape = [check::dimension(tokens)?, check::dimension(kernel.width)?];
    check::single(record(kernel, &inputs, &[OutputSpec::New { shape: &shape, dtype: Dtype::Float32 }])?)
}

impl<X> Clone for Epilogue<'_, X> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<X> Copy for Epilogue<'_, X> {}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Finish {
    Store(Option<Activation>),
    Gate(Activation),
    Add,
}

impl Finish {
    fn is_gate(self) -> bool {
        matches!(self, Self::Gate(_))
    }
}

#[derive(Clone, Copy)]
struct Project {
    isa: Isa,
    tokens: usize,
    columns: usize,
    /// Columns of the result.
    width: usize,
    count: usize,
    /// Of the first `count` matrices.
    layouts: [Layout; MAX_MATRICES],
    norm: Option<NormShape>,
    has_bias: bool,
    finish: Finish,
    /// Of the products, where they are added or stored as they are.
    factor: f32,
}

impl Kernel for Project {
    const NAME: &'static CStr = c"Project";

    fn run(&self, buffers: &Buffers<'_>) {
        let job = Job::new(self, buffers);
        if self.tokens <= gemv::MAX_TOKENS {
            few::run(&job);
        } else {
            many::run(&job);
        }
    }
}
