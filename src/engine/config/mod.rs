//! A model's configuration in one form, wherever it came from: `config.json` as transformers 4 and 5
//! and mlx-lm write it, or the metadata of a GGUF file.
//!
//! A [`ModelConfig`] exists only for models that the engine can run: what it cannot is an error when
//! the configuration is read. [`Outline`] describes any model, as far as its files tell.

pub mod fields;
mod gguf;
mod huggingface;
mod latent;
mod limits;
mod outline;
mod quantization;
pub mod recurrent;
mod rope;
pub mod style;

use std::path::Path;

pub use gguf::{GgufFields, from_gguf};
pub use huggingface::{ConfigFiles, from_config_json};
pub use latent::Latent;
pub use limits::MAX_LAYERS;
pub use outline::Outline;
pub use quantization::{Affine, Packing, Quantization};
pub use rope::{Rope, RopeScaling, parameters as rope_parameters, yarn_magnitude};

use crate::engine::cache::{LayerShape, TokenShape, Values};
use crate::engine::format::file::damaged;
use crate::engine::format::weight::FloatType;
use crate::engine::models::Architecture;
use crate::error::Result;
use recurrent::Recurrent;
use style::{Direction, Experts, Growth, LayerPlan, Mixer, Style};

/// Which projections of the attention have biases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AttentionBias {
    /// `q_proj`, `k_proj` and `v_proj`.
    pub qkv: bool,
    pub o: bool,
}

/// Keys and values of a layer with attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyHeads {
    pub count: usize,
    /// Elements of a head, of its queries too.
    pub dim: usize,
    /// Values are what keys are before their norm and rotation.
    pub are_values: bool,
}

/// What each layer gets of a token beside the states: so many elements of a table of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerInputs {
    pub size: usize,
    pub vocabulary: usize,
}

/// Everything that shapes a decoder. Sizes are checked: none is zero, `heads` is a multiple of
/// `kv_heads`, `head_dim` and `rope.dims` are even, and all are within what real models have.
// Each flag is a tensor that a model has or not.
#[allow(clippy::struct_excessive_bools)]
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    pub architecture: &'static Architecture,
    pub style: Style,
    /// As the checkpoint says it: `model_type`, or `general.architecture` of a GGUF.
    pub model_type: String,
    /// Whether the model was made for images or sounds, too, of which the engine takes none.
    pub other_inputs: bool,
    pub hidden_size: usize,
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    /// Those of layers that do not slide, where they are others.
    pub full_heads: Option<KeyHeads>,
    /// So many last layers look at keys and values of the last layer of their kind before them.
    pub without_keys: usize,
    pub layer_inputs: Option<LayerInputs>,
    pub intermediate_size: usize,
    pub vocab_size: usize,
    pub norm_eps: f32,
    pub rope: Rope,
    /// The rope of layers with a sliding window, where it is another.
    pub local_rope: Option<Rope>,
    /// One for each layer.
    pub plan: Vec<LayerPlan>,
    pub experts: Option<Experts>,
    /// Of the layers without attention.
    pub recurrent: Option<Recurrent>,
    /// Attention over latents: `head_dim` is what is remembered of a token, for one head of keys.
    pub latent: Option<Latent>,
    /// Factor of attention scores, usually `1 / sqrt(head_dim)`.
    pub attention_scale: f32,
    /// Scores become `cap * tanh(score / cap)`.
    pub attention_cap: Option<f32>,
    /// The same for logits.
    pub logits_cap: Option<f32>,
    /// Factors of what leaves the embedding, of what is added to the residual stream, and of logits.
    pub embedding_scale: f32,
    pub residual_scale: f32,
    pub logits_scale: f32,
    /// How queries grow with their position.
    pub query_growth: Option<Growth>,
    /// Whether each head has a score that no value belongs to, in the softmax of its scores.
    pub attention_sinks: bool,
    /// The context in tokens that the model was made for.
    pub max_position_embeddings: usize,
    /// Whether the head is the transposed embedding.
    pub tie_word_embeddings: bool,
    pub attention_bias: AttentionBias,
    pub mlp_bias: bool,
    pub head_bias: bool,
    /// How many positions back attention looks in layers that slide, itself included.
    pub sliding_window: Option<usize>,
    pub direction: Direction,
    /// Tokens that end an answer.
    pub eos_token_ids: Vec<u32>,
    pub bos_token_id: Option<u32>,
    /// Type of the floats in the checkpoint: of the weights, or of the scales where those are packed.
    pub dtype: FloatType,
    /// How safetensors weights are packed, in MLX's form; `None`: they are not. GGUF tensors say it
    /// themselves, one by one.
    pub quantization: Option<Quantization>,
    /// Rows and columns that share a scale where matrices are eight-bit floats; `None`: rows or all of one do.
    pub float_blocks: Option<[usize; 2]>,
}

