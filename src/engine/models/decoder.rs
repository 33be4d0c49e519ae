//! The decoder that every architecture's description builds: an embedding, blocks of attention or what
//! stands in its place and feed-forward, a norm and a head.

use std::rc::Rc;

use mlx_rs::{Array, Dtype};

use super::LanguageModel;
use crate::engine::cache::CacheShape;
use crate::engine::config::recurrent::Recurrent;
use crate::engine::config::style::{Mixer, Placement, QkNorm};
use crate::engine::config::{self, ModelConfig};
use crate::engine::layers::Loader;
use crate::engine::layers::attention::{Attention, AttentionShape, AttentionVectors};
use crate::engine::layers::delta_net::DeltaNet;
use crate::engine::layers::embedding::Embedding;
use crate::engine::layers::experts::Experts;
use crate::engine::layers::mamba::Mamba;
use crate::engine::layers::mlp::Mlp;
use crate::engine::layers::norm::{HeadNorms, Norm, capped, rotated_weights};
use crate::engine::layers::projection::Projection;
use crate::engine::layers::rope::Rope;
use crate::engine::layers::sequences::{Batch, Sight};
use crate::engine::layers::short_conv::ShortConv;
use crate::engine::layers::step::{Sequence, Step};
use crate::error::{Error, Result};

pub struct Decoder {
    stack: Stack,
    /// Final norm and output head.
    head: Projection,
    logits_scale: f32,
    logits_cap: Option<f32>,
    cache_shape: CacheShape,
}

/// Embedding and blocks: what is left of a decoder without its last norm and its head.
pub(super) struct Stack {
    pub(super) embed_tokens: Embedding,
    embedding_scale: f32,
    pub(super) blocks: Vec<Block>,
    dtype: Dtype,
}

pub(super) struct Block {
    mixer: Mixing,
    feed_forward: FeedForward,
    /// Whether the feed-forward block sees what attention saw.
    parallel: bool,
}

enum Mixing {
    Attention(Box<Attention>),
    Delta(Box<DeltaNet>),
    ShortConv(Box<ShortConv>),
    Mamba(Box<Mamba>),
}

enum FeedForward {
    Dense(Box<Mlp>),
    Sparse(Box<Experts>),
    Nothing,
}

impl Stack {
    pub(super) fn load(loader: &Loader, config: &ModelConfig) -> Result<Self> {
        let hidden = config.hidden_size;
        let rope = |rope: &config::Rope| Rc::new(Rope::new(rope, config.head_dim, loader.context));
        let ropes = Ropes { everywhere: rope(&config.rope), local: config.local_rope.as_ref().map(rope) };
        let embed_tokens = Embedding::load(loader, "model.embed_tokens", config.vocab_size, hidden)?;
        let blocks = (0..config.layers)
            .map(|index| Block::load(loader, config, index, &ropes))
            .collect::<Result<Vec<_>>>()?;
        Ok(Self { embed_tokens, embedding_scale: config.embedding_scale, blocks, dtype: loader.dtype })
    }

    /// `tokens [L] int32 → [L, hidden]` in the compute type.
    pub(super) fn embed(&self, tokens: &Array) -> Result<Array> {
        self.embed_tokens.forward(tokens, self.embedding_scale, self.dtype)
    }

    pub(super) fn arrays(&self) -> Vec<&Array> {
        let mut arrays = self.embed_tokens.arrays();
        arrays.extend(self.blocks.iter().flat_map(Block::arrays));
        arrays
    }
}

impl Decoder {
    pub fn load(loader: &Loader, config: &ModelConfig) -> Result<Self> {
        let hidden = config.hidden_size;
        let stack = Stack::load(loader, config)?;
        let norm = Norm::load(loader, config, config.architecture.names.final_norm, hidden)?;
        let head = if config.tie_word_embeddings {
            Projection::tied(&stack.embed_tokens, norm)
        } else {
            let names = ["lm_head".to_owned()];
            Projection::load(loader, &names, &[config.vocab_size], hidden, Some(norm), config.head_bias)?
        };
        let cache_shape =
            CacheShape { layers: config.cache_layers(), dtype: loader.dtype, backend: loader.backend };
        Ok(Self {
            stack,
            head,
            logits_scale: config.logits_scale,
            logits_cap: config.logits_cap,
            cache_shape,
        })
    }

    /// Logits of hidden states `[L, hidden]`.
    fn logits(&self, x: &Array) -> Result<Array> {
        let logits = self.head.forward_scaled(x, self.logits_scale)?;
        match self.logits_cap {
            Some(cap) => capped(&logits, cap),
            None => Ok(logits),
        }
    }
}

/// The ropes of a model, which its layers share.
struct Ropes {
    everywhere: Rc<Rope>,
    /// Of layers that slide, where it is another.
    local: Option<Rc<Rope>>,
}

