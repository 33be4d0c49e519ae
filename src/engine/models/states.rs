//! A decoder that gives hidden states instead of logits: what turns texts into vectors.

use std::rc::Rc;

use mlx_rs::{Array, Dtype, transforms};

use super::decoder::Stack;
use crate::engine::config::RopeScaling;
use crate::engine::config::style::{Direction, Mixer, QkNorm};
use crate::engine::failure::no_embedding;
use crate::engine::format::checkpoint::Checkpoint;
use crate::engine::format::file::unsupported;
use crate::engine::layers::ahead::Ahead;
use crate::engine::layers::norm::Norm;
use crate::engine::layers::rope::Rope;
use crate::engine::layers::sequences::{Batch, Sight};
use crate::engine::layers::{Backend, Loader};
use crate::error::Result;

/// A decoder without a head, with its weights in memory. Bound to the thread that loaded it.
pub struct StateModel {
    stack: Stack,
    norm: Norm,
    /// Of each block.
    sights: Vec<Sight>,
    dtype: Dtype,
    vocabulary: usize,
    max_tokens: usize,
}

impl StateModel {
    /// Loads and evaluates the weights; `progress` gets (done, total) bytes.
    pub fn load(
        checkpoint: &Checkpoint,
        backend: Backend,
        dtype: Dtype,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self> {
        let config = &checkpoint.config;
        let max_tokens = longest(checkpoint)?;
        let loader = Loader::new(checkpoint, backend, dtype, max_tokens, progress);
        let norm = Norm::load(&loader, config, config.architecture.names.final_norm, config.hidden_size)?;
        let stack = Stack::load(&loader, config)?;
        let causal = config.direction == Direction::Causal;
        let window = |slides: bool| config.sliding_window.filter(|_| slides);
        let sights = config.plan.iter().map(|plan| Sight { window: window(plan.slides), causal }).collect();
        let model = Self { stack, norm, sights, dtype, vocabulary: config.vocab_size, max_tokens };
        transforms::eval(model.stack.arrays().into_iter().chain(model.norm.arrays()))?;
        Ok(model)
    }

    /// Tokens that the model knows.
    pub fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// Tokens of the longest text that the model can take.
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// Hidden states after the last norm, `[L, hidden]` in the compute type, lazily.
    pub fn forward(&self, batch: &Batch) -> Result<Array> {
        let ids = batch.texts().iter().copied().flatten();
        if let Some(id) = ids.clone().find(|&&id| id as usize >= self.vocabulary) {
            return Err(no_embedding(*id, self.vocabulary));
        }
        let ids: Vec<i32> = ids.map(|&id| id as i32).collect();
        let mut x: Array = self.stack.embed(&Array::from_slice(&ids, &[ids.len() as i32]))?;
        let mut ahead = Ahead::new(batch.backend(), batch.tokens(), self.stack.blocks.len());
        // Layers share ropes: one table for each of them.
        let mut tables: Vec<(&Rc<Rope>, Array)> = Vec::new();
        for (block, &sight) in self.stack.blocks.iter().zip(&self.sights) {
            let known = |rope: &Rc<Rope>| tables.iter().position(|table| Rc::ptr_eq(table.0, rope));
            let place = block.rope().map(|rope| known(rope).unwrap_or(tables.len()));
            if let (Some(rope), Some(place)) = (block.rope(), place)
                && place == tables.len()
            {
                tables.push((rope, rope.rotation.table(batch.longest()).as_dtype(self.dtype)?));
            }
            let table = place.and_then(|place| Some(&tables.get(place)?.1));
            x = block.forward_sequences(&x, batch, table, sight)?;
            ahead.layer(|| Ok(x.clone()))?;
        }
        self.norm.apply(&x)
    }
}

/// Tokens of the longest text that the model takes.
///
/// # Errors
/// MODEL_UNSUPPORTED for what attention over whole texts lacks.
pub fn longest(checkpoint: &Checkpoint) -> Result<usize> {
    let config = &checkpoint.config;
    let recurs = config.plan.iter().any(|layer| layer.mixer != Mixer::Attention);
    let lacks = [
        (recurs, "has layers without attention"),
        (config.style.scaled_layers, "scales what leaves its layers"),
        (config.latent.is_some(), "has attention over latents"),
        (config.attention_cap.is_some(), "caps the scores of attention"),
        (config.attention_sinks, "has sinks beside the scores of attention"),
        (config.query_growth.is_some(), "has queries that grow with their position"),
        (config.style.qk_norm == Some(QkNorm::Rotated), "normalises queries and keys once they are rotated"),
    ];
    if let Some((_, what)) = lacks.into_iter().find(|(lacks, _)| *lacks) {
        return Err(unsupported(checkpoint.path(), &format!("{what}, which embed does not"))
            .hint("use another embedding model"));
    }
    let most = config.max_position_embeddings;
    // Beyond their original length these scalings would change the rotation with each text's length.
    Ok(match &config.rope.scaling {
        RopeScaling::Dynamic { original_max_position_embeddings: original, .. }
        | RopeScaling::Long { original_max_position_embeddings: original, .. } => {
            most.min(*original as usize)
        }
        _ => most,
    })
}
