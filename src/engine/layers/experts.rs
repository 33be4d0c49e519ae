//! A mixture of experts (Shazeer et al., 2017) in place of the feed-forward block.

use std::ops::Range;

use mlx_rs::{Array, Dtype, ops};

use super::Loader;
use super::adapted::ExpertDelta;
use super::matrix::{Matrix, transposed};
use super::mlp::Mlp;
use super::norm::{Norm, onto, scaled};
use super::projection::{Projection, activate};
use super::stored::Stored;
use crate::engine::config::ModelConfig;
use crate::engine::config::style::{self, Gating, Groups, Routing, Scoring};
use crate::engine::ffi::Operand;
use crate::engine::format::affine;
#[cfg(target_os = "linux")]
use crate::engine::kernels::{self, PackedMatrix};
use crate::engine::models::names::ExpertNames;
use crate::error::{Error, Result};

/// `residual + factor * [norm](experts(norm(x)) [+ shared(norm(x))])`.
#[derive(Debug)]
pub struct Experts {
    norm: Option<Norm>,
    /// Scores of the experts.
    router: Projection,
    /// Whether the scores come from what the norm has not seen.
    scores_apart: bool,
    /// What is added to the scores to choose by, `[experts]` float32.
    correction: Option<Array>,
    /// Factors of the experts, `[experts]` float32.
    factors: Option<Array>,
    weights: Weights,
    routing: Routing,
    gating: Gating,
    shared: Option<Shared>,
    /// Into what the experts see, and back.
    squeeze: Option<[Projection; 2]>,
    post_norm: Option<Norm>,
    factor: f32,
}

/// Gate, up and down of all experts, one below the other; up again where there is no gate.
#[derive(Debug)]
enum Weights {
    /// Biases are `[experts, rows of one]`.
    Stock { matrices: [Matrix; 3], deltas: Box<[Option<ExpertDelta>; 3]>, biases: Option<[Array; 3]> },
    /// All biases in one. `inner` is how many rows gate and up have for an expert.
    #[cfg(target_os = "linux")]
    Packed { matrices: [PackedMatrix; 3], biases: Option<Array>, inner: usize },
}

