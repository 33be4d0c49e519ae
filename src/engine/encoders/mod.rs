//! Encoders: models whose tokens all see each other. One architecture a file, named as `model_type` in
//! config.json names it; a file says which parts the model is made of and where their weights lie.
//!
//! The tokens of all texts of a batch lie one after the other, `[L, K]`, without padding; only attention
//! knows where a text begins and ends.

mod bert;
mod block;
mod distilbert;
mod gguf;
#[cfg(target_os = "linux")]
mod groups;
mod linear;
mod modernbert;
mod mpnet;
mod nomic_bert;
mod roberta;
mod settings;
mod table;
mod weights;

use std::sync::Arc;

use mlx_rs::{Array, Dtype, transforms};

use self::block::Block;
use self::settings::Settings;
use self::weights::{Mode, Weights};
use super::config::style::Activation;
use super::ffi::Operand;
#[cfg(target_os = "linux")]
use super::ffi::Tensor;
use super::format::checkpoint::Configuration;
use super::format::file::unsupported;
use super::format::metadata::Metadata;
use super::format::tensors::Tensors;
use super::format::weight::FloatType;
#[cfg(target_os = "linux")]
use super::kernels;
use super::layers::Backend;
use super::layers::norm::Norm;
use super::layers::sequences::{Batch, Rotation};
use super::probe::{Demand, Steps, Working};
use crate::error::{Error, Result};

pub use self::linear::{After, Linear};
pub use self::table::Table;

/// Every `model_type` of config.json and `general.architecture` of a GGUF that is an encoder known here.
pub const TYPES: &[&str] = &[
    "bert",
    "roberta",
    "xlm-roberta",
    "camembert",
    "distilbert",
    "mpnet",
    "nomic_bert",
    "nomic-bert",
    "modernbert",
];

/// Sizes that every encoder has.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    pub hidden: usize,
    pub layers: usize,
    pub heads: usize,
    /// Width of the feed-forward part.
    pub inner: usize,
    pub vocabulary: usize,
    /// Tokens of the longest text that the model can take.
    pub max_tokens: usize,
    pub epsilon: f32,
    pub activation: Activation,
}

/// An encoder with its weights in memory. Bound to the thread that loaded it.
pub struct Encoder {
    shape: Shape,
    words: Table,
    positions: Option<Positions>,
    /// What is added to every token: the embedding of the first text type.
    kind: Option<Vec<f32>>,
    embeddings_norm: Option<Norm>,
    blocks: Vec<Block>,
    rotations: Vec<Rotation>,
    final_norm: Option<Norm>,
    dtype: Dtype,
}

/// Learned embeddings of positions.
struct Positions {
    table: Table,
    /// The id whose tokens have no position, where counting begins after it (RoBERTa).
    padding: Option<u32>,
}

/// A checkpoint that an encoder can be made of: headers and configuration, nothing loaded.
pub struct EncoderFiles {
    settings: Settings,
    tensors: Arc<Tensors>,
}

impl EncoderFiles {
    pub(in crate::engine) fn assemble(tensors: Tensors, configuration: Configuration) -> Self {
        Self { settings: Settings::new(configuration), tensors: Arc::new(tensors) }
    }

    /// What the memory gate needs to know. Every tensor that the model needs is there and has the right
    /// shape when this succeeds.
    ///
    /// # Errors
    /// MODEL_UNSUPPORTED for an architecture or a setting that is not known, INTEGRITY_FAILED for
    /// tensors that are missing or have other shapes.
    pub fn demand(&self) -> Result<Demand> {
        let mut ignore = |_, _| {};
        let weights = Weights::new(Arc::clone(&self.tensors), Mode::Check, &mut ignore);
        let shape = build(&self.settings, &weights)?.shape;
        Ok(Demand {
            weights: weights.sizes(),
            cache: Vec::new(),
            context: shape.max_tokens,
            dtype: weights.stored_type(),
            working: Working {
                // Queries, keys and values, what attention finds, both parts' results.
                numbers: 6 * shape.hidden + shape.inner,
                // All of them follow each other in one place.
                layers: 1,
                tokens: shape.vocabulary,
                steps: Steps::Texts(usize::MAX),
            },
            draft: None,
        })
    }

    /// Metadata of a GGUF file; `None` for a folder.
    pub fn metadata(&self) -> Option<&Metadata> {
        self.settings.metadata()
    }

    /// The tensors of the files.
    pub fn tensors(&self) -> &Tensors {
        &self.tensors
    }

