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

pub use gguf::{GgufFields, from_gguf};
pub use huggingface::{ConfigFiles, from_config_json};
pub use latent::Latent;
pub use limits::MAX_LAYERS;
pub use outline::Outline;
pub use quantization::{Affine, Packing, Quantization};
pub use rope::{Rope, RopeScaling, parameters as rope_parameters, yarn_magnitude};

use crate::engine::cache::{LayerShape, TokenShape, Values};
use crate::engine::format::weight::FloatType;
use crate::engine::models::Architecture;
use recurrent::Recurrent;
use style::{Direction, Experts, Growth, LayerPlan, Mixer, Style};

/// Which projections of the attention have biases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AttentionBias {
    /// `q_proj`, `k_proj` and `v_proj`.
    pub qkv: bool,
    pub o: bool,
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
    pub hidden_size: usize,
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
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
    fn settle(&mut self) {
        if self.style.rotates_only_sliding {
            self.plan.iter_mut().for_each(|layer| layer.rotates = layer.slides);
        }
    }

    /// What each layer remembers.
    pub fn cache_layers(&self) -> Vec<LayerShape> {
        let layer = |plan: &LayerPlan| match (plan.mixer, &self.recurrent) {
            (Mixer::Attention, _) => LayerShape::Tokens(TokenShape {
                heads: self.kv_heads,
                key_dim: self.head_dim,
                values: self.latent.map_or(Values::Own(self.head_dim), |latent| Values::InKeys(latent.rank)),
                window: self.sliding_window.filter(|_| plan.slides),
            }),
            (Mixer::Recurrent, Some(recurrent)) => LayerShape::State(recurrent.state()),
            (Mixer::Recurrent, None) => LayerShape::Nothing,
        };
        self.plan.iter().map(layer).collect()
    }
}

#[cfg(test)]
mod tests;
