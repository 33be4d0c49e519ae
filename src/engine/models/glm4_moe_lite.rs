//! GLM 4.7 Flash: DeepSeek's attention over latents and its way to choose experts.

use super::architecture::{Architecture, Defaults, PLAIN};
use super::deepseek_v3::{GGUF, ON_LOAD, STYLE, check_routing, corrected, latent_rope};
use super::glm4_moe::{EXPERTS, mix};
use super::names::{self, Names};
use crate::engine::config::fields::Fields;
use crate::engine::config::style::{Experts, Routing};
use crate::engine::config::{Latent, ModelConfig};
use crate::engine::format::file::{damaged, unsupported};
use crate::error::Result;

pub const ARCHITECTURE: Architecture = Architecture {
    name: "glm4_moe_lite",
    model_types: &["glm4_moe_lite"],
    sparse: true,
    style: STYLE,
    names: Names { experts: EXPERTS, ..names::PLAIN },
    defaults: Defaults {
        norm_eps: 1e-5,
        context: 202_752,
        heads: Some(20),
        vocabulary: Some(154_880),
        intermediate: Some(10_240),
        latent: Some(Latent { query_rank: Some(768), rank: 512, rotated: 64, plain: 192, value: 256 }),
        ..Defaults::PLAIN
    },
    read,
    gguf: GGUF,
    on_load: ON_LOAD,
    ..PLAIN
};

fn read(fields: &Fields, config: &mut ModelConfig) -> Result<()> {
    latent_rope(fields, config)?;
    check_routing(fields, "sigmoid", &["noaux_tc"])?;
    mix(fields, config, Experts::plain(Routing { scale: 1.8, ..corrected(64, 4) }, 1536), 1)?;
    let Some(types) = fields.texts("mlp_layer_types")? else { return Ok(()) };
    if types.len() != config.plan.len() {
        let reason = format!("has {} mlp_layer_types for {} layers", types.len(), config.plan.len());
        return Err(damaged(fields.path(), &reason));
    }
    for (layer, kind) in config.plan.iter_mut().zip(types) {
        layer.sparse = match kind {
            "dense" => false,
            "sparse" => true,
            other => return Err(unsupported(fields.path(), &format!("needs layers of type {other:?}"))),
        };
    }
    Ok(())
}