    /// Loads and evaluates the weights; `progress` gets (done, total) bytes.
    pub fn load(
        &self,
        backend: Backend,
        dtype: FloatType,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Encoder> {
        let weights = Weights::new(Arc::clone(&self.tensors), Mode::Load { backend, dtype }, progress);
        let encoder = build(&self.settings, &weights)?;
        transforms::eval(encoder.arrays())?;
        Ok(encoder)
    }
}

fn build(settings: &Settings, weights: &Weights) -> Result<Encoder> {
    let kind = settings.architecture()?;
    match kind.as_str() {
        "bert" => bert::load(settings, weights),
        "roberta" | "xlm-roberta" | "camembert" => roberta::load(settings, weights),
        "distilbert" => distilbert::load(settings, weights),
        "mpnet" => mpnet::load(settings, weights),
        "nomic_bert" | "nomic-bert" => nomic_bert::load(settings, weights),
        "modernbert" => modernbert::load(settings, weights),
        other => Err(unsupported(settings.path(), &format!("is an encoder of the type {other:?}"))
            .hint(format!("supported are {}", TYPES.join(", ")))
            .detail("architecture", other)),
    }
}

impl Encoder {
    /// Width of the hidden states.
    pub fn hidden(&self) -> usize {
        self.shape.hidden
    }

    /// Tokens that the model knows.
    pub fn vocabulary(&self) -> usize {
        self.shape.vocabulary
    }

    /// Tokens of the longest text that the model can take.
    pub fn max_tokens(&self) -> usize {
        self.shape.max_tokens
    }

    /// Whether threads compute texts of their own where there are so many tokens, at most `longest` of them in
    /// a text: then few of their results are in memory at the same time.
    #[cfg_attr(not(target_os = "linux"), expect(unused_variables, reason = "for the kernels"))]
    pub fn computes_groups(backend: Backend, tokens: usize, longest: usize) -> bool {
        match backend {
            #[cfg(target_os = "linux")]
            Backend::Kernels => groups::are_worth_it(tokens, longest, kernels::pool::threads()),
            _ => false,
        }
    }

    /// Hidden states of the last layer, `[L, hidden]` in the compute type, lazily.
    pub fn forward(&mut self, batch: &Batch) -> Result<Array> {
        match batch.backend() {
            #[cfg(target_os = "linux")]
            Backend::Kernels => {
                let groups = groups::of(batch.texts(), kernels::pool::threads());
                if let [_] = groups.as_slice() {
                    return Ok(self.states::<Tensor>(batch)?.array()?);
                }
                let mut parts = Vec::with_capacity(groups.len());
                for group in groups {
                    parts.push(self.states::<Tensor>(&Batch::new(group, Backend::Kernels)?)?);
                }
                Ok(kernels::together(&parts)?)
            }
            _ => self.states(batch),
        }
    }

    /// The states of texts that are computed together.
    fn states<X: Operand>(&mut self, batch: &Batch) -> Result<X> {
        let sums = Array::from_slice(&self.embed(batch)?, &[batch.tokens() as i32, self.shape.hidden as i32]);
        let mut x = X::from(sums.as_dtype(self.dtype)?);
        if let Some(norm) = &self.embeddings_norm {
            x = norm.apply(&x)?;
        }
        let rotations: Vec<Array> = self
            .rotations
            .iter()
            .map(|rotation| rotation.table(batch.longest()).as_dtype(self.dtype))
            .collect::<Result<_, _>>()?;
        for block in &self.blocks {
            let rotation = block.rotation().and_then(|index| rotations.get(index));
            x = block.forward(&x, batch, rotation)?;
        }
        match &self.final_norm {
            Some(norm) => norm.apply(&x),
            None => Ok(x),
        }
    }

    /// The sums of embeddings of each token's word, position and type.
    fn embed(&mut self, batch: &Batch) -> Result<Vec<f32>> {
        let hidden = self.shape.hidden;
        let mut sums = vec![0.0; batch.tokens() * hidden];
        let mut row = vec![0.0; hidden];
        let mut rows = sums.chunks_exact_mut(hidden);
        for text in batch.texts() {
            if text.len() > self.shape.max_tokens {
                return Err(Error::internal(format!("a text of {} tokens is too long", text.len())));
            }
            let mut position = 0;
            for (&id, sum) in text.iter().zip(&mut rows) {
                self.words.read(id as usize, sum)?;
                if let Some(positions) = &mut self.positions {
                    let index = match positions.padding {
                        Some(padding) if id == padding => padding as usize,
                        Some(padding) => {
                            position += 1;
                            padding as usize + position
                        }
                        None => {
                            position += 1;
                            position - 1
                        }
                    };
                    positions.table.read(index, &mut row)?;
                    add(sum, &row);
                }
                if let Some(kind) = &self.kind {
                    add(sum, kind);
                }
            }
        }
        Ok(sums)
    }

    fn arrays(&self) -> Vec<&Array> {
        let norms = self.embeddings_norm.iter().chain(&self.final_norm).flat_map(Norm::arrays);
        norms.chain(self.blocks.iter().flat_map(Block::arrays)).collect()
    }
}

fn add(sum: &mut [f32], row: &[f32]) {
    for (sum, value) in sum.iter_mut().zip(row) {
        *sum += value;
    }
}