/// An expert that every token goes to, which the sigmoid of a gate may weigh.
#[derive(Debug)]
struct Shared {
    mlp: Mlp,
    gate: Option<Projection>,
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
        let (hidden, count) = (config.hidden_size, sizes.routing.count);
        let at = |name: &str| format!("{layer}.{name}");
        let plain = |name: String, rows: usize, columns: usize, bias: bool| {
            Projection::load(loader, &[name], &[rows], columns, None, bias)
        };
        let shared = sizes.shared.map(|shared| -> Result<Shared> {
            let inner = shared.intermediate_size;
            let [gate, up, down] = names.shared;
            let split = names.split_shared.filter(|[gate, _]| loader.has(&at(gate)));
            let gate_up = split.unwrap_or([gate, up]);
            let gate_up: Vec<String> = gate_up.iter().filter(|it| !it.is_empty()).map(|it| at(it)).collect();
            let gated = config.style.gated;
            let mlp = Mlp {
                gate_up: if gated {
                    Projection::load_gated(loader, &gate_up, inner, hidden, None, false)?
                } else {
                    Projection::load(loader, &gate_up, &[inner], hidden, None, false)?
                },
                gated,
                activation: config.style.activation,
                down: plain(at(down), hidden, inner, false)?,
                post_norm: None,
                factor: 1.0,
            };
            let gate = shared.gated.then(|| plain(at(names.shared_gate), 1, hidden, false)).transpose()?;
            Ok(Shared { mlp, gate })
        });
        let router_norm = sizes.beside.then(|| -> Result<Norm> {
            let weights = loader.vector(&at(names.router_norm), hidden)?;
            let weights = scaled(weights, (hidden as f32).sqrt().recip())?;
            Ok(Norm::rms(weights, config.norm_eps, loader.backend))
        });
        let router = Projection::load(
            loader,
            &[at(names.router)],
            &[count],
            hidden,
            router_norm.transpose()?,
            sizes.bias,
        )?;
        let factors = sizes.beside.then(|| loader.floats(&at(names.factors), count));
        let correction = sizes.routing.corrected.then(|| -> Result<Array> {
            Ok(loader.vector(&at(names.correction), count)?.as_dtype(Dtype::Float32)?)
        });
        Ok(Self {
            norm,
            router,
            scores_apart: sizes.beside,
            correction: correction.transpose()?,
            factors: factors.transpose()?,
            weights: Weights::load(loader, config, sizes, layer)?,
            routing: sizes.routing,
            gating: match sizes.gating {
                Some(gating) => gating,
                None if config.style.gated => Gating::Plain(config.style.activation),
                None => Gating::Alone(config.style.activation),
            },
            squeeze: match sizes.squeezed {
                Some(size) => {
                    let [into, back] = names.squeeze.map(at);
                    Some([plain(into, size, hidden, false)?, plain(back, hidden, size, false)?])
                }
                None => None,
            },
            shared: shared.transpose()?,
            post_norm,
            factor: config.residual_scale,
        })
    }

    /// `x [L, hidden]`, added to `residual [L, hidden]`.
    pub fn forward_onto<X: Operand>(&self, x: &X, residual: &X) -> Result<X> {
        let normed = match &self.norm {
            Some(norm) => &norm.apply(x)?,
            None => x,
        };
        let scores = self.router.forward(if self.scores_apart { x } else { normed })?;
        let seen = match &self.squeeze {
            Some([into, _]) => &into.forward(normed)?,
            None => normed,
        };
        let mut mixed = match &self.weights {
            Weights::Stock { matrices, deltas, biases } => X::from(self.mix_stock(
                &seen.array()?,
                &scores.array()?,
                (matrices, deltas),
                biases.as_ref(),
            )?),
            #[cfg(target_os = "linux")]
            Weights::Packed { matrices, biases, inner } => {
                let kind = kernels::Experts {
                    routing: self.routing,
                    gating: self.gating,
                    intermediate_size: *inner,
                };
                let vectors = kernels::ExpertVectors {
                    correction: self.correction.as_ref(),
                    factors: self.factors.as_ref(),
                    biases: biases.as_ref(),
                };
                kernels::experts(seen, &scores, matrices.each_ref(), &vectors, &kind)?
            }
        };
        if let Some([_, back]) = &self.squeeze {
            mixed = back.forward(&mixed)?;
        }
        let shared = match &self.shared {
            Some(shared) => {
                let gate = shared.gate.as_ref().map(|gate| gate.forward(normed)).transpose()?;
                Some((shared.mlp.apply(normed)?, gate))
            }
            None => None,
        };
        if let Some(norm) = &self.post_norm {
            if let Some(shared) = shared {
                mixed = self.sum(&mixed, Some(shared), None)?;
            }
            return norm.forward_onto(&mixed, residual, self.factor);
        }
        self.sum(&mixed, shared, Some(residual))
    }

    /// `[residual + factor *] (mixed + [[sigmoid(gate) *] shared])`.
    fn sum<X: Operand>(&self, mixed: &X, shared: Option<(X, Option<X>)>, residual: Option<&X>) -> Result<X> {
        #[cfg(target_os = "linux")]
        if matches!(self.weights, Weights::Packed { .. }) {
            let other = shared.as_ref().map(|(values, gate)| kernels::Other { values, gate: gate.as_ref() });
            return Ok(kernels::sum_onto(
                mixed,
                other.as_ref(),
                residual.map(|residual| (residual, self.factor)),
            )?);
        }
        let mut sum = mixed.array()?;
        if let Some((values, gate)) = shared {
            let mut values = values.array()?;
            if let Some(gate) = gate {
                values = ops::multiply(&ops::sigmoid(gate.array()?)?, values)?;
            }
            sum = ops::add(sum, values)?;
        }
        Ok(X::from(match residual {
            Some(residual) => onto(&residual.array()?, sum, self.factor)?,
            None => sum,
        }))
    }

    /// `x [L, hidden]`, `scores [L, experts]`.
    fn mix_stock(
        &self,
        x: &Array,
        scores: &Array,
        ([gate, up, down], deltas): (&[Matrix; 3], &[Option<ExpertDelta>; 3]),
        biases: Option<&[Array; 3]>,
    ) -> Result<Array> {
        let (count, used) = (self.routing.count as i32, self.routing.used as i32);
        let (chosen, mut weights) = route(&self.routing, scores, self.correction.as_ref())?;
        if let Some(factors) = &self.factors {
            weights = ops::multiply(&weights, factors.take_axis(&chosen, 0)?)?;
        }
        // [L, 1, 1, hidden] times [experts, hidden, inner] → [L, used, 1, inner]
        let (length, hidden) = (x.dim(0), x.dim(1));
        let each = x.reshape(&[length, 1, 1, hidden])?;
        let product = |matrix: &Matrix, x: &Array, index: usize| -> Result<Array> {
            let mut product = matrix.gather(x, &chosen, count)?;
            if let Some(delta) = &deltas[index] {
                product = ops::add(&product, delta.gather(x, &chosen, count)?)?;
            }
            let Some(biases) = biases else { return Ok(product) };
            Ok(ops::add(&product, biases[index].take_axis(&chosen, 0)?.expand_dims(-2)?)?)
        };
        let up = product(up, &each, 1)?;
        let inner = match self.gating {
            Gating::Alone(activation) => activate(&up, activation)?,
            gating => gated(gating, &product(gate, &each, 0)?, &up)?,
        };
        let outputs = product(down, &inner, 2)?.reshape(&[length, used, hidden])?;
        let weights = weights.as_dtype(outputs.dtype())?.reshape(&[length, used, 1])?;
        Ok(ops::multiply(&outputs, &weights)?.sum_axis(1, false)?)
    }

    /// The arrays to evaluate at load.
    pub fn arrays(&self) -> Vec<&Array> {
        let mut arrays = self.router.arrays();
        arrays.extend(self.correction.iter().chain(&self.factors));
        arrays.extend(self.norm.iter().chain(&self.post_norm).flat_map(Norm::arrays));
        // Packed weights are computed when they are packed.
        match &self.weights {
            Weights::Stock { matrices, deltas, biases } => {
                arrays.extend(matrices.iter().flat_map(Matrix::arrays));
                arrays.extend(deltas.iter().flatten().flat_map(ExpertDelta::arrays));
                arrays.extend(biases.iter().flatten());
            }
            #[cfg(target_os = "linux")]
            Weights::Packed { biases, .. } => arrays.extend(biases),
        }
        arrays.extend(self.squeeze.iter().flatten().flat_map(Projection::arrays));
        if let Some(shared) = &self.shared {
            arrays.extend(shared.mlp.arrays());
            arrays.extend(shared.gate.iter().flat_map(Projection::arrays));
        }
        arrays
    }
}

