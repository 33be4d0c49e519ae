//! The decoder that every architecture's description builds: an embedding, blocks of attention or what
//! stands in its place and feed-forward, a norm and a head.

use std::rc::Rc;

use mlx_rs::ops::indexing::IndexOp;
use mlx_rs::{Array, Dtype, ops};

use super::LanguageModel;
use crate::engine::cache::{CacheShape, KvCache};
use crate::engine::config::recurrent::Recurrent;
use crate::engine::config::style::{Mixer, Placement, QkNorm};
use crate::engine::config::{self, ModelConfig};
use crate::engine::ffi::{Operand, Tensor};
use crate::engine::layers::ahead::Ahead;
use crate::engine::layers::attention::{Attention, AttentionShape, AttentionVectors, Input};
use crate::engine::layers::delta_net::DeltaNet;
use crate::engine::layers::embedding::Embedding;
use crate::engine::layers::experts::Experts;
use crate::engine::layers::latent::LatentParts;
use crate::engine::layers::layer_inputs::{LayerInput, LayerInputs};
use crate::engine::layers::mamba::Mamba;
use crate::engine::layers::mlp::Mlp;
use crate::engine::layers::norm::{HeadNorms, Norm, capped, onto, rotated_weights};
use crate::engine::layers::projection::Projection;
use crate::engine::layers::rope::Rope;
use crate::engine::layers::sequences::{Batch, Sight};
use crate::engine::layers::short_conv::ShortConv;
use crate::engine::layers::step::{Logits, Sequence, Step};
use crate::engine::layers::{Backend, Loader};
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
    inputs: Option<LayerInputs>,
    pub(super) blocks: Vec<Block>,
    dtype: Dtype,
    backend: Backend,
}

pub(super) struct Block {
    mixer: Mixing,
    feed_forward: FeedForward,
    /// Whether the feed-forward block sees what attention saw.
    parallel: bool,
    /// What the layer gets beside the states, and the number that multiplies all of it.
    input: Option<Box<LayerInput>>,
    scalar: Option<Array>,
}

enum Mixing {
    Attention(Box<Attention>),
    Delta(Box<DeltaNet>),
    ShortConv(Box<ShortConv>),
    Mamba(Box<Mamba>),
    Nothing,
}

enum FeedForward {
    Dense(Box<Mlp>),
    Sparse(Box<Experts>),
    Both(Box<Beside>),
    Nothing,
}

/// A feed-forward block and a mixture of experts that see the same: `x + norm(norm1(dense(x)) + experts(x))`,
/// where the experts have norms before and behind them.
struct Beside {
    dense: Mlp,
    dense_norm: Norm,
    experts: Experts,
    post_norm: Option<Norm>,
}

impl Stack {
    pub(super) fn load(loader: &Loader, config: &ModelConfig) -> Result<Self> {
        let hidden = config.hidden_size;
        let rope = |rope: &config::Rope, head_dim| Rc::new(Rope::new(rope, head_dim, loader.context));
        let ropes = Ropes {
            everywhere: rope(&config.rope, config.full_head_dim()),
            local: config.local_rope.as_ref().map(|local| rope(local, config.head_dim)),
        };
        let inputs =
            config.layer_inputs.map(|sizes| LayerInputs::load(loader, config, &sizes)).transpose()?;
        let embed_tokens = Embedding::load(loader, "model.embed_tokens", config.vocab_size, hidden)?;
        let blocks = (0..config.layers)
            .map(|index| Block::load(loader, config, index, &ropes))
            .collect::<Result<Vec<_>>>()?;
        let embedding_scale = config.embedding_scale;
        let (dtype, backend) = (loader.dtype, loader.backend);
        Ok(Self { embed_tokens, embedding_scale, inputs, blocks, dtype, backend })
    }

    /// `tokens [L] int32 → [L, hidden]` in the compute type.
    pub(super) fn embed<X: Operand>(&self, tokens: &Array) -> Result<X> {
        self.embed_tokens.forward(tokens, self.embedding_scale, self.dtype)
    }

