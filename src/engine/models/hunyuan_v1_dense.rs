//! Hunyuan's dense models (Tencent, 2025): Llama with norms of queries and keys after they are rotated.

use super::architecture::{Architecture, Defaults, Gguf, PLAIN, no_more_keys};
use super::names::{self, Names};
use crate::engine::config::ModelConfig;
use crate::engine::config::RopeScaling;
use crate::engine::config::fields::Fields;
use crate::engine::config::style::{self, QkNorm, Style};
use crate::engine::format::file::damaged;
use crate::error::Result;

pub const ARCHITECTURE: Architecture = Architecture {
    name: "hunyuan_v1_dense",
    model_types: &["hunyuan_v1_dense"],
    style: Style { qk_norm: Some(QkNorm::Rotated), ..style::PLAIN },
    names: Names { q_norm: "self_attn.query_layernorm", k_norm: "self_attn.key_layernorm", ..names::PLAIN },
    defaults: Defaults { norm_eps: 1e-5, ..Defaults::PLAIN },
    read,
    // The converter of llama.cpp has put alpha into the base of the frequencies.
    gguf: Some(Gguf { names: &["hunyuan-dense"], interleaved: false, read: no_more_keys }),
    ..PLAIN
};

/// Rope that is "dynamic" with an alpha has a larger base, whatever the context.
fn read(fields: &Fields, config: &mut ModelConfig) -> Result<()> {
    if fields.flag("use_qk_norm")? == Some(false) {
        config.style.qk_norm = None;
    }
    let scaling = match fields.object("rope_parameters", "rope_parameters.")? {
        Some(parameters) => Some(parameters),
        None => fields.object("rope_scaling", "rope_scaling.")?,
    };
    let alpha = scaling.map(|scaling| scaling.float("alpha")).transpose()?.flatten();
    if let (RopeScaling::Dynamic { .. }, Some(alpha)) = (&config.rope.scaling, alpha.filter(|&it| it != 0.0))
    {
        let dims = config.rope.dims as f64;
        if dims <= 2.0 || alpha < 0.0 {
            return Err(damaged(fields.path(), &format!("has the impossible alpha {alpha}")));
        }
        config.rope.theta = (f64::from(config.rope.theta) * alpha.powf(dims / (dims - 2.0))) as f32;
        config.rope.scaling = RopeScaling::Default;
    }
    Ok(())
}
