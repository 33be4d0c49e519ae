//! DeepSeek-V3 (arXiv:2412.19437) and R1, and Kimi K2: attention over latents, and a mixture of experts
//! that are chosen by groups.

use super::architecture::{Architecture, Defaults, Gguf, OnLoad};
use super::glm4_moe::{EXPERTS, leave_ahead, mix, mix_gguf};
use super::names::{self, Names};
use crate::engine::config::fields::Fields;
use crate::engine::config::style::{self, Experts, Groups, Routing, Scoring, Style};
use crate::engine::config::{GgufFields, Latent, ModelConfig, RopeScaling, rope_parameters, yarn_magnitude};
use crate::engine::format::file::{damaged, unsupported};
use crate::error::Result;

pub const ARCHITECTURE: Architecture = Architecture {
    name: "deepseek_v3",
    // The aliases are those that mlx-lm runs with it as well.
    model_types: &["deepseek_v3", "kimi_k2", "kimi_k25", "joyai_llm_flash"],
    sparse: true,
    also_dense: false,
    style: STYLE,
    names: Names { experts: EXPERTS, ..names::PLAIN },
    defaults: Defaults {
        context: 4096,
        heads: Some(128),
        vocabulary: Some(129_280),
        intermediate: Some(18_432),
        latent: Some(Latent { query_rank: Some(1536), rank: 512, rotated: 64, plain: 128, value: 128 }),
        ..Defaults::PLAIN
    },
    read,
    gguf: GGUF,
    on_load: ON_LOAD,
};

/// Of all models with attention over latents, which differ in what the files say.
pub const GGUF: Option<Gguf> = Some(Gguf { names: &["deepseek2"], interleaved: true, read: read_gguf });

/// The router, and the matrices of single heads, which are small and not computed with as they lie in the file:
/// packing them would cost accuracy and save nothing.
pub const ON_LOAD: OnLoad = OnLoad {
    precise: &[],
    whole: &["mlp.gate", "self_attn.kv_b_proj", "self_attn.embed_q", "self_attn.unembed_out"],
};

pub const STYLE: Style = Style { interleaved: true, ..style::PLAIN };

fn read(fields: &Fields, config: &mut ModelConfig) -> Result<()> {
    latent_rope(fields, config)?;
    let groups = Some(Groups { count: 8, used: 4, judged_by: 2 });
    let routing = Routing { groups, scale: 2.5, ..corrected(256, 8) };
    check_routing(fields, "sigmoid", &["noaux_tc"])?;
    mix(fields, config, Experts::plain(routing, 2048), 3)
}

/// Sigmoids, of which those that a correction makes the largest are used.
pub fn corrected(count: usize, used: usize) -> Routing {
    Routing { scoring: Scoring::Sigmoid, corrected: true, ..Routing::softmax(count, used) }
}

/// Refuses ways to choose experts that are not the architecture's.
pub fn check_routing(fields: &Fields, scoring: &str, methods: &[&str]) -> Result<()> {
    let path = fields.path();
    if let Some(other) = fields.text("scoring_func")?.filter(|&named| named != scoring) {
        return Err(unsupported(path, &format!("weighs experts by {other:?}")));
    }
    if let Some(other) = fields.text("topk_method")?.filter(|named| !methods.contains(named)) {
        return Err(unsupported(path, &format!("chooses experts by {other:?}")));
    }
    match fields.number("moe_layer_freq")?.filter(|&every| every != 1) {
        Some(every) => Err(unsupported(path, &format!("has experts in each {every}th layer only"))),
        None => Ok(()),
    }
}

/// Reads what DeepSeek's configurations say about rotated keys and the scale of scores.
pub fn latent_rope(fields: &Fields, config: &mut ModelConfig) -> Result<()> {
    if let Some(interleaved) = fields.flag("rope_interleave")? {
        config.rope.traditional = interleaved;
    }
    if config.rope.scaling == RopeScaling::Default {
        return Ok(());
    }
    let Some(parameters) = rope_parameters(fields)? else { return Ok(()) };
    if let Some(scale) = parameters.float("mscale_all_dim")?.filter(|&scale| scale != 0.0) {
        let missing = || damaged(fields.path(), "has an mscale_all_dim without a factor");
        let factor = parameters.float("factor")?.ok_or_else(missing)?;
        config.attention_scale *= yarn_magnitude(factor as f32, scale).powi(2);
    }
    Ok(())
}

/// Layers and tokens of GLM 4.7 Flash, whose first files do not say that it weighs experts by sigmoids.
const GLM_LITE: ([usize; 2], usize) = ([47, 48], 154_880);

fn read_gguf(fields: &GgufFields, config: &mut ModelConfig) -> Result<()> {
    if config.latent.is_none() {
        return Err(unsupported(fields.path(), "has no attention over latents"));
    }
    let (layers, vocabulary) = GLM_LITE;
    let is_glm = layers.contains(&config.layers) && config.vocab_size == vocabulary;
    leave_ahead(fields, config)?;
    if let Some(experts) = &mut config.experts
        && is_glm
        && fields.number("expert_gating_func")?.unwrap_or(0) == 0
    {
        experts.routing.scoring = Scoring::Sigmoid;
    }
    if let RopeScaling::Yarn { factor, .. } = config.rope.scaling
        && let Some(tenth) = fields.float("rope.scaling.yarn_log_multiplier").filter(|&tenth| tenth != 0.0)
    {
        // The file has a tenth of `mscale_all_dim`, which `mscale` is equal to: rotated keys stay as large
        // as they are, and scores grow.
        config.rope.magnitude = 1.0;
        config.attention_scale *= yarn_magnitude(factor, 10.0 * tenth).powi(2);
    }
    mix_gguf(fields, config)
}
