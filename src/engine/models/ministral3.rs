//! Ministral 3 (Mistral AI, 2025): Mistral with YaRN, whose queries grow with their position.

use super::architecture::{Architecture, Defaults, Gguf, PLAIN};
use super::mistral::slides_if_it_can;
use crate::engine::config::fields::Fields;
use crate::engine::config::style::Growth;
use crate::engine::config::{GgufFields, ModelConfig, RopeScaling, rope_parameters, yarn_magnitude};
use crate::engine::format::file::damaged;
use crate::error::Result;

pub const ARCHITECTURE: Architecture = Architecture {
    name: "ministral3",
    model_types: &["ministral3"],
    defaults: Defaults {
        norm_eps: 1e-5,
        theta: 1_000_000.0,
        context: 262_144,
        kv_heads: Some(8),
        head_dim: Some(128),
        ..Defaults::PLAIN
    },
    read,
    gguf: Some(Gguf { names: &["mistral3"], interleaved: true, read: read_gguf }),
    ..PLAIN
};

fn read(fields: &Fields, config: &mut ModelConfig) -> Result<()> {
    slides_if_it_can(fields, config)?;
    let Some(parameters) = rope_parameters(fields)? else {
        // What the first release has.
        config.rope.scaling = RopeScaling::Yarn {
            factor: 16.0,
            original_max_position_embeddings: 16_384.0,
            beta_fast: 32.0,
            beta_slow: 1.0,
            truncate: true,
        };
        config.query_growth = Some(Growth { beta: 0.1, period: 16_384.0 });
        return Ok(());
    };
    let beta = parameters.float("llama_4_scaling_beta")?;
    let period = parameters.float("original_max_position_embeddings")?;
    config.query_growth = match (beta, period) {
        (None, _) => None,
        (Some(beta), Some(period)) => Some(Growth { beta: beta as f32, period: period as f32 }),
        (Some(_), None) => {
            return Err(damaged(fields.path(), "has a llama_4_scaling_beta without a period"));
        }
    };
    Ok(())
}

fn read_gguf(fields: &GgufFields, config: &mut ModelConfig) -> Result<()> {
    if let RopeScaling::Yarn { factor, original_max_position_embeddings: period, .. } = config.rope.scaling {
        if let Some(scale) = fields.float("rope.scaling.yarn_log_multiplier").filter(|&scale| scale != 0.0) {
            config.rope.magnitude = yarn_magnitude(factor, 1.0) / yarn_magnitude(factor, scale);
        }
        let beta = fields.float("attention.temperature_scale").filter(|&beta| beta != 0.0);
        config.query_growth = beta.map(|beta| Growth { beta: beta as f32, period });
    }
    Ok(())
}