/// The experts of each token and their weights, both `[L, used]`, from scores `[L, experts]`.
fn route(routing: &Routing, scores: &Array, correction: Option<&Array>) -> Result<(Array, Array)> {
    let (count, used) = (routing.count as i32, routing.used as i32);
    let scores = scores.as_dtype(Dtype::Float32)?;
    let weights = match routing.scoring {
        Scoring::Softmax => ops::softmax_axis(&scores, -1, true)?,
        Scoring::Sigmoid => ops::sigmoid(&scores)?,
    };
    let mut ranks = match correction {
        Some(correction) => ops::add(&weights, correction)?,
        None => weights.clone(),
    };
    if let Some(groups) = routing.groups {
        ranks = leave_groups(groups, &ranks)?;
    }
    // The largest of them, in any order.
    let chosen = if used < count {
        let order = ops::argpartition_axis(ops::negative(&ranks)?, used - 1, -1)?;
        ops::split_at_indices(&order, &[used], -1)?.swap_remove(0)
    } else {
        ops::argsort_axis(&ranks, -1)?
    };
    let mut weights = weights.take_along_axis(&chosen, -1)?;
    if routing.normalized {
        let total = ops::add(weights.sum_axis(-1, true)?, Array::from_f32(LEAST_TOTAL))?;
        weights = ops::divide(&weights, &total)?;
    }
    Ok((chosen, scaled(weights, routing.scale)?))
}

/// Keeps weights that all vanished from being divided by zero, as the models' own code does.
const LEAST_TOTAL: f32 = 1e-20;

