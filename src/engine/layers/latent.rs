//! Attention over latents (DeepSeek-V2, arXiv:2405.04434): what stands before and behind attention.
//!
//! Of a token only its latent and one rotated key are remembered. A head's key is a matrix of its own times
//! the latent, and its score the same if the transposed matrix is applied to the query instead. So all heads
//! share one key, the rotated one and the latent side by side, and one value, the latent; behind attention
//! each head makes its own value of what came out.

use mlx_rs::ops::indexing::IndexOp;
use mlx_rs::{Array, ops};

use super::matrix::{Matrix, parts, select_rows, transposed};
use super::norm::Norm;
use super::projection::Projection;
use super::{Backend, Loader};
use crate::engine::config::{Latent, ModelConfig};
use crate::engine::format::affine;
use crate::engine::format::rows::unpacked;
use crate::engine::format::weight::{Floats, WeightData};
use crate::engine::models::names;
use crate::error::{Error, Result};

/// The models' own code has the epsilon of these norms as a constant.
const EPSILON: f32 = 1e-6;

/// Projections around attention over latents.
#[derive(Debug)]
pub struct LatentParts {
    sizes: Latent,
    heads: i32,
    /// Norm, then what queries are squeezed into, where they are.
    query_down: Option<Projection>,
    /// Norm, then queries.
    query: Projection,
    /// Norm, then latent and key side by side.
    latent: Projection,
    latent_norm: Norm,
    keys: HeadMatrices,
    values: HeadMatrices,
}

/// A matrix of each head.
#[derive(Debug)]
struct HeadMatrices {
    matrix: Matrix,
    heads: i32,
}

impl LatentParts {
    /// `layer` is the name that the modules begin with, `norm` the one before attention.
    pub fn load(
        loader: &Loader,
        config: &ModelConfig,
        sizes: &Latent,
        layer: &str,
        norm: Option<Norm>,
    ) -> Result<Self> {
        let (names, hidden, heads) = (&names::LATENT, config.hidden_size, config.heads);
        let at = |name: &str| format!("{layer}.{name}");
        let linear = |name: &str, rows: usize, columns: usize, norm: Option<Norm>, bias: bool| {
            Projection::load(loader, &[at(name)], &[rows], columns, norm, bias)
        };
        let small = |name: &str, size: usize| -> Result<Norm> {
            Ok(Norm::load(loader, config, &at(name), size)?.with_epsilon(EPSILON))
        };
        let (queries, bias) = (heads * sizes.query_dim(), config.attention_bias.qkv);
        let (query_down, query) = match sizes.query_rank {
            Some(rank) => {
                let down = linear(names.query_down, rank, hidden, norm.clone(), bias)?;
                let norm = small(names.query_norm, rank)?;
                (Some(down), linear(names.query_up, queries, rank, Some(norm), false)?)
            }
            None => (None, linear(names.query, queries, hidden, norm.clone(), false)?),
        };
        let [keys, values] = made(loader, sizes, heads, &at)?;
        Ok(Self {
            sizes: *sizes,
            heads: heads as i32,
            query_down,
            query,
            latent: linear(names.latent, sizes.key_dim(), hidden, norm, bias)?,
            latent_norm: small(names.latent_norm, sizes.rank)?,
            keys: HeadMatrices::new(loader, keys, heads)?,
            values: HeadMatrices::new(loader, values, heads)?,
        })
    }

    /// `x [L, hidden]` as queries of all heads and the key that they share, not yet rotated:
    /// `[L, (heads + 1) * key_dim]`, the rotated part of each first.
    pub fn project(&self, x: &Array) -> Result<Array> {
        let (length, heads, plain) = (x.dim(0), self.heads, self.sizes.plain as i32);
        let queries = match &self.query_down {
            Some(down) => self.query.forward(&down.forward(x)?)?,
            None => self.query.forward(x)?,
        };
        let queries = queries.reshape(&[length, heads, -1])?;
        let absorbed = self.keys.forward(&queries.index((.., .., ..plain)))?;
        let queries = ops::concatenate(&[queries.index((.., .., plain..)), absorbed], -1)?;
        let [latent, key] = parts(&self.latent.forward(x)?, &[self.sizes.rank as i32])?;
        let latent = self.latent_norm.apply(&latent)?;
        Ok(ops::concatenate(&[queries.reshape(&[length, -1])?, key, latent], -1)?)
    }

