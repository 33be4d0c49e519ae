//! A mixture of experts (Shazeer et al., 2017) in place of the feed-forward block.

use mlx_rs::{Array, Dtype, ops};

use super::matrix::{Matrix, select_rows, stack};
use super::mlp::Mlp;
use super::norm::{Norm, onto};
use super::projection::{Projection, activate};
use super::{Backend, Loader};
use crate::engine::config::ModelConfig;
use crate::engine::config::style::{self, Activation};
use crate::engine::format::affine;
use crate::engine::format::weight::WeightData;
#[cfg(target_os = "linux")]
use crate::engine::kernels::{self, PackedMatrix};
use crate::error::{Code, Error, Result};

/// `residual + factor * [norm](experts(norm(x)) [+ shared(norm(x))])`.
#[derive(Debug)]
pub struct Experts {
    norm: Option<Norm>,
    /// Scores of the experts.
    router: Projection,
    weights: Weights,
    sizes: style::Experts,
    activation: Activation,
    shared: Option<Shared>,
    post_norm: Option<Norm>,
    factor: f32,
}

/// Gate, up and down of all experts, one below the other.
#[derive(Debug)]
enum Weights {
    Stock([Matrix; 3]),
    #[cfg(target_os = "linux")]
    Packed([PackedMatrix; 3]),
}

/// An expert that every token goes to, weighted by the sigmoid of a gate.
#[derive(Debug)]
struct Shared {
    mlp: Mlp,
    gate: Projection,
}

impl Experts {
    /// `layer` is the name that the modules begin with.
    pub fn load(
        loader: &Loader,
        config: &ModelConfig,
        sizes: &style::Experts,
        layer: &str,
        norm: Option<Norm>,
        post_norm: Option<Norm>,
    ) -> Result<Self> {
        let names = &config.architecture.names.experts;
        let hidden = config.hidden_size;
        let at = |name: &str| format!("{layer}.{name}");
        let plain = |name: String, rows: usize, columns: usize| {
            Projection::load(loader, &[name], &[rows], columns, None, false)
        };
        let shared = sizes.shared.map(|inner| -> Result<Shared> {
            let part = |part: &str| at(&format!("{}.{part}", names.shared));
            let gate_up = [part("gate_proj"), part("up_proj")];
            let mlp = Mlp {
                gate_up: Projection::load_gated(loader, &gate_up, inner, hidden, None, false)?,
                gated: true,
                activation: config.style.activation,
                down: plain(part("down_proj"), hidden, inner)?,
                post_norm: None,
                factor: 1.0,
            };
            Ok(Shared { mlp, gate: plain(at(names.shared_gate), 1, hidden)? })
        });
        Ok(Self {
            norm,
            router: plain(at(names.router), sizes.count, hidden)?,
            weights: Weights::load(loader, config, sizes, layer)?,
            sizes: *sizes,
            activation: config.style.activation,
            shared: shared.transpose()?,
            post_norm,
            factor: config.residual_scale,
        })
    }

    /// `x [L, hidden]`, added to `residual [L, hidden]`.
    pub fn forward_onto(&self, x: &Array, residual: &Array) -> Result<Array> {
        let normed = match &self.norm {
            Some(norm) => &norm.apply(x)?,
            None => x,
        };
        let scores = self.router.forward(normed)?;
        let mut mixed = match &self.weights {
            Weights::Stock(matrices) => self.mix_stock(normed, &scores, matrices)?,
            #[cfg(target_os = "linux")]
            Weights::Packed([gate, up, down]) => {
                let routing = kernels::Routing {
                    count: self.sizes.count,
                    used: self.sizes.used,
                    normalized: self.sizes.normalized,
                    activation: self.activation,
                };
                kernels::experts(normed, &scores, [gate, up, down], &routing)?
            }
        };
        if let Some(shared) = &self.shared {
            let gate = ops::sigmoid(shared.gate.forward(normed)?)?;
            mixed = ops::add(&mixed, ops::multiply(&gate, shared.mlp.apply(normed)?)?)?;
        }
        match &self.post_norm {
            Some(norm) => norm.forward_onto(&mixed, residual, self.factor),
            None => onto(residual, mixed, self.factor),
        }
    }

