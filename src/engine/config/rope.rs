//! Rotary position embedding: what the configuration says about it.

use std::path::Path;

use crate::engine::config::fields::Fields;
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
    /// Multiplies the rotated dimensions of queries and keys, which YaRN and LongRoPE make larger.
    pub magnitude: f32,
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
    /// The base grows with the context beyond the original one ("NTK-aware").
    Dynamic {
        factor: f32,
        original_max_position_embeddings: f32,
    },
    /// The frequencies of whole heads, of which only those of the first pairs turn (Gemma 4).
    Proportional {
        /// Of all pairs.
        share: f32,
        factor: f32,
    },
    /// As in `Llama3` with borders given in rotations (YaRN, arXiv:2309.00071).
    Yarn {
        factor: f32,
        original_max_position_embeddings: f32,
        beta_fast: f32,
        beta_slow: f32,
        /// Whether the borders are whole dimensions.
        truncate: bool,
    },
    /// Each pair's frequency is divided by its factor: one list up to the original context, one for
    /// longer ones (LongRoPE, arXiv:2402.13753).
    Long {
        short: Vec<f32>,
        long: Vec<f32>,
        original_max_position_embeddings: f32,
    },
}

/// What a model's other fields say to the rope.
#[derive(Debug, Clone, Copy)]
pub(super) struct RopeContext {
    pub theta: f64,
    /// The part of a head that is rotated.
    pub partial: f64,
    pub head_dim: usize,
    pub traditional: bool,
    pub max_position_embeddings: usize,
    /// `original_max_position_embeddings` beside the rope's own parameters.
    pub original: Option<usize>,
}

/// What a configuration says about its rope: `rope_parameters` of transformers 5, or `rope_scaling`.
pub fn parameters<'a>(fields: &Fields<'a>) -> Result<Option<Fields<'a>>> {
    match fields.object("rope_parameters", "rope_parameters.")? {
        Some(parameters) => Ok(Some(parameters)),
        None => fields.object("rope_scaling", "rope_scaling."),
    }
}

impl Rope {
    /// From `rope_scaling` of transformers 4 or `rope_parameters` of transformers 5, if there.
    pub(super) fn read(fields: Option<Fields>, context: &RopeContext, path: &Path) -> Result<Self> {
        let RopeContext { head_dim, traditional, .. } = *context;
        let (mut theta, mut partial) = (context.theta, context.partial);
        let (mut scaling, mut magnitude) = (RopeScaling::Default, 1.0);
        if let Some(fields) = fields {
            theta = fields.float("rope_theta")?.unwrap_or(theta);
            partial = fields.float("partial_rotary_factor")?.unwrap_or(partial);
            (scaling, magnitude) = read_scaling(&fields, context)?;
        }
        let dims = match &mut scaling {
            RopeScaling::Proportional { share, .. } => {
                *share = partial as f32;
                head_dim
            }
            _ => (head_dim as f64 * partial) as usize,
        };
        if let RopeScaling::Long { short, long, .. } = &scaling
            && (short.len() != dims / 2 || long.len() != dims / 2)
        {
            return Err(damaged(
                path,
                &format!(
                    "has {} short and {} long rope factors for {dims} rotated dimensions",
                    short.len(),
                    long.len()
                ),
            ));
        }
        Ok(Self { theta: theta as f32, dims, traditional, scaling, magnitude })
    }
}

