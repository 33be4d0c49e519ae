//! LFM2 (Liquid AI, 2025): gated short convolutions, with attention in some of the layers.

use super::architecture::{Architecture, Defaults, Gguf, PLAIN};
use super::names::{self, Names};
use crate::engine::config::fields::Fields;
use crate::engine::config::recurrent::{Recurrent, ShortConv};
use crate::engine::config::style::{self, Mixer, QkNorm, Style};
use crate::engine::config::{GgufFields, ModelConfig};
use crate::engine::format::file::damaged;
use crate::error::Result;

pub const ARCHITECTURE: Architecture = Architecture {
    name: "lfm2",
    model_types: &["lfm2"],
    style: Style { qk_norm: Some(QkNorm::Heads), ..style::PLAIN },
    names: NAMES,
    defaults: Defaults {
        norm_eps: 1e-5,
        theta: 1_000_000.0,
        context: 128_000,
        heads: Some(32),
        kv_heads: Some(8),
        vocabulary: Some(65_536),
        intermediate: Some(12_288),
        tied: true,
        ..Defaults::PLAIN
    },
    read,
    gguf: Some(Gguf { names: &["lfm2"], interleaved: false, read: read_gguf }),
    ..PLAIN
};

const NAMES: Names = Names {
    attention_norm: "operator_norm",
    mlp_norm: "ffn_norm",
    output: "self_attn.out_proj",
    q_norm: "self_attn.q_layernorm",
    k_norm: "self_attn.k_layernorm",
    gate_up: &["feed_forward.w1", "feed_forward.w3"],
    down: "feed_forward.w2",
    final_norm: "model.embedding_norm",
    recurrent: &[
        ("shortconv.in_proj.weight", "conv.in_proj.weight"),
        ("shortconv.conv.weight", "conv.conv.weight"),
        ("shortconv.out_proj.weight", "conv.out_proj.weight"),
    ],
    ..names::PLAIN
};

fn read(fields: &Fields, config: &mut ModelConfig) -> Result<()> {
    config.recurrent = Some(Recurrent::ShortConv(ShortConv {
        channels: config.hidden_size,
        width: fields.number("conv_L_cache")?.unwrap_or(3),
        bias: fields.flag("conv_bias")?.unwrap_or(false),
    }));
    if let Some(attending) = fields.numbers("full_attn_idxs")? {
        for (index, layer) in config.plan.iter_mut().enumerate() {
            layer.mixer = if attending.contains(&index) { Mixer::Attention } else { Mixer::Recurrent };
        }
    }
    if let Some(tied) = fields.flag("tie_embedding")? {
        config.tie_word_embeddings = tied;
    }
    let inner = fields.number("block_ff_dim")?.unwrap_or(config.intermediate_size);
    config.intermediate_size = inner;
    if fields.flag("block_auto_adjust_ff_dim")?.unwrap_or(true) {
        config.intermediate_size = adjusted(fields, inner)?;
    }
    Ok(())
}

/// Layers without heads of keys have the convolution.
fn read_gguf(fields: &GgufFields, config: &mut ModelConfig) -> Result<()> {
    config.recurrent = Some(Recurrent::ShortConv(ShortConv {
        channels: config.hidden_size,
        width: fields.required("shortconv.l_cache")?,
        bias: false,
    }));
    Ok(())
}

/// Two thirds of the size that a block without a gate would have, times a factor, rounded up.
fn adjusted(fields: &Fields, inner: usize) -> Result<usize> {
    let inner = inner.saturating_mul(2) / 3;
    let factor = match fields.float("block_ffn_dim_multiplier")? {
        Some(factor) => factor,
        None if fields.has("block_ffn_dim_multiplier") => return Ok(inner),
        None => 1.0,
    };
    let multiple = fields.number("block_multiple_of")?.unwrap_or(256);
    let adjusted = (factor * inner as f64) as usize;
    adjusted
        .checked_next_multiple_of(multiple)
        .ok_or_else(|| damaged(fields.path(), &format!("has the impossible block_multiple_of {multiple}")))
}