/// Ranks `[L, experts]` with those of all but the best groups behind every other.
fn leave_groups(groups: Groups, ranks: &Array) -> Result<Array> {
    let (length, count) = (ranks.dim(0), ranks.dim(1));
    let (all, used, judged) = (groups.count as i32, groups.used as i32, groups.judged_by as i32);
    let each = count / all;
    let grouped = ranks.reshape(&[length, all, each])?;
    let best = ops::sort_axis(&grouped, -1)?;
    let best = ops::split_at_indices(&best, &[each - judged], -1)?.swap_remove(1);
    // The place of each group among all: the order of the order.
    let order = ops::argsort_axis(ops::negative(best.sum_axis(-1, false)?)?, -1)?;
    let place = ops::argsort_axis(&order, -1)?;
    let stays = ops::lt(place.as_dtype(Dtype::Int32)?, Array::from_int(used))?.expand_dims(-1)?;
    let behind = Array::from_f32(f32::NEG_INFINITY);
    Ok(ops::select(&stays, &grouped, &behind)?.reshape(&[length, count])?)
}

fn gated(gating: Gating, gate: &Array, up: &Array) -> Result<Array> {
    match gating {
        Gating::Plain(activation) => Ok(ops::multiply(activate(gate, activation)?, up)?),
        Gating::Alone(activation) => activate(up, activation),
        Gating::Clamped { alpha, limit } => {
            let number = |value: f32| Array::from_f32(value).as_dtype(gate.dtype());
            let gate = ops::minimum(gate, number(limit)?)?;
            let up = ops::maximum(ops::minimum(up, number(limit)?)?, number(-limit)?)?;
            let gate = ops::multiply(&gate, ops::sigmoid(ops::multiply(&gate, number(alpha)?)?)?)?;
            Ok(ops::multiply(&gate, ops::add(&up, number(1.0)?)?)?)
        }
    }
}

impl Weights {
    fn load(loader: &Loader, config: &ModelConfig, sizes: &style::Experts, layer: &str) -> Result<Self> {
        let (gate, up, down) = read(loader, config, sizes, layer)?;
        let biases = sizes.bias.then(|| biases(loader, config, sizes, layer)).transpose()?;
        let deltas = Box::new(deltas(loader, config, sizes, layer)?);
        match loader.backend {
            // The kernels compute all of the experts at once and have no place for what is added in between.
            #[cfg(target_os = "linux")]
            super::Backend::Kernels if deltas.iter().all(Option::is_none) => {
                let pack = |part: &Stored| part.pack(loader, sizes.routing.count);
                let flat = |biases: [Array; 3]| -> Result<Array> {
                    let [gate, up, down] = biases.map(|bias| bias.reshape(&[-1]));
                    Ok(ops::concatenate(&[gate?, up?, down?], 0)?)
                };
                let biases = biases.map(flat).transpose()?;
                let (up, down) = (pack(&up)?, pack(&down)?);
                let gate = gate.as_ref().map_or_else(|| Ok(up.clone()), pack)?;
                Ok(Self::Packed { matrices: [gate, up, down], biases, inner: sizes.intermediate_size })
            }
            _ => {
                let matrix = |part: Stored| Matrix::new(&affine::for_mlx(part.read(loader)?), loader.dtype);
                let (up, down) = (matrix(up)?, matrix(down)?);
                let gate = gate.map_or_else(|| Ok(up.clone()), matrix)?;
                Ok(Self::Stock { matrices: [gate, up, down], deltas, biases })
            }
        }
    }
}