/// The checked scaling and magnitude. Defaults of the Llama 3 form are those of mlx-lm, of the others
/// those of transformers.
fn read_scaling(fields: &Fields, context: &RopeContext) -> Result<(RopeScaling, f32)> {
    let path = fields.path();
    let kind = fields.text("rope_type")?.or(fields.text("type")?).unwrap_or("default");
    let number = |name: &str, default: f64| -> Result<f32> {
        positive(fields.float(name)?.unwrap_or(default), name, path)
    };
    let factor = || -> Result<f32> {
        let factor = fields
            .float("factor")?
            .ok_or_else(|| damaged(path, &format!("has {kind} rope scaling without a factor")))?;
        positive(factor, "rope scaling factor", path)
    };
    let original = || -> Result<f32> {
        let beside = context.original.unwrap_or(context.max_position_embeddings);
        number("original_max_position_embeddings", beside as f64)
    };
    let magnitude = |default: f64| number("attention_factor", default);
    match kind {
        // Of several positions at once, which are the same one in a text (Qwen 2 VL, arXiv:2409.12191).
        "default" | "mrope" => Ok((RopeScaling::Default, 1.0)),
        "linear" => Ok((RopeScaling::Linear { factor: factor()? }, 1.0)),
        "proportional" => {
            let factor = positive(fields.float("factor")?.unwrap_or(1.0), "rope scaling factor", path)?;
            Ok((RopeScaling::Proportional { share: 1.0, factor }, 1.0))
        }
        "dynamic" => {
            let original = positive(context.max_position_embeddings as f64, "context", path)?;
            let scaling =
                RopeScaling::Dynamic { factor: factor()?, original_max_position_embeddings: original };
            Ok((scaling, 1.0))
        }
        "llama3" => {
            let low = number("low_freq_factor", 1.0)?;
            let high = number("high_freq_factor", 4.0)?;
            if high <= low {
                return Err(damaged(
                    path,
                    &format!("has rope scaling from {low} to {high}: high_freq_factor must be the larger"),
                ));
            }
            let scaling = RopeScaling::Llama3 {
                factor: factor()?,
                low_freq_factor: low,
                high_freq_factor: high,
                original_max_position_embeddings: number("original_max_position_embeddings", 8192.0)?,
            };
            Ok((scaling, 1.0))
        }
        "yarn" => {
            let original = original()?;
            let factor = match fields.float("factor")? {
                Some(factor) => positive(factor, "rope scaling factor", path)?,
                None => context.max_position_embeddings as f32 / original,
            };
            let scales = (fields.float("mscale")?, fields.float("mscale_all_dim")?);
            let grown = |scale: f64| f64::from(yarn_magnitude(factor, scale));
            let default = match scales {
                (Some(one), Some(all)) if one != 0.0 && all != 0.0 => grown(one) / grown(all),
                _ => grown(1.0),
            };
            let scaling = RopeScaling::Yarn {
                factor,
                original_max_position_embeddings: original,
                beta_fast: number("beta_fast", 32.0)?,
                beta_slow: number("beta_slow", 1.0)?,
                truncate: fields.flag("truncate")?.unwrap_or(true),
            };
            Ok((scaling, magnitude(default)?))
        }
        "longrope" | "su" => {
            let original = original()?;
            let factor = match fields.float("factor")? {
                Some(factor) => factor,
                None => context.max_position_embeddings as f64 / f64::from(original),
            };
            let default =
                if factor <= 1.0 { 1.0 } else { (1.0 + factor.ln() / f64::from(original).ln()).sqrt() };
            let scaling = RopeScaling::Long {
                short: factors(fields, "short_factor")?,
                long: factors(fields, "long_factor")?,
                original_max_position_embeddings: original,
            };
            Ok((scaling, magnitude(default)?))
        }
        other => Err(scaling_unsupported(other, path)),
    }
}

/// How much larger YaRN makes the rotated dimensions for a factor, multiplied in the exponent's place by
/// `scale` (`mscale` of DeepSeek's configurations).
pub fn yarn_magnitude(factor: f32, scale: f64) -> f32 {
    if factor <= 1.0 { 1.0 } else { (0.1 * scale * f64::from(factor).ln() + 1.0) as f32 }
}

fn factors(fields: &Fields, name: &str) -> Result<Vec<f32>> {
    let factors = fields
        .floats(name)?
        .ok_or_else(|| damaged(fields.path(), &format!("has longrope scaling without {name}")))?;
    factors.into_iter().map(|factor| positive(factor, name, fields.path())).collect()
}

/// MODEL_UNSUPPORTED for a kind of scaling that the engine lacks.
pub(super) fn scaling_unsupported(kind: &str, path: &Path) -> crate::error::Error {
    let kind: String = kind.chars().take(32).collect();
    unsupported(path, &format!("needs rope scaling of type {kind:?}"))
        .hint("supported are default, linear, dynamic, llama3, yarn, longrope and proportional")
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