    /// `x [L, hidden]`, `scores [L, experts]`.
    fn mix_stock(&self, x: &Array, scores: &Array, [gate, up, down]: &[Matrix; 3]) -> Result<Array> {
        let style::Experts { count, used, normalized, .. } = self.sizes;
        let (count, used) = (count as i32, used as i32);
        let probabilities = ops::softmax_axis(scores.as_dtype(Dtype::Float32)?, -1, true)?;
        // The largest of them, in any order.
        let chosen = if used < count {
            let order = ops::argpartition_axis(ops::negative(&probabilities)?, used - 1, -1)?;
            ops::split_at_indices(&order, &[used], -1)?.swap_remove(0)
        } else {
            ops::argsort_axis(&probabilities, -1)?
        };
        let mut weights = probabilities.take_along_axis(&chosen, -1)?;
        if normalized {
            weights = ops::divide(&weights, weights.sum_axis(-1, true)?)?;
        }
        // [L, 1, 1, hidden] times [experts, hidden, inner] → [L, used, 1, inner]
        let (length, hidden) = (x.dim(0), x.dim(1));
        let each = x.reshape(&[length, 1, 1, hidden])?;
        let gates = gate.gather(&each, &chosen, count)?;
        let inner = ops::multiply(activate(&gates, self.activation)?, up.gather(&each, &chosen, count)?)?;
        let outputs = down.gather(&inner, &chosen, count)?.reshape(&[length, used, hidden])?;
        let weights = weights.as_dtype(outputs.dtype())?.reshape(&[length, used, 1])?;
        Ok(ops::multiply(&outputs, &weights)?.sum_axis(1, false)?)
    }

    /// The arrays to evaluate at load.
    pub fn arrays(&self) -> Vec<&Array> {
        let mut arrays = self.router.arrays();
        arrays.extend(self.norm.iter().chain(&self.post_norm).flat_map(Norm::arrays));
        // Packed weights are computed when they are packed.
        if let Weights::Stock(matrices) = &self.weights {
            arrays.extend(matrices.iter().flat_map(Matrix::arrays));
        }
        if let Some(shared) = &self.shared {
            arrays.extend(shared.mlp.arrays());
            arrays.extend(shared.gate.arrays());
        }
        arrays
    }
}

impl Weights {
    fn load(loader: &Loader, config: &ModelConfig, sizes: &style::Experts, layer: &str) -> Result<Self> {
        let parts = read(loader, config, sizes, layer)?;
        match loader.backend {
            #[cfg(target_os = "linux")]
            Backend::Kernels => {
                if !(sizes.intermediate_size.is_multiple_of(16) && config.hidden_size.is_multiple_of(16)) {
                    return Err(Error::new(
                        Code::ModelUnsupported,
                        format!(
                            "experts of {} by {} elements are not supported on the CPU",
                            sizes.intermediate_size, config.hidden_size
                        ),
                    )
                    .hint("both sizes must be multiples of 16"));
                }
                let [gate, up, down] = &parts;
                Ok(Self::Packed([
                    PackedMatrix::pack(gate)?,
                    PackedMatrix::pack(up)?,
                    PackedMatrix::pack(down)?,
                ]))
            }
            _ => {
                let [gate, up, down] = parts.map(|part| Matrix::new(&affine::for_mlx(part), loader.dtype));
                Ok(Self::Stock([gate?, up?, down?]))
            }
        }
    }
}

/// Gate, up and down of all experts, however the checkpoint lays them out.
fn read(
    loader: &Loader,
    config: &ModelConfig,
    sizes: &style::Experts,
    layer: &str,
) -> Result<[WeightData; 3]> {
    let names = &config.architecture.names.experts;
    let at = |name: &str| format!("{layer}.{name}");
    let (hidden, inner, count) = (config.hidden_size, sizes.intermediate_size, sizes.count);
    let shapes = [(inner, hidden), (inner, hidden), (hidden, inner)];
    if loader.has(&at(names.stacked[0])) {
        let part = |index: usize| {
            let (rows, columns) = shapes[index];
            loader.matrix(&at(names.stacked[index]), count * rows, columns)
        };
        return Ok([part(0)?, part(1)?, part(2)?]);
    }
    if loader.has(&at(names.fused[0])) {
        let both = loader.matrix(&at(names.fused[0]), count * 2 * inner, hidden)?;
        let half = |half: usize| {
            select_rows(
                &both,
                (0..count).map(|expert| {
                    let first = (2 * expert + half) * inner;
                    first..first + inner
                }),
            )
        };
        return Ok([half(0)?, half(1)?, loader.matrix(&at(names.fused[1]), count * hidden, inner)?]);
    }
    let part = |index: usize| -> Result<WeightData> {
        let (rows, columns) = shapes[index];
        let each = |expert| {
            let name = format!("{}.{expert}.{}", names.each, names.parts[index]);
            loader.matrix(&at(&name), rows, columns)
        };
        let mut stacked = stack((0..count).map(each).collect::<Result<Vec<_>>>()?)?;
        match (stacked.pop(), stacked.is_empty()) {
            (Some(one), true) => Ok(one),
            _ => Err(Error::new(
                Code::ModelUnsupported,
                format!("the experts of {layer} are not all stored in the same way"),
            )),
        }
    };
    Ok([part(0)?, part(1)?, part(2)?])
}