impl Block {
    fn load(loader: &Loader, config: &ModelConfig, index: usize, ropes: &Ropes) -> Result<Self> {
        let (style, names, plan) = (config.style, &config.architecture.names, config.plan[index]);
        let at = |name: &str| format!("model.layers.{index}.{name}");
        let all = |names: &[&str]| names.iter().map(|name| at(name)).collect::<Vec<_>>();
        let hidden = config.hidden_size;
        let norm = |name: &str| Norm::load(loader, config, &at(name), hidden);
        let has_norm = |wanted: &[Placement], name: &str| -> Result<Option<Norm>> {
            wanted.contains(&style.placement).then(|| norm(name)).transpose()
        };
        let before = &[Placement::Before, Placement::Around];
        let after = &[Placement::After, Placement::Around];
        let parallel = style.placement == Placement::Parallel;

        let rope = ropes.local.as_ref().filter(|_| plan.slides).unwrap_or(&ropes.everywhere);
        let rope = plan.rotates.then_some(rope);
        let first = if parallel {
            Some(norm(names.attention_norm)?)
        } else {
            has_norm(before, names.attention_norm)?
        };
        let layer = format!("model.layers.{index}");
        let post_norm = has_norm(after, names.attention_post_norm)?;
        let mixer = match (plan.mixer, &config.recurrent) {
            (Mixer::Recurrent, Some(Recurrent::Delta(sizes))) => {
                let delta = DeltaNet::load(loader, config, sizes, &layer, first.clone())?;
                Mixing::Delta(Box::new(delta))
            }
            (Mixer::Recurrent, Some(Recurrent::ShortConv(sizes))) => {
                let conv = ShortConv::load(loader, config, sizes, &layer, first.clone())?;
                Mixing::ShortConv(Box::new(conv))
            }
            (Mixer::Recurrent, Some(Recurrent::Mamba(sizes))) => {
                let mamba = Mamba::load(loader, config, sizes, &at(names.mamba), first.clone())?;
                Mixing::Mamba(Box::new(mamba))
            }
            _ => {
                let attention = attention(loader, config, &layer, rope, first.clone(), post_norm)?;
                Mixing::Attention(Box::new(attention))
            }
        };

        if !plan.feeds {
            return Ok(Self { mixer, feed_forward: FeedForward::Nothing, parallel });
        }
        let second = if parallel { first } else { has_norm(before, names.mlp_norm)? };
        let post_norm = has_norm(after, names.mlp_post_norm)?;
        let feed_forward = if let Some(experts) = config.experts.filter(|_| plan.sparse) {
            let experts = Experts::load(loader, config, &experts, &layer, second, post_norm)?;
            FeedForward::Sparse(Box::new(experts))
        } else {
            let split = names.split_mlp.filter(|[gate, ..]| loader.has(&at(gate)));
            let (gate_up, down) = match split {
                Some([gate, up, down]) => (all(&[gate, up]), at(down)),
                None => (all(names.gate_up), at(names.down)),
            };
            FeedForward::Dense(Box::new(dense(loader, config, &gate_up, &down, second, post_norm)?))
        };
        Ok(Self { mixer, feed_forward, parallel })
    }

    fn forward(&self, x: &Array, step: &mut Step, index: usize) -> Result<Array> {
        let mixed = match &self.mixer {
            Mixing::Attention(attention) => attention.forward(x, step, index)?,
            Mixing::Delta(delta) => delta.forward(x, step, index)?,
            Mixing::ShortConv(conv) => conv.forward(x, step, index)?,
            Mixing::Mamba(mamba) => mamba.forward(x, step, index)?,
        };
        self.feed(x, mixed)
    }

    /// The block for the sequences of a batch, see [`Attention::forward_sequences`]; only attention knows
    /// several of them.
    pub(super) fn forward_sequences(
        &self,
        x: &Array,
        batch: &Batch,
        rotation: Option<&Array>,
        sight: Sight,
    ) -> Result<Array> {
        let Mixing::Attention(attention) = &self.mixer else {
            return Err(Error::internal("several sequences in a layer without attention"));
        };
        self.feed(x, attention.forward_sequences(x, batch, rotation, sight)?)
    }

    /// The rope of the block's attention; `None`: nothing is rotated.
    pub(super) fn rope(&self) -> Option<&Rc<Rope>> {
        match &self.mixer {
            Mixing::Attention(attention) => attention.rope.as_ref(),
            Mixing::Delta(_) | Mixing::ShortConv(_) | Mixing::Mamba(_) => None,
        }
    }

