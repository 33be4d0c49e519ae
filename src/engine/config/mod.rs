//! A model's configuration in one form, wherever it came from: `config.json` as transformers 4 and 5
//! and mlx-lm write it, or the metadata of a GGUF file.
//!
//! A [`ModelConfig`] exists only for models that the engine can run: what it cannot is an error when
//! the configuration is read. [`Outline`] describes any model, as far as its files tell.

mod gguf;
mod huggingface;
mod limits;
mod outline;
mod quantization;
mod rope;

pub use gguf::from_gguf;
pub use huggingface::{ConfigFiles, from_config_json};
pub use outline::Outline;
pub use quantization::{Affine, Quantization};
pub use rope::{Rope, RopeScaling};

use crate::engine::format::weight::FloatType;

/// Blocks that the engine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Architecture {
    /// Llama 1 to 3, Mistral and what is built the same.
    Llama,
}

impl Architecture {
    /// `model_type` values of config.json and the block each needs. The aliases are those that
    /// mlx-lm runs with its Llama as well.
    pub const MODEL_TYPES: &'static [(&'static str, Architecture)] = &[
        ("llama", Self::Llama),
        ("mistral", Self::Llama),
        ("iquestcoder", Self::Llama),
        ("xverse", Self::Llama),
    ];

    /// The block for a `model_type`, if the engine has it.
    pub fn of(model_type: &str) -> Option<Self> {
        Self::MODEL_TYPES.iter().find(|row| row.0 == model_type).map(|row| row.1)
    }
}

/// Which projections of the attention have biases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AttentionBias {
    /// `q_proj`, `k_proj` and `v_proj`.
    pub qkv: bool,
    pub o: bool,
}

/// Everything that shapes a decoder. Sizes are checked: none is zero, `heads` is a multiple of
/// `kv_heads`, `head_dim` and `rope.dims` are even, and all are within what real models have.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    pub architecture: Architecture,
    /// As the checkpoint says it: `model_type`, or `general.architecture` of a GGUF.
    pub model_type: String,
    pub hidden_size: usize,
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub intermediate_size: usize,
    pub vocab_size: usize,
    pub rms_norm_eps: f32,
    pub rope: Rope,
    /// The context in tokens that the model was made for.
    pub max_position_embeddings: usize,
    /// Whether the head is the transposed embedding.
    pub tie_word_embeddings: bool,
    pub attention_bias: AttentionBias,
    pub mlp_bias: bool,
    /// How many positions back attention looks, itself included; `None`: all.
    pub sliding_window: Option<usize>,
    /// Tokens that end an answer.
    pub eos_token_ids: Vec<u32>,
    pub bos_token_id: Option<u32>,
    /// Type of the floats in the checkpoint: of the weights, or of the scales where those are packed.
    pub dtype: FloatType,
    /// How safetensors weights are packed, in MLX's form; `None`: they are not. GGUF tensors say it
    /// themselves, one by one.
    pub quantization: Option<Quantization>,
}

impl ModelConfig {
    /// Numbers that the key-value cache holds for one token.
    pub fn kv_values_per_token(&self) -> u64 {
        2 * self.layers as u64 * self.kv_heads as u64 * self.head_dim as u64
    }
}

#[cfg(test)]
mod tests;
