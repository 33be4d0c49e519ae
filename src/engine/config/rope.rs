//! Rotary position embedding: what the configuration says about it.

use std::path::Path;

use serde::Deserialize;

use crate::engine::format::file::{damaged, unsupported};
use crate::error::Result;

/// Rotary position embedding (arXiv:2104.09864).
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// Base of the frequencies.
    pub theta: f32,
    /// How many dimensions of a head are rotated, from its start; even.
    pub dims: usize,
    /// Whether neighbours form a pair (2i, 2i + 1), as in GGUF; else the halves (i, i + dims / 2).
    pub traditional: bool,
    pub scaling: RopeScaling,
}

/// How frequencies are stretched for contexts longer than the first training's.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    Default,
    /// Positions are divided by the factor.
    Linear {
        factor: f32,
    },
    /// Low frequencies are divided by the factor, high ones kept, those between interpolated (Llama 3.1).
    Llama3 {
        factor: f32,
        low_freq_factor: f32,
        high_freq_factor: f32,
        original_max_position_embeddings: f32,
    },
    /// Each pair's frequency is divided by its factor, `dims / 2` of them: what a GGUF file stores
    /// in place of the parameters of `Llama3`.
    Factors(Vec<f32>),
}

/// `rope_scaling` of transformers 4 or `rope_parameters` of transformers 5.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct RopeJson {
    rope_type: Option<String>,
    /// The older name of `rope_type`.
    #[serde(rename = "type")]
    kind: Option<String>,
    pub rope_theta: Option<f64>,
    pub partial_rotary_factor: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<f64>,
}

impl RopeJson {
    /// The checked scaling. Defaults for the Llama 3 form are those of mlx-lm.
    pub fn scaling(&self, path: &Path) -> Result<RopeScaling> {
        let kind = self.rope_type.as_deref().or(self.kind.as_deref()).unwrap_or("default");
        let factor = || {
            let factor = self
                .factor
                .ok_or_else(|| damaged(path, &format!("has {kind} rope scaling without a factor")))?;
            positive(factor, "rope scaling factor", path)
        };
        match kind {
            "default" => Ok(RopeScaling::Default),
            "linear" => Ok(RopeScaling::Linear { factor: factor()? }),
            "llama3" => {
                let low = positive(self.low_freq_factor.unwrap_or(1.0), "low_freq_factor", path)?;
                let high = positive(self.high_freq_factor.unwrap_or(4.0), "high_freq_factor", path)?;
                if high <= low {
                    return Err(damaged(
                        path,
                        &format!(
                            "has rope scaling from {low} to {high}: high_freq_factor must be the larger"
                        ),
                    ));
                }
                let original = self.original_max_position_embeddings.unwrap_or(8192.0);
                Ok(RopeScaling::Llama3 {
                    factor: factor()?,
                    low_freq_factor: low,
                    high_freq_factor: high,
                    original_max_position_embeddings: positive(
                        original,
                        "original_max_position_embeddings",
                        path,
                    )?,
                })
            }
            other => Err(scaling_unsupported(other, path)),
        }
    }
}

/// MODEL_UNSUPPORTED for a kind of scaling that the engine lacks.
pub(super) fn scaling_unsupported(kind: &str, path: &Path) -> crate::error::Error {
    let kind: String = kind.chars().take(32).collect();
    unsupported(path, &format!("needs rope scaling of type {kind:?}"))
        .hint("supported are default, linear and llama3")
}

/// A number that must be positive and finite.
pub(super) fn positive(value: f64, what: &str, path: &Path) -> Result<f32> {
    let narrow = value as f32;
    if narrow.is_finite() && narrow > 0.0 {
        Ok(narrow)
    } else {
        Err(damaged(path, &format!("has the impossible {what} {value}")))
    }
}
