//! Granite 3 with a mixture of experts (IBM, 2024).

use super::architecture::{Architecture, Gguf, OnLoad, PLAIN};
use super::granite::{factors, factors_of_gguf};
use super::names::{self, ExpertNames, Names};
use crate::engine::config::ModelConfig;
use crate::engine::config::fields::Fields;
use crate::engine::config::style::{Experts, Routing};
use crate::error::Result;

pub const ARCHITECTURE: Architecture = Architecture {
    name: "granitemoe",
    model_types: &["granitemoe"],
    sparse: true,
    names: Names { experts: EXPERTS, ..names::PLAIN },
    read,
    gguf: Some(Gguf { names: &["granitemoe"], interleaved: true, read: factors_of_gguf }),
    on_load: OnLoad {
        precise: &["router.layer", "self_attn.o_proj", "output_linear", "switch_mlp.down_proj", "lm_head"],
        whole: &[],
    },
    ..PLAIN
};

pub const EXPERTS: ExpertNames = ExpertNames {
    router: "block_sparse_moe.router.layer",
    each: "block_sparse_moe.experts",
    stacked: [
        "block_sparse_moe.switch_mlp.gate_proj",
        "block_sparse_moe.switch_mlp.up_proj",
        "block_sparse_moe.switch_mlp.down_proj",
    ],
    fused: ["block_sparse_moe.input_linear", "block_sparse_moe.output_linear"],
    ..names::EXPERTS
};

fn read(fields: &Fields, config: &mut ModelConfig) -> Result<()> {
    factors(fields, config)?;
    let count = fields.number("num_local_experts")?.unwrap_or(8);
    let used = fields.number("num_experts_per_tok")?.unwrap_or(2);
    config.mix_all(Experts::plain(Routing::softmax(count, used), config.intermediate_size));
    Ok(())
}
