//! Mixtral (arXiv:2401.04088): Mistral with a mixture of experts.

use super::architecture::{Architecture, Defaults, Gguf, PLAIN, no_more_keys};
use super::mistral::slides_if_it_can;
use super::names::{self, ExpertNames, Names};
use crate::engine::config::ModelConfig;
use crate::engine::config::fields::Fields;
use crate::engine::config::style::{Experts, Routing};
use crate::error::Result;

pub const ARCHITECTURE: Architecture = Architecture {
    name: "mixtral",
    model_types: &["mixtral"],
    sparse: true,
    names: Names { experts: EXPERTS, ..names::PLAIN },
    defaults: Defaults {
        norm_eps: 1e-5,
        theta: 1_000_000.0,
        context: 131_072,
        kv_heads: Some(8),
        ..Defaults::PLAIN
    },
    read,
    gguf: Some(Gguf { names: &["llama"], interleaved: true, read: no_more_keys }),
    ..PLAIN
};

const EXPERTS: ExpertNames = ExpertNames {
    router: "block_sparse_moe.gate",
    each: "block_sparse_moe.experts",
    parts: ["w1", "w3", "w2"],
    stacked: [
        "block_sparse_moe.switch_mlp.gate_proj",
        "block_sparse_moe.switch_mlp.up_proj",
        "block_sparse_moe.switch_mlp.down_proj",
    ],
    ..names::EXPERTS
};

fn read(fields: &Fields, config: &mut ModelConfig) -> Result<()> {
    let count = fields.number("num_local_experts")?.unwrap_or(8);
    let used = fields.number("num_experts_per_tok")?.unwrap_or(2);
    config.mix_all(Experts::plain(Routing::softmax(count, used), config.intermediate_size));
    slides_if_it_can(fields, config)
}
