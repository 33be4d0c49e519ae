//! DeepSeek-V2 (arXiv:2405.04434): attention over latents, and experts weighed by a softmax.

use super::architecture::{Architecture, Defaults, PLAIN};
use super::deepseek_v3::{GGUF, ON_LOAD, STYLE, check_routing, latent_rope};
use super::glm4_moe::{EXPERTS, mix};
use super::names::{self, Names};
use crate::engine::config::fields::Fields;
use crate::engine::config::style::{Experts, Groups, Routing};
use crate::engine::config::{Latent, ModelConfig};
use crate::engine::format::file::unsupported;
use crate::error::Result;

pub const ARCHITECTURE: Architecture = Architecture {
    name: "deepseek_v2",
    model_types: &["deepseek_v2"],
    sparse: true,
    style: STYLE,
    names: Names { experts: EXPERTS, ..names::PLAIN },
    defaults: Defaults {
        heads: Some(32),
        vocabulary: Some(102_400),
        intermediate: Some(11_008),
        latent: Some(Latent { query_rank: Some(1536), rank: 512, rotated: 64, plain: 128, value: 128 }),
        ..Defaults::PLAIN
    },
    read,
    gguf: GGUF,
    on_load: ON_LOAD,
    ..PLAIN
};

fn read(fields: &Fields, config: &mut ModelConfig) -> Result<()> {
    latent_rope(fields, config)?;
    check_routing(fields, "softmax", &["greedy", "group_limited_greedy"])?;
    fields.required("n_shared_experts")?;
    if fields.flag("norm_topk_prob")? == Some(true) {
        // The model's own code does something else than transformers then.
        return Err(unsupported(fields.path(), "makes the weights of DeepSeek-V2's experts add up to one"));
    }
    let by_groups = fields.text("topk_method")? == Some("group_limited_greedy");
    let groups = by_groups.then_some(Groups { count: 1, used: 1, judged_by: 1 });
    let routing = Routing {
        normalized: false,
        groups,
        ..Routing::softmax(64, fields.required("num_experts_per_tok")?)
    };
    mix(fields, config, Experts::plain(routing, 1407), 0)?;
    if let Some(experts) = config.experts.as_mut().filter(|_| !by_groups) {
        experts.routing.groups = None;
    }
    Ok(())
}