    /// What attention gave, `[L, heads * rank]`, as the heads' values: `[L, heads * value]`.
    pub fn values(&self, attended: &Array) -> Result<Array> {
        let length = attended.dim(0);
        let values = self.values.forward(&attended.reshape(&[length, self.heads, -1])?)?;
        Ok(values.reshape(&[length, -1])?)
    }

    /// The arrays to evaluate at load.
    pub fn arrays(&self) -> Vec<&Array> {
        let projections = self.query_down.iter().chain([&self.query, &self.latent]);
        let mut arrays: Vec<&Array> = projections.flat_map(Projection::arrays).collect();
        arrays.extend(self.latent_norm.arrays());
        arrays.extend(self.keys.matrix.arrays());
        arrays.extend(self.values.matrix.arrays());
        arrays
    }
}

/// What each head makes of its queries, `[heads * rank, plain]`, and of latents, `[heads * value, rank]`,
/// however the checkpoint has it.
fn made(
    loader: &Loader,
    sizes: &Latent,
    heads: usize,
    at: &impl Fn(&str) -> String,
) -> Result<[WeightData; 2]> {
    let names = &names::LATENT;
    let parts = if loader.has(&at(names.both)) {
        let both = loader.matrix(&at(names.both), heads * sizes.made(), sizes.rank)?;
        apart(&unpacked(both), sizes, heads)?
    } else {
        [
            loader.matrix(&at(names.keys), heads * sizes.rank, sizes.plain)?,
            loader.matrix(&at(names.values), heads * sizes.value, sizes.rank)?,
        ]
    };
    // An adapter knows them as one matrix only, and is added to them: they have no place beside them.
    let Some(added) = loader.low_rank(&at(names.both), heads * sizes.made(), sizes.rank)? else {
        return Ok(parts);
    };
    let shape = vec![heads * sizes.made(), sizes.rank];
    let added = WeightData::Dense { shape, values: Floats::singles(&added.product()) };
    let [keys, values] = parts;
    let [of_keys, of_values] = apart(&added, sizes, heads)?;
    Ok([sum(keys, &of_keys)?, sum(values, &of_values)?])
}

/// What makes keys and values of each head, as a matrix for all keys, transposed by heads, and one for all values.
fn apart(both: &WeightData, sizes: &Latent, heads: usize) -> Result<[WeightData; 2]> {
    let rows = |from: usize, to: usize| {
        (0..heads).map(move |head| head * sizes.made() + from..head * sizes.made() + to)
    };
    let keys = select_rows(both, rows(0, sizes.plain))?;
    Ok([transposed(&keys, heads)?, select_rows(both, rows(sizes.plain, sizes.made()))?])
}

/// A matrix, unpacked, with the elements of a plain one added to its own.
fn sum(weight: WeightData, added: &WeightData) -> Result<WeightData> {
    match (unpacked(weight), added) {
        (WeightData::Dense { shape, values }, WeightData::Dense { shape: same, values: added })
            if shape == *same =>
        {
            let mut values = values.to_f32();
            values.iter_mut().zip(added.to_f32()).for_each(|(value, added)| *value += added);
            Ok(WeightData::Dense { shape, values: Floats::singles(&values) })
        }
        _ => Err(Error::internal("only matrices of one shape can be added")),
    }
}

impl HeadMatrices {
    fn new(loader: &Loader, weight: WeightData, heads: usize) -> Result<Self> {
        // On a CPU, MLX's product with packed matrices is far slower than that with plain ones.
        let weight = match loader.backend {
            Backend::Kernels => unpacked(weight),
            Backend::Stock => affine::for_mlx(weight),
        };
        Ok(Self { matrix: Matrix::new(&weight, loader.dtype)?, heads: heads as i32 })
    }

    /// `x [L, heads, columns] → [L, heads, rows]`.
    fn forward(&self, x: &Array) -> Result<Array> {
        debug_assert_eq!(x.dim(1), self.heads);
        Ok(self.matrix.by_head(&x.swap_axes(0, 1)?)?.swap_axes(0, 1)?)
    }
}