/// Gate, where there is one, up and down of all experts, however the checkpoint lays them out.
fn read<'a>(
    loader: &Loader<'a>,
    config: &ModelConfig,
    sizes: &style::Experts,
    layer: &str,
) -> Result<(Option<Stored<'a>>, Stored<'a>, Stored<'a>)> {
    let names = &config.architecture.names.experts;
    let at = |name: &str| format!("{layer}.{name}");
    let hidden = sizes.squeezed.unwrap_or(config.hidden_size);
    let (inner, count, gated) = (sizes.intermediate_size, sizes.routing.count, config.style.gated);
    let shapes = [(inner, hidden), (inner, hidden), (hidden, inner)];
    if loader.has(&at(names.stacked[1])) {
        let part = |index: usize| {
            let (rows, columns) = shapes[index];
            loader.stored(&at(names.stacked[index]), count * rows, columns)
        };
        return Ok((gated.then(|| part(0)).transpose()?, part(1)?, part(2)?));
    }
    if loader.has(&at(names.fused[0])) && !sizes.turned {
        let both = loader.stored(&at(names.fused[0]), count * 2 * inner, hidden)?;
        let half = |half: usize| both.select(halves(names, count, inner, half));
        // GGUF files fuse gate and up only.
        let down = if loader.has(&at(names.fused[1])) { names.fused[1] } else { names.stacked[2] };
        return Ok((Some(half(0)?), half(1)?, loader.stored(&at(down), count * hidden, inner)?));
    }
    if let Some([gate_up, down]) = names.transposed
        && loader.has(&at(gate_up))
    {
        let turned = |name: &str, rows: usize, columns: usize| -> Result<Stored<'a>> {
            let name = at(name);
            let turned = transposed(&loader.matrix(&name, rows, columns)?, count)?;
            Ok(Stored::made(loader.packed(&name, turned)?))
        };
        let both = turned(gate_up, count * hidden, 2 * inner)?;
        let half = |half: usize| both.select(halves(names, count, inner, half));
        return Ok((Some(half(0)?), half(1)?, turned(down, count * inner, hidden)?));
    }
    let part = |index: usize| {
        let (rows, columns) = shapes[index];
        let each = |expert| {
            let name = format!("{}.{expert}.{}", names.each, names.parts[index]);
            loader.stored(&at(&name), rows, columns)
        };
        Stored::stacked((0..count).map(each).collect::<Result<Vec<_>>>()?)
            .map_err(|error| error.context(format!("the experts of {layer}")))
    };
    Ok((gated.then(|| part(0)).transpose()?, part(1)?, part(2)?))
}

/// What an adapter adds to gate, up and down.
fn deltas(
    loader: &Loader,
    config: &ModelConfig,
    sizes: &style::Experts,
    layer: &str,
) -> Result<[Option<ExpertDelta>; 3]> {
    let names = &config.architecture.names.experts;
    let hidden = sizes.squeezed.unwrap_or(config.hidden_size);
    let (inner, count) = (sizes.intermediate_size, sizes.routing.count);
    let part = |index: usize, shape: [usize; 2]| -> Result<Option<ExpertDelta>> {
        let at = |name: &str| format!("{layer}.{name}");
        let each = |expert: usize| at(&format!("{}.{expert}.{}", names.each, names.parts[index]));
        let added = loader.low_ranks(&at(names.stacked[index]), each, count, shape)?;
        added.map(|added| ExpertDelta::new(loader, &added, shape[1])).transpose()
    };
    let gate = if config.style.gated { part(0, [inner, hidden])? } else { None };
    Ok([gate, part(1, [inner, hidden])?, part(2, [hidden, inner])?])
}

/// The rows of all gates (half 0) or ups (half 1) in a matrix that holds both of each expert.
fn halves(names: &ExpertNames, count: usize, inner: usize, half: usize) -> Vec<Range<usize>> {
    if names.interleaved {
        return (0..count * inner).map(|row| 2 * row + half..2 * row + half + 1).collect();
    }
    let first = |expert: usize| (2 * expert + half) * inner;
    (0..count).map(|expert| first(expert)..first(expert) + inner).collect()
}

/// Biases of gate, up and down, `[experts, rows of one]`.
fn biases(loader: &Loader, config: &ModelConfig, sizes: &style::Experts, layer: &str) -> Result<[Array; 3]> {
    let names = &config.architecture.names.experts;
    let at = |name: &str| format!("{layer}.{name}");
    let (hidden, inner, count) = (config.hidden_size, sizes.intermediate_size, sizes.routing.count);
    let shaped = |array: Array| -> Result<Array> { Ok(array.reshape(&[count as i32, -1])?) };
    if loader.has(&at(names.stacked[0])) {
        let part = |index: usize, rows: usize| {
            shaped(loader.vector(&at(&format!("{}.bias", names.stacked[index])), count * rows)?)
        };
        return Ok([part(0, inner)?, part(1, inner)?, part(2, hidden)?]);
    }
    let both = loader.vector(&at(names.fused_bias[0]), count * 2 * inner)?;
    let parts = if names.interleaved {
        ops::split_equal(both.reshape(&[count as i32, inner as i32, 2])?, 2, -1)?
    } else {
        ops::split_equal(both.reshape(&[count as i32, 2, inner as i32])?, 2, 1)?
    };
    let [gate, up] =
        <[Array; 2]>::try_from(parts).map_err(|_| Error::internal("biases not in two halves"))?;
    Ok([shaped(gate)?, shaped(up)?, shaped(loader.vector(&at(names.fused_bias[1]), count * hidden)?)?])
}