    /// The feed-forward block behind what attention, or what stands in its place, made of `x`.
    fn feed(&self, x: &Array, mixed: Array) -> Result<Array> {
        let input = if self.parallel { x } else { &mixed };
        match &self.feed_forward {
            FeedForward::Dense(mlp) => mlp.forward_onto(input, &mixed),
            FeedForward::Sparse(experts) => experts.forward_onto(input, &mixed),
            FeedForward::Nothing => Ok(mixed),
        }
    }

    fn arrays(&self) -> Vec<&Array> {
        let mut arrays = match &self.mixer {
            Mixing::Attention(attention) => attention.arrays(),
            Mixing::Delta(delta) => delta.arrays(),
            Mixing::ShortConv(conv) => conv.arrays(),
            Mixing::Mamba(mamba) => mamba.arrays(),
        };
        arrays.extend(match &self.feed_forward {
            FeedForward::Dense(mlp) => mlp.arrays(),
            FeedForward::Sparse(experts) => experts.arrays(),
            FeedForward::Nothing => Vec::new(),
        });
        arrays
    }
}

/// `layer` is the name that the modules begin with.
fn attention(
    loader: &Loader,
    config: &ModelConfig,
    layer: &str,
    rope: Option<&Rc<Rope>>,
    norm: Option<Norm>,
    post_norm: Option<Norm>,
) -> Result<Attention> {
    let (style, names, hidden) = (config.style, &config.architecture.names, config.hidden_size);
    let at = |name: &str| format!("{layer}.{name}");
    let (heads, head_dim, bias) = (config.heads, config.head_dim, config.attention_bias);
    let (q, kv) = (heads * head_dim, config.kv_heads * head_dim);
    let qkv: Vec<String> = names.qkv.iter().map(|name| at(name)).collect();
    let (input, gate) = if style.gated_attention {
        let (input, gate) =
            Projection::load_with_gate(loader, &qkv, [q, kv], head_dim, hidden, norm, bias.qkv)?;
        (input, Some(gate))
    } else {
        let rows: &[usize] = if qkv.len() == 1 { &[q + 2 * kv] } else { &[q, kv, kv] };
        (Projection::load(loader, &qkv, rows, hidden, norm, bias.qkv)?, None)
    };
    let (q_norm, k_norm) = (at(names.q_norm), at(names.k_norm));
    let head_norms = style.qk_norm.map(|kind| HeadNorms::load(loader, config, kind, [&q_norm, &k_norm]));
    let is_late = style.qk_norm == Some(QkNorm::Rotated);
    let query_weights = is_late.then(|| rotated_weights(loader, config, [&q_norm, &k_norm]));
    let sinks = config.attention_sinks.then(|| loader.vector(&at(names.sinks), heads));
    Ok(Attention {
        shape: AttentionShape {
            heads,
            kv_heads: config.kv_heads,
            head_dim,
            value_dim: head_dim,
            scale: config.attention_scale,
            soft_cap: config.attention_cap,
            growth: config.query_growth,
        },
        rope: rope.map(Rc::clone),
        input,
        head_norms: head_norms.transpose()?,
        gate,
        vectors: AttentionVectors::new(
            loader.backend,
            rope.map(|rope| &**rope),
            query_weights.transpose()?,
            sinks.transpose()?,
        )?,
        output: Projection::load(loader, &[at(names.output)], &[hidden], q, None, bias.o)?,
        post_norm,
        factor: config.residual_scale,
        backend: loader.backend,
    })
}

fn dense(
    loader: &Loader,
    config: &ModelConfig,
    gate_up: &[String],
    down: &str,
    norm: Option<Norm>,
    post_norm: Option<Norm>,
) -> Result<Mlp> {
    let (hidden, inner, bias) = (config.hidden_size, config.intermediate_size, config.mlp_bias);
    let gated = config.style.gated;
    Ok(Mlp {
        gate_up: if gated {
            Projection::load_gated(loader, gate_up, inner, hidden, norm, bias)?
        } else {
            Projection::load(loader, gate_up, &[inner], hidden, norm, bias)?
        },
        gated,
        activation: config.style.activation,
        down: Projection::load(loader, &[down.to_owned()], &[hidden], inner, None, bias)?,
        post_norm,
        factor: config.residual_scale,
    })
}

impl LanguageModel for Decoder {
    fn forward_together(&self, tokens: &Array, sequences: &mut [Sequence]) -> Result<Option<Array>> {
        let mut step = Step::begin(tokens.dim(0) as usize, sequences)?;
        let mut x = self.stack.embed(tokens)?;
        for (index, block) in self.stack.blocks.iter().enumerate() {
            x = block.forward(&x, &mut step, index)?;
        }
        step.end(x)?.map(|x| self.logits(&x)).transpose()
    }

    fn cache_shape(&self) -> &CacheShape {
        &self.cache_shape
    }

    fn arrays(&self) -> Vec<&Array> {
        let mut arrays = self.stack.arrays();
        arrays.extend(self.head.arrays());
        arrays
    }
}
