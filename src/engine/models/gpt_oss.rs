//! gpt-oss (OpenAI, arXiv:2508.10925): attention sinks, every other layer slides, and experts of
//! four-bit floats with biases and a clamped gate.

use super::architecture::{Architecture, Defaults, Gguf, OnLoad, PLAIN};
use super::names::{self, ExpertNames, Names};
use crate::engine::config::fields::Fields;
use crate::engine::config::style::{Experts, Gating, Routing};
use crate::engine::config::{AttentionBias, GgufFields, ModelConfig, RopeScaling, yarn_magnitude};
use crate::error::Result;

pub const ARCHITECTURE: Architecture = Architecture {
    name: "gpt_oss",
    model_types: &["gpt_oss"],
    sparse: true,
    names: Names { experts: EXPERTS, ..names::PLAIN },
    defaults: Defaults {
        norm_eps: 1e-5,
        theta: 150_000.0,
        context: 131_072,
        heads: Some(64),
        kv_heads: Some(8),
        head_dim: Some(64),
        vocabulary: Some(201_088),
        window: Some(128),
        ..Defaults::PLAIN
    },
    read,
    gguf: Some(Gguf { names: &["gpt-oss"], interleaved: false, read: read_gguf }),
    on_load: OnLoad { precise: &["mlp.router"], whole: &[] },
    ..PLAIN
};

const EXPERTS: ExpertNames = ExpertNames {
    router: "mlp.router",
    stacked: ["mlp.experts.gate_proj", "mlp.experts.up_proj", "mlp.experts.down_proj"],
    fused: ["mlp.experts.gate_up_proj_blocks", "mlp.experts.down_proj_blocks"],
    transposed: Some(["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]),
    interleaved: true,
    ..names::EXPERTS
};

const CLAMPED: [f32; 2] = [1.702, 7.0];

fn read(fields: &Fields, config: &mut ModelConfig) -> Result<()> {
    let bias = fields.flag("attention_bias")?.unwrap_or(true);
    config.attention_bias = AttentionBias { qkv: bias, o: bias };
    config.attention_sinks = true;
    config.slide_but_every(2);
    let count = fields.number("num_local_experts")?.or(fields.number("num_experts")?);
    let used = fields.number("num_experts_per_tok")?.or(fields.number("experts_per_token")?);
    let factor = |name: &str, default: f32| -> Result<f32> {
        Ok(fields.float(name)?.map_or(default, |factor| factor as f32))
    };
    let gating = Gating::Clamped {
        alpha: factor("swiglu_alpha", CLAMPED[0])?,
        limit: factor("swiglu_limit", CLAMPED[1])?,
    };
    let routing = Routing::softmax(count.unwrap_or(128), used.unwrap_or(4));
    let plain = Experts::plain(routing, config.intermediate_size);
    config.mix_all(Experts { gating: Some(gating), bias: true, ..plain });
    if !fields.has("rope_parameters") && !fields.has("rope_scaling") {
        let factor = 32.0;
        config.rope.magnitude = yarn_magnitude(factor, 1.0);
        config.rope.scaling = RopeScaling::Yarn {
            factor,
            original_max_position_embeddings: 4096.0,
            beta_fast: 32.0,
            beta_slow: 1.0,
            truncate: false,
        };
    }
    Ok(())
}

fn read_gguf(_: &GgufFields, config: &mut ModelConfig) -> Result<()> {
    config.attention_sinks = true;
    config.slide_but_every(2);
    if let Some(experts) = &mut config.experts {
        let [alpha, limit] = CLAMPED;
        experts.gating = Some(Gating::Clamped { alpha, limit });
        experts.bias = true;
    }
    // The file does not say it.
    if let RopeScaling::Yarn { truncate, .. } = &mut config.rope.scaling {
        *truncate = false;
    }
    Ok(())
}
