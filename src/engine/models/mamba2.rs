//! Mamba 2 (arXiv:2405.21060): layers of a state space, without attention or feed-forward.

use super::architecture::{Architecture, Defaults, Gguf, PLAIN};
use super::names::{self, Names};
use crate::engine::config::fields::Fields;
use crate::engine::config::recurrent::{Mamba, Recurrent};
use crate::engine::config::style::Mixer;
use crate::engine::config::{GgufFields, ModelConfig};
use crate::error::Result;

pub const ARCHITECTURE: Architecture = Architecture {
    name: "mamba2",
    model_types: &["mamba2"],
    names: Names {
        attention_norm: "norm",
        mamba: "mixer",
        recurrent: names::state_space!("mixer"),
        final_norm: "model.norm_f",
        ..names::PLAIN
    },
    defaults: Defaults {
        norm_eps: 1e-5,
        // Nothing depends on positions.
        context: 1 << 20,
        // Of the attention that no layer has, and of the feed-forward block.
        heads: Some(1),
        head_dim: Some(64),
        intermediate: Some(1),
        vocabulary: Some(32_768),
        ..Defaults::PLAIN
    },
    read,
    gguf: Some(Gguf { names: &["mamba2"], interleaved: false, read: read_gguf }),
    ..PLAIN
};

fn read(fields: &Fields, config: &mut ModelConfig) -> Result<()> {
    let size = |name: &str, default: usize| -> Result<usize> { Ok(fields.number(name)?.unwrap_or(default)) };
    config.recurrent = Some(Recurrent::Mamba(Mamba {
        heads: size("num_heads", 128)?,
        head_dim: size("head_dim", 64)?,
        groups: size("n_groups", 8)?,
        state_dim: size("state_size", 128)?,
        width: size("conv_kernel", 4)?,
        bias: fields.flag("use_bias")?.unwrap_or(false),
        conv_bias: fields.flag("use_conv_bias")?.unwrap_or(true),
        time_limit: time_limit(fields),
    }));
    all_recur(config);
    Ok(())
}

fn all_recur(config: &mut ModelConfig) {
    for layer in &mut config.plan {
        (layer.mixer, layer.feeds) = (Mixer::Recurrent, false);
    }
}

fn read_gguf(fields: &GgufFields, config: &mut ModelConfig) -> Result<()> {
    all_recur(config);
    state_space_of_gguf(fields, config)
}

/// Reads the sizes of the state space from a GGUF file.
pub fn state_space_of_gguf(fields: &GgufFields, config: &mut ModelConfig) -> Result<()> {
    let heads = fields.required("ssm.time_step_rank")?;
    let has_bias =
        |module: &str| fields.has_anywhere(&format!("{}.{module}.bias", config.architecture.names.mamba));
    config.recurrent = Some(Recurrent::Mamba(Mamba {
        heads,
        head_dim: fields.required("ssm.inner_size")?.checked_div(heads).unwrap_or(0),
        groups: fields.number("ssm.group_count")?.unwrap_or(1),
        state_dim: fields.required("ssm.state_size")?,
        width: fields.required("ssm.conv_kernel")?,
        bias: has_bias("in_proj"),
        conv_bias: has_bias("conv1d"),
        time_limit: [0.0, f32::INFINITY],
    }));
    Ok(())
}

/// `time_step_limit`, whose end is infinite in most models: a word that JSON does not have.
pub fn time_limit(fields: &Fields) -> [f32; 2] {
    let limit = |index: usize| {
        let value = fields.get("time_step_limit").and_then(|limits| limits.get(index)?.as_f64());
        value.map(|value| value as f32)
    };
    [limit(0).unwrap_or(0.0), limit(1).unwrap_or(f32::INFINITY)]
}