    /// Through all blocks, or as many as fill the caches where no logits are wanted.
    fn forward(&self, tokens: &Array, step: &mut Step) -> Result<Tensor> {
        let mut x: Tensor = self.embed(tokens)?;
        let inputs = match &self.inputs {
            Some(inputs) => Some(inputs.forward(tokens, &x.array()?, self.dtype)?),
            None => None,
        };
        let filling = self.blocks.iter().rposition(Block::fills).map_or(0, |last| last + 1);
        let count = if step.only_fills() { filling } else { self.blocks.len() };
        let longest = step.sequences().iter().map(|sequence| sequence.tokens).max().unwrap_or(0);
        let mut ahead = Ahead::new(self.backend, longest, count);
        for (index, block) in self.blocks.iter().enumerate().take(count) {
            let input = inputs.as_ref().map(|all| all.index((.., index as i32, ..)));
            x = block.forward(&x, step, index, input.as_ref())?;
            ahead.layer(|| Ok(x.array()?))?;
        }
        Ok(x)
    }

    pub(super) fn arrays(&self) -> Vec<&Array> {
        let mut arrays = self.embed_tokens.arrays();
        arrays.extend(self.inputs.iter().flat_map(LayerInputs::arrays));
        arrays.extend(self.blocks.iter().flat_map(Block::arrays));
        arrays
    }
}

