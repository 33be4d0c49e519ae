//! Products with weights: `y = epilogue(norm(x) · Wᵀ + bias)`, several matrices over the same `x` at once.

use std::ffi::CStr;

use mlx_rs::error::Exception;
use mlx_rs::{Array, Dtype};

use super::check;
use super::packed::{Layout, PackedMatrix, View};
use super::pool;
use crate::engine::ffi::{Buffers, Kernel, OutputSpec, cpu_op};

const MAX_MATRICES: usize = 3;

/// What happens to the products before they are stored.
#[derive(Debug, Clone, Copy)]
pub enum Epilogue<'a> {
    /// The products of the matrices side by side: `N` is the sum of their rows.
    None,
    /// `silu(first) * second` of two matrices of the same shape: `N` is the rows of one.
    SiluGate,
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
    if matrices.is_empty() || matrices.len() > MAX_MATRICES {
        return Err(Exception::custom(format!("a projection by {} matrices", matrices.len())));
    }
    if let Some(matrix) = matrices.iter().find(|matrix| matrix.columns() != columns) {
        return Err(Exception::custom(format!(
            "a projection of {columns} columns by a matrix of {}",
            matrix.columns()
        )));
    }
    let all_rows: usize = matrices.iter().map(|matrix| matrix.rows()).sum();
    let mut width = all_rows;
    let mut kernel = Project {
        tokens,
        columns,
        count: matrices.len(),
        layouts: [matrices[0].layout(); MAX_MATRICES],
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
        Epilogue::SiluGate => {
            if matrices.len() != 2 || matrices[0].rows() != matrices[1].rows() {
                return Err(Exception::custom("a gate takes two matrices of the same shape"));
            }
            width = matrices[0].rows();
            kernel.finish = Finish::Gate;
        }
        Epilogue::Residual(residual) => {
            check::shape(residual, "the residual of a projection", &[tokens, width])?;
            kernel.finish = Finish::Add;
            inputs.push(residual);
        }
    }
    let shape = [check::dimension(tokens)?, check::dimension(width)?];
    check::single(cpu_op(kernel, &inputs, &[OutputSpec::New { shape: &shape, dtype: Dtype::Float32 }])?)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Finish {
    Store,
    Gate,
    Add,
}

#[derive(Clone, Copy)]
struct Project {
    tokens: usize,
    columns: usize,
    count: usize,
    layouts: [Layout; MAX_MATRICES],
    epsilon: Option<f32>,
    has_bias: bool,
    finish: Finish,
}

impl Kernel for Project {
    const NAME: &'static CStr = c"Project";

    fn run(&self, buffers: &Buffers<'_>) {
        let x = buffers.input::<f32>(0);
        let views: Vec<View<'_>> =
            (0..self.count).map(|i| View::new(self.layouts[i], buffers.input::<u8>(1 + i))).collect();
        let mut next = 1 + self.count;
        let mut take = |there: bool| {
            let index = next;
            next += usize::from(there);
            there.then(|| buffers.input::<f32>(index))
        };
        let norm = take(self.epsilon.is_some());
        let bias = take(self.has_bias);
        let residual = take(self.finish == Finish::Add);
        let y = buffers.output::<f32>(0);
        let all: usize = views.iter().map(|view| view.layout.rows).sum();
        let width = if self.finish == Finish::Gate { all / 2 } else { all };
        pool::run(self.tokens, &|token| {
            let mut row = x[token * self.columns..][..self.columns].to_vec();
            if let (Some(norm), Some(epsilon)) = (norm, self.epsilon) {
                let mean = row.iter().map(|v| v * v).sum::<f32>() / self.columns as f32;
                let factor = 1.0 / (mean + epsilon).sqrt();
                row.iter_mut().zip(norm).for_each(|(v, w)| *v *= factor * w);
            }
            let mut products = Vec::with_capacity(all);
            let mut weights = vec![0.0; self.columns];
            for view in &views {
                for index in 0..view.layout.rows {
                    view.read_row(index, &mut weights);
                    products.push(row.iter().zip(&weights).map(|(a, b)| a * b).sum::<f32>());
                }
            }
            if let Some(bias) = bias {
                products.iter_mut().zip(bias).for_each(|(p, b)| *p += b);
            }
            // SAFETY: each row is one worker's, and only written.
            let out = unsafe { y.slice(token * width, width) };
            match self.finish {
                Finish::Store => out.copy_from_slice(&products),
                Finish::Gate => {
                    for (i, out) in out.iter_mut().enumerate() {
                        *out = products[i] / (1.0 + (-products[i]).exp()) * products[width + i];
                    }
                }
                Finish::Add => {
                    let residual = &residual.unwrap_or_default()[token * width..];
                    for (i, out) in out.iter_mut().enumerate() {
                        *out = products[i] + residual[i];
                    }
                }
            }
        });
    }
}
