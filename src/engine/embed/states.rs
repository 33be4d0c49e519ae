//! Models that give a vector for each token: encoders, and decoders without their heads.

use std::path::Path;

use mlx_rs::Array;

use crate::engine::encoders::{self, Encoder, EncoderFiles};
use crate::engine::ffi::array;
use crate::engine::format::checkpoint::{Checkpoint, Configuration};
use crate::engine::format::file::unsupported;
use crate::engine::format::metadata::Metadata;
use crate::engine::format::tensors::Tensors;
use crate::engine::format::weight::FloatType;
use crate::engine::layers::Backend;
use crate::engine::layers::sequences::Batch;
use crate::engine::models::{self, StateModel};
use crate::engine::probe::{Demand, Steps, Working};
use crate::error::Result;

/// A checkpoint of which hidden states are wanted: headers and configuration, nothing loaded.
pub enum StateFiles {
    Encoder(EncoderFiles),
    Decoder(Box<Checkpoint>),
}

/// A model with its weights in memory. Bound to the thread that loaded it.
pub enum States {
    Encoder(Box<Encoder>),
    Decoder { model: Box<StateModel>, hidden: usize },
}

impl StateFiles {
    /// Opens the folder of a model, or a .gguf file.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn open(path: &Path) -> Result<Self> {
        let (tensors, configuration) = Configuration::open(path)?;
        Self::assemble(tensors, configuration)
    }

    pub(in crate::engine) fn assemble(tensors: Tensors, configuration: Configuration) -> Result<Self> {
        let (name, is_decoder) = match &configuration {
            Configuration::Folder(files, _) => {
                let name = files.config.get("model_type").and_then(|name| name.as_str()).unwrap_or_default();
                (name, models::of_config(&files.config).is_some())
            }
            Configuration::Gguf { metadata, .. } => {
                let name = metadata.text("general.architecture").unwrap_or_default();
                (name, [false, true].into_iter().any(|sparse| models::of_gguf(name, sparse).is_some()))
            }
        };
        if is_decoder {
            return Ok(Self::Decoder(Box::new(Checkpoint::assemble_headless(tensors, configuration)?)));
        }
        if !encoders::TYPES.contains(&name) {
            let name: String = name.chars().take(64).collect();
            let path = match &configuration {
                Configuration::Folder(_, path) | Configuration::Gguf { path, .. } => path,
            };
            let known = encoders::TYPES.join(", ");
            return Err(unsupported(path, &format!("is a model of the type {name:?}"))
                .hint(format!("embed knows {known}, and the decoders that run knows"))
                .detail("architecture", name));
        }
        Ok(Self::Encoder(EncoderFiles::assemble(tensors, configuration)))
    }

    /// What the memory gate needs to know. Every tensor that the model needs is there and has the right
    /// shape when this succeeds.
    pub fn demand(&self) -> Result<Demand> {
        match self {
            Self::Encoder(files) => files.demand(),
            Self::Decoder(checkpoint) => {
                let demand = Demand::of(checkpoint);
                Ok(Demand {
                    // There is no cache: every text is computed at once.
                    cache: Vec::new(),
                    context: models::longest_text(checkpoint)?,
                    // Its layers are computed operation by operation.
                    working: Working {
                        steps: Steps::Texts(usize::MAX),
                        layers: checkpoint.config.layers,
                        ..demand.working
                    },
                    ..demand
                })
            }
        }
    }

    /// Metadata of a GGUF file; `None` for a folder.
    pub fn metadata(&self) -> Option<&Metadata> {
        match self {
            Self::Encoder(files) => files.metadata(),
            Self::Decoder(checkpoint) => checkpoint.metadata(),
        }
    }

    /// The tensors of the files.
    pub fn tensors(&self) -> &Tensors {
        match self {
            Self::Encoder(files) => files.tensors(),
            Self::Decoder(checkpoint) => checkpoint.tensors(),
        }
    }

    /// Whether the model is made for texts that are written from left to right.
    pub fn is_decoder(&self) -> bool {
        matches!(self, Self::Decoder(_))
    }

    /// Loads and evaluates the weights; `progress` gets (done, total) bytes.
    pub fn load(
        &self,
        backend: Backend,
        dtype: FloatType,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<States> {
        Ok(match self {
            Self::Encoder(files) => States::Encoder(Box::new(files.load(backend, dtype, progress)?)),
            Self::Decoder(checkpoint) => States::Decoder {
                model: Box::new(StateModel::load(checkpoint, backend, array::dtype(dtype), progress)?),
                hidden: checkpoint.config.hidden_size,
            },
        })
    }
}

impl States {
    /// Width of the hidden states.
    pub fn hidden(&self) -> usize {
        match self {
            Self::Encoder(encoder) => encoder.hidden(),
            Self::Decoder { hidden, .. } => *hidden,
        }
    }

    /// Tokens that the model knows.
    pub fn vocabulary(&self) -> usize {
        match self {
            Self::Encoder(encoder) => encoder.vocabulary(),
            Self::Decoder { model, .. } => model.vocabulary(),
        }
    }

    /// Tokens of the longest text that the model can take.
    pub fn max_tokens(&self) -> usize {
        match self {
            Self::Encoder(encoder) => encoder.max_tokens(),
            Self::Decoder { model, .. } => model.max_tokens(),
        }
    }

    /// Whether texts of so many tokens, at most `longest` each, are computed group by group, so that few results
    /// of layers are in memory at the same time.
    pub fn computes_groups(&self, backend: Backend, tokens: usize, longest: usize) -> bool {
        match self {
            Self::Encoder(_) => Encoder::computes_groups(backend, tokens, longest),
            Self::Decoder { .. } => false,
        }
    }

    /// Hidden states of the last layer, `[L, hidden]` in the compute type, lazily.
    pub fn forward(&mut self, batch: &Batch) -> Result<Array> {
        match self {
            Self::Encoder(encoder) => encoder.forward(batch),
            Self::Decoder { model, .. } => model.forward(batch),
        }
    }
}