impl Decoder {
    pub fn load(loader: &Loader, config: &ModelConfig) -> Result<Self> {
        let hidden = config.hidden_size;
        let norm = Norm::load(loader, config, config.architecture.names.final_norm, hidden)?;
        // Often the largest matrix, which takes twice its memory where it is quantized while it is loaded: before all
        // others are there.
        let own_head = (!config.tie_word_embeddings).then(|| {
            let (names, rows) = (["lm_head".to_owned()], [config.vocab_size]);
            Projection::load(loader, &names, &rows, hidden, Some(norm.clone()), config.head_bias)
        });
        let own_head = own_head.transpose()?;
        let stack = Stack::load(loader, config)?;
        let head = own_head.unwrap_or_else(|| Projection::tied(&stack.embed_tokens, norm));
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

    /// The logits that come of what the head makes.
    fn logits(&self, made: Array) -> Result<Array> {
        match self.logits_cap {
            Some(cap) => capped(&made, cap),
            None => Ok(made),
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
        let first = match plan.mixer {
            Mixer::Nothing => None,
            _ if parallel => Some(norm(names.attention_norm)?),
            _ => has_norm(before, names.attention_norm)?,
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
            (Mixer::Nothing, _) => Mixing::Nothing,
            _ => {
                let attention = attention(loader, config, index, rope, first.clone(), post_norm)?;
                Mixing::Attention(Box::new(attention))
            }
        };

        let input = config
            .layer_inputs
            .map(|sizes| LayerInput::load(loader, config, &sizes, &layer).map(Box::new))
            .transpose()?;
        let scalar = style.scaled_layers.then(|| loader.vector(&at(names.scalar), 1)).transpose()?;
        let block = |feed_forward| Self { mixer, feed_forward, parallel, input, scalar };
        if !plan.feeds {
            return Ok(block(FeedForward::Nothing));
        }
        let second = if parallel { first } else { has_norm(before, names.mlp_norm)? };
        let post_norm = has_norm(after, names.mlp_post_norm)?;
        let split = names.split_mlp.filter(|[gate, ..]| loader.has(&at(gate)));
        let modules = match split {
            Some([gate, up, down]) => (all(&[gate, up]), at(down)),
            None => (all(names.gate_up), at(names.down)),
        };
        let inner = plan.inner.unwrap_or(config.intermediate_size);
        let feed_forward = match config.experts.filter(|_| plan.sparse) {
            Some(sizes) if sizes.beside => {
                let [before, behind, dense_norm] = names.experts.norms;
                let (before, behind) = (Some(norm(before)?), Some(norm(behind)?));
                FeedForward::Both(Box::new(Beside {
                    dense: dense(loader, config, &modules, inner, second, None)?,
                    dense_norm: norm(dense_norm)?,
                    experts: Experts::load(loader, config, &sizes, &layer, before, behind)?,
                    post_norm,
                }))
            }
            Some(sizes) => {
                let experts = Experts::load(loader, config, &sizes, &layer, second, post_norm)?;
                FeedForward::Sparse(Box::new(experts))
            }
            None => FeedForward::Dense(Box::new(dense(loader, config, &modules, inner, second, post_norm)?)),
        };
        Ok(block(feed_forward))
    }

    /// Whether the block leaves something of the tokens in the cache.
    fn fills(&self) -> bool {
        match &self.mixer {
            Mixing::Attention(attention) => attention.keys_of.is_none(),
            Mixing::Delta(_) | Mixing::ShortConv(_) | Mixing::Mamba(_) => true,
            Mixing::Nothing => false,
        }
    }

    /// `input [L, size]` is what the layer gets beside the states.
    fn forward(&self, x: &Tensor, step: &mut Step, index: usize, input: Option<&Array>) -> Result<Tensor> {
        let mixed = match &self.mixer {
            Mixing::Attention(attention) => attention.forward(x, step, index)?,
            Mixing::Delta(delta) => delta.forward(&x.array()?, step, index)?.into(),
            Mixing::ShortConv(conv) => conv.forward(&x.array()?, step, index)?.into(),
            Mixing::Mamba(mamba) => mamba.forward(&x.array()?, step, index)?.into(),
            Mixing::Nothing => x.clone(),
        };
        let mut x = self.feed(x, mixed)?;
        if let (Some(own), Some(input)) = (&self.input, input) {
            x = own.forward(&x.array()?, input)?.into();
        }
        match &self.scalar {
            Some(scalar) => Ok(ops::multiply(x.array()?, scalar)?.into()),
            None => Ok(x),
        }
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
            Mixing::Delta(_) | Mixing::ShortConv(_) | Mixing::Mamba(_) | Mixing::Nothing => None,
        }
    }

    /// The feed-forward block behind what attention, or what stands in its place, made of `x`.
    fn feed<X: Operand>(&self, x: &X, mixed: X) -> Result<X> {
        let input = if self.parallel { x } else { &mixed };
        match &self.feed_forward {
            FeedForward::Dense(mlp) => mlp.forward_onto(input, &mixed),
            FeedForward::Sparse(experts) => experts.forward_onto(input, &mixed),
            FeedForward::Both(both) => both.forward_onto(input, &mixed),
            FeedForward::Nothing => Ok(mixed),
        }
    }

    fn arrays(&self) -> Vec<&Array> {
        let mut arrays = match &self.mixer {
            Mixing::Attention(attention) => attention.arrays(),
            Mixing::Delta(delta) => delta.arrays(),
            Mixing::ShortConv(conv) => conv.arrays(),
            Mixing::Mamba(mamba) => mamba.arrays(),
            Mixing::Nothing => Vec::new(),
        };
        arrays.extend(match &self.feed_forward {
            FeedForward::Dense(mlp) => mlp.arrays(),
            FeedForward::Sparse(experts) => experts.arrays(),
            FeedForward::Both(both) => both.arrays(),
            FeedForward::Nothing => Vec::new(),
        });
        arrays.extend(self.input.iter().flat_map(|input| input.arrays()));
        arrays.extend(&self.scalar);
        arrays
    }
}

impl Beside {
    /// `x [L, hidden]`, added to `residual [L, hidden]`.
    fn forward_onto<X: Operand>(&self, x: &X, residual: &X) -> Result<X> {
        let dense = self.dense_norm.apply(&self.dense.apply(x)?)?;
        let both = self.experts.forward_onto(x, &dense)?;
        match &self.post_norm {
            Some(norm) => norm.forward_onto(&both, residual, 1.0),
            None => Ok(X::from(onto(&residual.array()?, both.array()?, 1.0)?)),
        }
    }

