//! Ranges that sizes of real models lie in, checked before anything is computed or allocated from them.

use std::path::Path;

use crate::engine::config::ModelConfig;
use crate::engine::config::style::{Experts, Gating, Routing};
use crate::engine::format::file::{damaged, unsupported};
use crate::error::Result;

pub const MAX_LAYERS: usize = 4096;
pub(super) const MAX_HIDDEN: usize = 1 << 18;
const MAX_INTERMEDIATE: usize = 1 << 20;
pub(super) const MAX_HEADS: usize = 4096;
pub(super) const MAX_HEAD_DIM: usize = 2048;
const MAX_VOCABULARY: usize = 1 << 24;
const MAX_EXPERTS: usize = 4096;
const MAX_CONTEXT: usize = u32::MAX as usize;

/// Checks a configuration that was read from `path`.
pub fn check(config: &ModelConfig, path: &Path) -> Result<()> {
    let sizes = [
        ("hidden size", config.hidden_size, MAX_HIDDEN),
        ("number of layers", config.layers, MAX_LAYERS),
        ("number of attention heads", config.heads, MAX_HEADS),
        ("number of key-value heads", config.kv_heads, MAX_HEADS),
        ("head dimension", config.head_dim, MAX_HEAD_DIM),
        ("intermediate size", config.intermediate_size, MAX_INTERMEDIATE),
        ("vocabulary size", config.vocab_size, MAX_VOCABULARY),
        ("context length", config.max_position_embeddings, MAX_CONTEXT),
    ];
    within(path, &sizes)?;
    if let Some(full) = config.full_heads {
        within(
            path,
            &[
                ("number of key-value heads", full.count, MAX_HEADS),
                ("head dimension", full.dim, MAX_HEAD_DIM),
            ],
        )?;
    }
    for kv_heads in [Some(config.kv_heads), config.full_heads.map(|full| full.count)].into_iter().flatten() {
        if !config.heads.is_multiple_of(kv_heads) {
            return Err(damaged(
                path,
                &format!("has {} attention heads for {kv_heads} key-value heads", config.heads),
            ));
        }
    }
    for inner in config.plan.iter().filter_map(|layer| layer.inner) {
        within(path, &[("intermediate size", inner, MAX_INTERMEDIATE)])?;
    }
    if let Some(inputs) = config.layer_inputs {
        within(
            path,
            &[
                ("size of inputs of layers", inputs.size, MAX_HIDDEN),
                ("vocabulary size", inputs.vocabulary, MAX_VOCABULARY),
            ],
        )?;
    }
    let ropes = [(Some(&config.rope), config.full_head_dim()), (config.local_rope.as_ref(), config.head_dim)];
    for (rope, head_dim) in ropes {
        if !head_dim.is_multiple_of(2) {
            return Err(unsupported(path, &format!("has the odd head dimension {head_dim}")));
        }
        let Some(rope) = rope else { continue };
        if rope.dims == 0 || !rope.dims.is_multiple_of(2) || rope.dims > head_dim {
            return Err(damaged(path, &format!("rotates {} of {head_dim} dimensions of a head", rope.dims)));
        }
        if !(rope.theta.is_finite() && rope.theta > 0.0) {
            return Err(damaged(path, &format!("has the impossible rope base {}", rope.theta)));
        }
    }
    if !(config.norm_eps.is_finite() && config.norm_eps >= 0.0) {
        return Err(damaged(path, &format!("has the impossible norm epsilon {}", config.norm_eps)));
    }
    let factors = [
        ("attention scale", Some(config.attention_scale)),
        ("attention soft cap", config.attention_cap),
        ("logits soft cap", config.logits_cap),
        ("embedding scale", Some(config.embedding_scale)),
        ("residual scale", Some(config.residual_scale)),
        ("logits scale", Some(config.logits_scale)),
    ];
    for (what, factor) in factors {
        if let Some(factor) = factor
            && !(factor.is_finite() && factor > 0.0)
        {
            return Err(damaged(path, &format!("has the impossible {what} {factor}")));
        }
    }
    if let Some(growth) = config.query_growth
        && !(growth.beta.is_finite()
            && growth.beta >= 0.0
            && growth.period.is_finite()
            && growth.period >= 1.0)
    {
        return Err(damaged(
            path,
            &format!("has queries that grow by {} each {}", growth.beta, growth.period),
        ));
    }
    if let Some(recurrent) = &config.recurrent {
        recurrent.check(path)?;
    }
    if let Some(latent) = &config.latent {
        latent.check(config.rope.dims, path)?;
    }
    config.experts.map_or(Ok(()), |experts| check_experts(&experts, path))
}

/// INTEGRITY_FAILED for a size that is zero or more than the last number.
pub(super) fn within(path: &Path, sizes: &[(&str, usize, usize)]) -> Result<()> {
    for &(what, value, most) in sizes {
        if value == 0 || value > most {
            return Err(damaged(path, &format!("has the impossible {what} {value}")));
        }
    }
    Ok(())
}

fn check_experts(experts: &Experts, path: &Path) -> Result<()> {
    let Routing { count, used, scale, groups, .. } = experts.routing;
    let shared = experts.shared.map_or(1, |shared| shared.intermediate_size);
    let mut sizes = vec![
        ("number of experts", count, MAX_EXPERTS),
        ("number of experts a token", used, count),
        ("intermediate size of experts", experts.intermediate_size, MAX_INTERMEDIATE),
        ("intermediate size of the shared expert", shared, MAX_INTERMEDIATE),
        ("size of what experts see", experts.squeezed.unwrap_or(1), MAX_HIDDEN),
    ];
    if let Some(groups) = groups {
        sizes.push(("number of groups of experts", groups.count, count));
        sizes.push(("number of groups a token", groups.used, groups.count));
    }
    within(path, &sizes)?;
    if let Some(groups) = groups {
        let each = count / groups.count;
        if !count.is_multiple_of(groups.count) || groups.judged_by > each || groups.used * each < used {
            let reason =
                format!("uses {used} experts of {} of {} groups of {count}", groups.used, groups.count);
            return Err(damaged(path, &reason));
        }
    }
    let mut factors = vec![("factor of experts", scale)];
    if let Some(Gating::Clamped { alpha, limit }) = experts.gating {
        factors.extend([("swiglu_alpha", alpha), ("swiglu_limit", limit)]);
    }
    match factors.into_iter().find(|(_, factor)| !(factor.is_finite() && *factor > 0.0)) {
        Some((what, factor)) => Err(damaged(path, &format!("has the impossible {what} {factor}"))),
        None => Ok(()),
    }
}
