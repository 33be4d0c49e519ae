//! Llama (Touvron et al., 2023) and what shares its block: Llama 2 and 3, SmolLM2, Mistral.

use std::rc::Rc;

use mlx_rs::Array;
use mlx_rs::ops::indexing::IndexOp;

use super::{LanguageModel, Logits};
use crate::engine::cache::{CacheShape, KvCache};
use crate::engine::config::ModelConfig;
use crate::engine::layers::Loader;
use crate::engine::layers::attention::{Attention, AttentionShape};
use crate::engine::layers::embedding::Embedding;
use crate::engine::layers::mlp::Mlp;
use crate::engine::layers::projection::{Norm, Projection};
use crate::engine::layers::rope::Rope;
use crate::error::Result;

pub struct Llama {
    embed_tokens: Embedding,
    blocks: Vec<Block>,
    /// Final norm and output head.
    head: Projection,
    cache_shape: CacheShape,
}

struct Block {
    attention: Attention,
    mlp: Mlp,
}

impl Llama {
    pub fn load(loader: &Loader, config: &ModelConfig) -> Result<Self> {
        let hidden = config.hidden_size;
        let rope = Rc::new(Rope::new(&config.rope));
        let embed_tokens = Embedding::load(loader, "model.embed_tokens", config.vocab_size, hidden)?;
        let blocks = (0..config.layers)
            .map(|index| Block::load(loader, config, index, &rope))
            .collect::<Result<Vec<_>>>()?;
        let norm = norm(loader, config, "model.norm")?;
        let head = if config.tie_word_embeddings {
            Projection::tied(&embed_tokens, norm)
        } else {
            let names = ["lm_head".to_owned()];
            Projection::load(loader, &names, &[config.vocab_size], hidden, Some(norm), false)?
        };
        let cache_shape = CacheShape {
            layers: config.layers,
            kv_heads: config.kv_heads,
            head_dim: config.head_dim,
            dtype: loader.dtype,
            backend: loader.backend,
        };
        Ok(Self { embed_tokens, blocks, head, cache_shape })
    }
}

impl Block {
    fn load(loader: &Loader, config: &ModelConfig, index: usize, rope: &Rc<Rope>) -> Result<Self> {
        let at = |name: &str| format!("model.layers.{index}.{name}");
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let (q, kv) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
        let attention = Attention {
            shape: AttentionShape {
                heads: config.heads,
                kv_heads: config.kv_heads,
                head_dim: config.head_dim,
                scale: (config.head_dim as f32).sqrt().recip(),
                window: config.sliding_window,
            },
            rope: Rc::clone(rope),
            input: Projection::load(
                loader,
                &[at("self_attn.q_proj"), at("self_attn.k_proj"), at("self_attn.v_proj")],
                &[q, kv, kv],
                hidden,
                Some(norm(loader, config, &at("input_layernorm"))?),
                config.attention_bias.qkv,
            )?,
            output: Projection::load(
                loader,
                &[at("self_attn.o_proj")],
                &[hidden],
                q,
                None,
                config.attention_bias.o,
            )?,
            backend: loader.backend,
        };
        let mlp = Mlp {
            gate_up: Projection::load(
                loader,
                &[at("mlp.gate_proj"), at("mlp.up_proj")],
                &[inner, inner],
                hidden,
                Some(norm(loader, config, &at("post_attention_layernorm"))?),
                config.mlp_bias,
            )?,
            down: Projection::load(loader, &[at("mlp.down_proj")], &[hidden], inner, None, config.mlp_bias)?,
        };
        Ok(Self { attention, mlp })
    }
}

fn norm(loader: &Loader, config: &ModelConfig, name: &str) -> Result<Norm> {
    Ok(Norm {
        weight: loader.vector(&format!("{name}.weight"), config.hidden_size)?,
        eps: config.rms_norm_eps,
    })
}

impl LanguageModel for Llama {
    fn forward(&self, tokens: &Array, cache: &mut KvCache, logits: Logits) -> Result<Option<Array>> {
        let length = tokens.dim(0);
        cache.reserve(length as usize)?;
        let mut x = self.embed_tokens.forward(tokens, self.cache_shape.dtype)?;
        for (index, block) in self.blocks.iter().enumerate() {
            x = block.attention.forward(&x, cache, index)?;
            x = block.mlp.forward(&x)?;
        }
        cache.advance(length as usize);
        match logits {
            Logits::None => Ok(None),
            Logits::All => Ok(Some(self.head.forward(&x)?)),
            Logits::Last if length == 1 => Ok(Some(self.head.forward(&x)?)),
            Logits::Last => Ok(Some(self.head.forward(&x.index((length - 1..length, ..)))?)),
        }
    }

    fn cache_shape(&self) -> CacheShape {
        self.cache_shape
    }

    fn arrays(&self) -> Vec<&Array> {
        let mut arrays = self.embed_tokens.arrays();
        arrays.extend(self.head.arrays());
        for block in &self.blocks {
            arrays.extend(block.attention.arrays());
            arrays.extend(block.mlp.arrays());
        }
        arrays
    }
}