    fn arrays(&self) -> Vec<&Array> {
        let mut arrays = self.dense.arrays();
        arrays.extend(self.experts.arrays());
        arrays.extend(
            [Some(&self.dense_norm), self.post_norm.as_ref()].into_iter().flatten().flat_map(Norm::arrays),
        );
        arrays
    }
}

/// The attention of the layer `index`.
fn attention(
    loader: &Loader,
    config: &ModelConfig,
    index: usize,
    rope: Option<&Rc<Rope>>,
    norm: Option<Norm>,
    post_norm: Option<Norm>,
) -> Result<Attention> {
    let (style, names, hidden) = (config.style, &config.architecture.names, config.hidden_size);
    let layer = format!("model.layers.{index}");
    let at = |name: &str| format!("{layer}.{name}");
    let (keys, keys_of) = (config.key_heads(index), config.plan[index].keys_of);
    let (heads, head_dim, bias) = (config.heads, keys.dim, config.attention_bias);
    let (q, kv) = (heads * head_dim, keys.count * head_dim);
    let modules = match *names.qkv {
        [query, key, _] if keys.are_values => &[query, key, key][..],
        _ => names.qkv,
    };
    let modules = if keys_of.is_some() { &modules[..1] } else { modules };
    let qkv: Vec<String> = modules.iter().map(|name| at(name)).collect();
    let mut value_dim = head_dim;
    let mut attended = q;
    let (input, gate) = if let Some(latent) = &config.latent {
        (value_dim, attended) = (latent.rank, heads * latent.value);
        (Input::Latent(Box::new(LatentParts::load(loader, config, latent, &layer, norm)?)), None)
    } else if style.gated_attention {
        let (input, gate) =
            Projection::load_with_gate(loader, &qkv, [q, kv], head_dim, hidden, norm, bias.qkv)?;
        (Input::Plain(input), Some(gate))
    } else {
        let rows: &[usize] = match (qkv.len(), keys_of) {
            (1, None) => &[q + 2 * kv],
            (1, Some(_)) => &[q],
            _ => &[q, kv, kv],
        };
        (Input::Plain(Projection::load(loader, &qkv, rows, hidden, norm, bias.qkv)?), None)
    };
    let (q_norm, k_norm) = (at(names.q_norm), at(names.k_norm));
    let head_norms =
        style.qk_norm.map(|kind| HeadNorms::load(loader, config, index, kind, [&q_norm, &k_norm]));
    let is_late = style.qk_norm == Some(QkNorm::Rotated);
    let query_weights = is_late.then(|| rotated_weights(loader, config, [&q_norm, &k_norm]));
    let sinks = config.attention_sinks.then(|| loader.vector(&at(names.sinks), heads));
    Ok(Attention {
        shape: AttentionShape {
            heads,
            kv_heads: keys.count,
            head_dim,
            value_dim,
            scale: config.attention_scale,
            soft_cap: config.attention_cap,
            growth: config.query_growth,
        },
        rope: rope.map(Rc::clone),
        input,
        keys_of,
        head_norms: head_norms.transpose()?,
        gate,
        vectors: AttentionVectors::new(
            loader.backend,
            rope.map(|rope| &**rope),
            query_weights.transpose()?,
            sinks.transpose()?,
        )?,
        output: Projection::load(loader, &[at(names.output)], &[hidden], attended, None, bias.o)?,
        post_norm,
        factor: config.residual_scale,
        backend: loader.backend,
    })
}

/// `modules` are gate and up, in one or two, and down.
fn dense(
    loader: &Loader,
    config: &ModelConfig,
    (gate_up, down): &(Vec<String>, String),
    inner: usize,
    norm: Option<Norm>,
    post_norm: Option<Norm>,
) -> Result<Mlp> {
    let (hidden, bias) = (config.hidden_size, config.mlp_bias);
    let gated = config.style.gated;
    Ok(Mlp {
        gate_up: if gated {
            Projection::load_gated(loader, gate_up, inner, hidden, norm, bias)?
        } else {
            Projection::load(loader, gate_up, &[inner], hidden, norm, bias)?
        },
        gated,
        activation: config.style.activation,
        down: Projection::load(loader, std::slice::from_ref(down), &[hidden], inner, None, bias)?,
        post_norm,
        factor: config.residual_scale,
    })
}

/// The cache of a step's only token, whose logits are wanted.
fn only_token<'a>(sequences: &'a mut [Sequence]) -> Option<&'a mut KvCache> {
    match sequences {
        [Sequence { tokens: 1, cache, logits: Logits::All | Logits::Last }] => Some(cache),
        _ => None,
    }
}

impl LanguageModel for Decoder {
    fn forward_together(&self, tokens: &Array, sequences: &mut [Sequence]) -> Result<Option<Array>> {
        if let Some(cache) = only_token(sequences)
            && let Some(made) = cache.again(tokens)?
        {
            return self.logits(made).map(Some);
        }
        let mut step = Step::begin(tokens.dim(0) as usize, sequences)?;
        let x = self.stack.forward(tokens, &mut step)?;
        let Some(x) = step.end(x)? else { return Ok(None) };
        let made = self.head.forward_scaled(&x, self.logits_scale)?;
        drop(x);
        if let Some(cache) = only_token(sequences) {
            cache.remember(&made)?;
        }
        self.logits(made.array()?).map(Some)
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
