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
use super::packed::{Layout, PackedMatrix};
use crate::engine::activation::Activation;
use crate::engine::ffi::{Buffers, Kernel, OutputSpec, cpu_op};
use job::Job;

const MAX_MATRICES: usize = 3;

/// What happens to the products before they are stored.
#[derive(Debug, Clone, Copy)]
pub enum Epilogue<'a> {
    /// The products of the matrices side by side: `N` is the sum of their rows.
    None,
    /// `silu(first) * second` of two matrices of the same shape: `N` is the rows of one.
    SiluGate,
    /// `activation(first) * second` of two matrices of the same shape.
    Gate(Activation),
    /// The activation of the products.
    Activate(Activation),
    /// The products added to this array `[L, N]`.
    Residual(&'a Array),
}

/// `[L, N]` from `x` `[L, K]` and one to three matrices `[N_i, K]`.
///
/// `norm` first normalises each row of `x` by its root mean square and multiplies it by the weight `[K]`
/// (Zhang and Sennrich, arXiv:1910.07467), with this epsilon. `bias` `[sum of rows]` is added to the
/// products, in the order of the matrices.
///
/// # Errors
/// Shapes or types that do not fit each other.
pub fn project(
    x: &Array,
    norm: Option<(&Array, f32)>,
    matrices: &[&PackedMatrix],
    bias: Option<&Array>,
    epilogue: Epilogue<'_>,
) -> Result<Array, Exception> {
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
        epsilon: None,
        has_bias: bias.is_some(),
        finish: Finish::Store,
    };
    for (layout, matrix) in kernel.layouts.iter_mut().zip(matrices) {
        *layout = matrix.layout();
    }
    let mut inputs = vec![x];
    inputs.extend(matrices.iter().map(|matrix| matrix.array()));
    if let Some((weight, epsilon)) = norm {
        check::shape(weight, "the weight of a norm", &[columns])?;
        kernel.epsilon = Some(epsilon);
        inputs.push(weight);
    }
    if let Some(bias) = bias {
        check::shape(bias, "the bias of a projection", &[all_rows])?;
        inputs.push(bias);
    }
    match epilogue {
        Epilogue::None => {}
        Epilogue::Activate(activation) => kernel.finish = Finish::Activate(activation),
        Epilogue::SiluGate => kernel.gate(matrices, Activation::Silu)?,
        Epilogue::Gate(activation) => kernel.gate(matrices, activation)?,
        Epilogue::Residual(residual) => {
            check::shape(residual, "the residual of a projection", &[tokens, all_rows])?;
            kernel.finish = Finish::Add;
            inputs.push(residual);
        }
    }
    let shape = [check::dimension(tokens)?, check::dimension(kernel.width)?];
    check::single(cpu_op(kernel, &inputs, &[OutputSpec::New { shape: &shape, dtype: Dtype::Float32 }])?)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Finish {
    Store,
    Activate(Activation),
    Gate(Activation),
    Add,
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
    epsilon: Option<f32>,
    has_bias: bool,
    finish: Finish,
}

impl Project {
    fn gate(&mut self, matrices: &[&PackedMatrix], activation: Activation) -> Result<(), Exception> {
        match matrices {
            [first, second] if first.rows() == second.rows() => {
                self.width = first.rows();
                self.finish = Finish::Gate(activation);
                Ok(())
            }
            _ => Err(Exception::custom("a gate takes two matrices of the same shape")),
        }
    }
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