impl ModelConfig {
    /// Makes every layer slide, or none.
    pub fn slide_all(&mut self, slides: bool) {
        self.plan.iter_mut().for_each(|layer| layer.slides = slides);
    }

    /// Makes all layers slide but every `period`-th.
    pub fn slide_but_every(&mut self, period: usize) {
        for (index, layer) in self.plan.iter_mut().enumerate() {
            layer.slides = period > 0 && !(index + 1).is_multiple_of(period);
        }
    }

    /// Makes every layer a mixture of these experts.
    pub fn mix_all(&mut self, experts: Experts) {
        self.experts = Some(experts);
        self.plan.iter_mut().for_each(|layer| layer.sparse = true);
    }

    /// Makes every layer recurrent but each `period`-th.
    pub fn recur_but_every(&mut self, period: usize) {
        for (index, layer) in self.plan.iter_mut().enumerate() {
            let attends = period > 0 && (index + 1).is_multiple_of(period);
            layer.mixer = if attends { Mixer::Attention } else { Mixer::Recurrent };
        }
    }

    /// Settles what follows from the layers that slide.
    fn settle(&mut self, path: &Path) -> Result<()> {
        if self.style.rotates_only_sliding {
            self.plan.iter_mut().for_each(|layer| layer.rotates = layer.slides);
        }
        let first = self.plan.len().saturating_sub(self.without_keys);
        let (with_keys, without) = self.plan.split_at_mut(first);
        for layer in without {
            layer.keys_of = with_keys.iter().rposition(|other| other.slides == layer.slides);
            if layer.keys_of.is_none() {
                let reason = format!("has {} last layers that look at keys of none", self.without_keys);
                return Err(damaged(path, &reason));
            }
        }
        Ok(())
    }

    /// Keys and values of a layer.
    pub fn key_heads(&self, layer: usize) -> KeyHeads {
        let slides = self.plan.get(layer).is_some_and(|layer| layer.slides);
        let own = KeyHeads { count: self.kv_heads, dim: self.head_dim, are_values: false };
        self.full_heads.filter(|_| !slides).unwrap_or(own)
    }

    /// Elements of a head in layers that do not slide.
    pub fn full_head_dim(&self) -> usize {
        self.full_heads.map_or(self.head_dim, |heads| heads.dim)
    }

    /// What each layer remembers.
    pub fn cache_layers(&self) -> Vec<LayerShape> {
        let layer = |(index, plan): (usize, &LayerPlan)| match (plan.mixer, &self.recurrent) {
            (Mixer::Attention, _) if plan.keys_of.is_some() => LayerShape::Nothing,
            (Mixer::Attention, _) => LayerShape::Tokens(TokenShape {
                heads: self.key_heads(index).count,
                key_dim: self.key_heads(index).dim,
                values: match self.latent {
                    Some(latent) => Values::InKeys(latent.rank),
                    None => Values::Own(self.key_heads(index).dim),
                },
                window: self.sliding_window.filter(|_| plan.slides),
            }),
            (Mixer::Recurrent, Some(recurrent)) => LayerShape::State(recurrent.state()),
            (Mixer::Recurrent, None) | (Mixer::Nothing, _) => LayerShape::Nothing,
        };
        self.plan.iter().enumerate().map(layer).collect()
    }
}

#[cfg(test)]
mod tests;
