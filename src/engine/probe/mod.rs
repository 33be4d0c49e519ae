//! What a model is, from its headers and configuration alone: nothing is loaded, whatever its size.

mod files;
mod kind;
mod quantization;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::engine::cache::{LONGEST_STEP, LayerShape};
use crate::engine::config::recurrent::Recurrent;
use crate::engine::config::style::{Direction, LayerPlan, Mixer};
use crate::engine::config::{ConfigFiles, ModelConfig, Outline};
use crate::engine::embed::{StateFiles, check_pipeline};
use crate::engine::format::adapter::{Adapter, LowRankShape};
use crate::engine::format::checkpoint::{Checkpoint, Configuration};
use crate::engine::format::file::unsupported;
use crate::engine::format::layout::Layout;
use crate::engine::format::sizes::{Storage, WeightSizes};
use crate::engine::format::tensors::{self, Tensors};
use crate::engine::format::weight::FloatType;
use crate::engine::layers::adapted;
use crate::engine::text::files::is_tokenizer;
use crate::error::{Code, Error, Result};

pub use kind::Kind;

/// What a model can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Capability {
    /// Answering turns of a conversation: it has a chat template.
    Chat,
    /// Continuing a text.
    Completion,
    /// Turning a text into a vector.
    Embedding,
}

impl Capability {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Completion => "completion",
            Self::Embedding => "embedding",
        }
    }
}

/// Why a model cannot be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    pub code: Code,
    pub message: String,
    pub hint: Option<String>,
}

impl Obstacle {
    /// The error that running the model ends with.
    pub fn to_error(&self) -> Error {
        let error = Error::new(self.code, self.message.clone());
        match &self.hint {
            Some(hint) => error.hint(hint.clone()),
            None => error,
        }
    }
}

impl From<Error> for Obstacle {
    fn from(error: Error) -> Self {
        Self {
            code: error.code(),
            message: error.message().to_owned(),
            hint: error.hint_text().map(str::to_owned),
        }
    }
}

/// What the memory gate needs to know of a runnable model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demand {
    pub weights: WeightSizes,
    /// What each layer's cache holds.
    pub cache: Vec<LayerShape>,
    /// The context in tokens that the model was made for.
    pub context: usize,
    /// The float type of the checkpoint.
    pub dtype: FloatType,
    pub working: Working,
    /// A smaller model that guesses for it.
    pub draft: Option<Box<Demand>>,
}

/// What computing takes beside weights and cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Working {
    /// Numbers that the operations of the widest layer make of one token.
    pub numbers: usize,
    /// Layers whose results can be in memory at the same time.
    pub layers: usize,
    /// Tokens that the tokenizer knows.
    pub tokens: usize,
    pub steps: Steps,
}

/// What is computed at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Steps {
    /// Parts of prompts, and what follows them.
    #[default]
    Prompts,
    /// Whole texts, of at most so many tokens together.
    Texts(usize),
}

impl Steps {
    /// Most tokens of a step.
    pub fn longest(self, on_gpu: bool) -> usize {
        match (self, on_gpu) {
            (Self::Prompts, _) => LONGEST_STEP,
            // Enough that the weights are read rarely, few enough that what is computed stays in the
            // processor's caches.
            (Self::Texts(_), false) => 2048,
            // A GPU has more to do at once.
            (Self::Texts(_), true) => 16_384,
        }
    }
}

impl Working {
    fn of(config: &ModelConfig) -> Self {
        let of_layer = |(index, plan): (usize, &LayerPlan)| {
            // Both results as well.
            mixing(config, index, plan) + feeding(config, plan) + 2 * config.hidden_size
        };
        let numbers = config.plan.iter().enumerate().map(of_layer).max().unwrap_or(0);
        // Where kernels alone make a block, they follow each other in one place.
        let by_kernels = config.recurrent.is_none()
            && config.latent.is_none()
            && config.layer_inputs.is_none()
            && !config.style.gated_attention;
        let layers = if by_kernels { 1 } else { config.layers };
        Self { numbers, layers, tokens: config.vocab_size, steps: Steps::Prompts }
    }
}

/// Numbers of a token in a layer's attention, or in what stands in its place.
fn mixing(config: &ModelConfig, index: usize, plan: &LayerPlan) -> usize {
    let keys = config.key_heads(index);
    match (plan.mixer, &config.recurrent) {
        (Mixer::Nothing, _) => 0,
        // Before and behind the convolution; gates, what is found, and the product of both.
        (Mixer::Recurrent, Some(Recurrent::Delta(delta))) => 2 * delta.channels() + 3 * delta.values(),
        (Mixer::Recurrent, Some(Recurrent::Mamba(mamba))) => 2 * mamba.channels() + 3 * mamba.values(),
        // Both gates and what they multiply, the product, and what the convolution makes of it.
        (Mixer::Recurrent, Some(Recurrent::ShortConv(conv))) => 5 * conv.channels,
        // Queries, keys and values, and what attention finds.
        _ => 2 * config.heads * keys.dim + 2 * keys.count * keys.dim,
    }
}

/// The same inside its feed-forward block.
fn feeding(config: &ModelConfig, plan: &LayerPlan) -> usize {
    let dense = plan.inner.unwrap_or(config.intermediate_size);
    match config.experts.filter(|_| plan.sparse) {
        _ if !plan.feeds => 0,
        Some(experts) => {
            let own = experts.routing.used * experts.intermediate_size;
            if experts.beside { own + dense } else { own }
        }
        None => dense,
    }
}

impl Demand {
    /// Counts an adapter to the weights: its matrices, and the second result of each product that it adds to.
    ///
    /// # Errors
    /// INVALID_REQUEST for one whose parts do not fit each other.
    pub fn adapt(&mut self, adapter: &Adapter, checkpoint: &Checkpoint) -> Result<()> {
        let names = &checkpoint.config.architecture.names;
        // Modules that share an input are adapted together: by layer and what they are part of.
        let mut products: BTreeMap<(&str, &str), LowRankShape> = BTreeMap::new();
        for part in adapter.shapes() {
            let (module, shape) = part?;
            if shape.experts.is_some() || module.contains(".experts.") {
                let experts = shape.experts.unwrap_or(1);
                // Of experts, a token's results are those of a few.
                let dense = Some(Storage::Dense(FloatType::F32));
                self.weights.add_matrix(experts * shape.rank, shape.columns, dense);
                self.weights.add_matrix(experts * shape.rows, shape.rank, dense);
                continue;
            }
            let end = module.match_indices('.').nth(2).map_or(module.len(), |(at, _)| at);
            let (layer, name) = module.split_at(end);
            let name = name.trim_start_matches('.');
            let first = [names.qkv, names.gate_up].into_iter().find(|all| all.contains(&name));
            let name = first.and_then(|all| all.first().copied()).unwrap_or(name);
            let product = products.entry((layer, name)).or_insert(LowRankShape { rank: 0, rows: 0, ..shape });
            product.rank += shape.rank;
            product.rows += shape.rows;
        }
        let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
        for ((layer, _), LowRankShape { rank, rows, columns, .. }) in products {
            let rank = rank.next_multiple_of(adapted::STEP);
            let dense = Some(Storage::Dense(FloatType::F32));
            self.weights.add_matrix(rank, columns, dense);
            self.weights.add_matrix(rows, rank, dense);
            *numbers.entry(layer).or_default() += rank + rows;
        }
        self.working.numbers += numbers.into_values().max().unwrap_or(0);
        // Adapted products are not for kernels alone.
        self.working.layers = checkpoint.config.layers;
        Ok(())
    }

    pub fn of(checkpoint: &Checkpoint) -> Self {
        Self {
            weights: checkpoint.sizes(),
            cache: checkpoint.config.cache_layers(),
            context: checkpoint.config.max_position_embeddings,
            dtype: checkpoint.config.dtype,
            working: Working::of(&checkpoint.config),
            draft: None,
        }
    }
}

/// A description of a model; `None` is what its files do not tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    pub kind: Kind,
    /// `model_type` of config.json, or `general.architecture` of a GGUF.
    pub architecture: Option<String>,
    /// How many numbers the weights are, packed ones counted one by one.
    pub parameters: u64,
    /// "4-bit (group 64)", "Q4_1", "bf16", "mixed", …
    pub quantization: Option<String>,
    /// In tokens.
    pub context_length: Option<u64>,
    pub layers: Option<u64>,
    /// Bytes that the key-value cache takes for one token in the checkpoint's float type.
    pub kv_bytes_per_token: Option<u64>,
    /// Size of the weight files.
    pub weights_bytes: u64,
    /// Files that belong to the model, relative to its folder (or to the GGUF file's), sorted.
    pub files: Vec<PathBuf>,
    pub has_chat_template: bool,
    pub capabilities: Vec<Capability>,
    /// For the memory gate; `Some` exactly where there is no obstacle.
    pub demand: Option<Demand>,
    pub obstacle: Option<Obstacle>,
}

impl Probe {
    /// Whether the engine can run the model as it is.
    pub fn runnable(&self) -> bool {
        self.obstacle.is_none()
    }
}

/// Describes the model in a folder or a .gguf file.
///
/// # Errors
/// FILE_NOT_FOUND where there is no model, INTEGRITY_FAILED where its files are damaged so that it
/// cannot be described. A model that the engine cannot run is described, with its obstacle.
pub fn probe(path: &Path) -> Result<Probe> {
    let layout = Layout::find(path)?;
    let (tensors, metadata) = tensors::open(&layout)?;
    let (outline, configuration, folder) = match (layout, metadata) {
        (Layout::Gguf(path), Some(metadata)) => {
            let outline = Outline::from_metadata(&metadata);
            (outline, Ok(Configuration::Gguf { path, metadata }), None)
        }
        (Layout::Safetensors { folder, .. } | Layout::Gguf(folder), _) => {
            let files = ConfigFiles::read(&folder);
            let outline = files.as_ref().map(|files| Outline::from_config(&files.config)).unwrap_or_default();
            (outline, files.map(|files| Configuration::Folder(files, folder.clone())), Some(folder))
        }
    };
    let files = match &folder {
        Some(folder) => files::of_folder(folder, &tensors)?,
        None => files::of_gguf(&tensors),
    };
    let described = Described { outline: &outline, configuration: &configuration, files: &files };
    let kind = described.kind();
    let has_chat_template = described.has_chat_template(folder.as_deref())?;
    let capabilities = match kind {
        Kind::Generation if has_chat_template => vec![Capability::Chat, Capability::Completion],
        Kind::Generation => vec![Capability::Completion],
        Kind::Embedding => vec![Capability::Embedding],
        Kind::Other => Vec::new(),
    };
    let tokenizer = described.tokenizer(path);
    let mut result = Probe {
        kind,
        parameters: quantization::parameters(&tensors, &outline),
        quantization: outline.quantization.clone().or_else(|| quantization::of_tensors(&tensors)),
        context_length: outline.context_length,
        layers: outline.layers,
        kv_bytes_per_token: kv_bytes(&outline, &tensors),
        weights_bytes: tensors.file_bytes(),
        architecture: outline.model_type,
        files,
        has_chat_template,
        capabilities,
        demand: None,
        obstacle: None,
    };
    let runnable = configuration.and_then(|configuration| match kind {
        Kind::Generation => {
            let checkpoint = Checkpoint::assemble(tensors, configuration)?;
            tokenizer?;
            Ok(Demand::of(&checkpoint))
        }
        Kind::Embedding => {
            if let Some(folder) = &folder {
                check_pipeline(folder)?;
            }
            let demand = StateFiles::assemble(tensors, configuration)?.demand()?;
            tokenizer?;
            Ok(demand)
        }
        Kind::Other => Err(unsupported(
            path,
            &format!(
                "is a model of type {:?}, which neither writes text nor embeds it",
                result.architecture.as_deref().unwrap_or("unknown")
            ),
        )),
    });
    match runnable {
        Ok(demand) => result.demand = Some(demand),
        Err(error) => result.obstacle = Some(error.into()),
    }
    Ok(result)
}

fn kv_bytes(outline: &Outline, tensors: &Tensors) -> Option<u64> {
    let size = tensors.stored_float().map_or(2, FloatType::size);
    outline.kv_values_per_token?.checked_mul(size as u64)
}

/// The error of asking a model to write text that cannot: CAPABILITY_MISSING for one that embeds; `None` for
/// others, which fail for a reason of their own.
pub fn not_generating(path: &Path) -> Option<Error> {
    let probe = probe(path).ok().filter(|probe| probe.kind == Kind::Embedding)?;
    Some(embeds(probe.architecture.as_deref().unwrap_or("unknown"), path))
}

/// Refuses to write text with a decoder that was made into an embedding model: what it would write is
/// nonsense.
pub fn check_generating(checkpoint: &Checkpoint) -> Result<()> {
    let is_embedding = match checkpoint.metadata() {
        Some(metadata) => kind::of_gguf(metadata) == Kind::Embedding,
        None => checkpoint.path().join("modules.json").exists(),
    };
    if is_embedding || checkpoint.config.direction != Direction::Causal {
        return Err(embeds(&checkpoint.config.model_type, checkpoint.path()));
    }
    Ok(())
}

fn embeds(architecture: &str, path: &Path) -> Error {
    Error::new(
        Code::CapabilityMissing,
        format!("{} is an embedding model ({architecture}), which cannot generate text", path.display()),
    )
    .hint("mlx-cache embed turns texts into vectors with it")
}

/// What the questions below look at.
struct Described<'a> {
    outline: &'a Outline,
    configuration: &'a Result<Configuration>,
    files: &'a [PathBuf],
}

impl Described<'_> {
    fn has_file(&self, name: &str) -> bool {
        self.files.iter().any(|file| file == Path::new(name))
    }

    fn kind(&self) -> Kind {
        match self.configuration {
            Ok(Configuration::Gguf { metadata, .. }) => kind::of_gguf(metadata),
            _ => kind::of_folder(self.outline, self.has_file("modules.json")),
        }
    }

    fn has_chat_template(&self, folder: Option<&Path>) -> Result<bool> {
        if let Ok(Configuration::Gguf { metadata, .. }) = self.configuration {
            return Ok(metadata.text("tokenizer.chat_template").is_some());
        }
        if self.has_file("chat_template.jinja") || self.has_file("chat_template.json") {
            return Ok(true);
        }
        match folder {
            Some(folder) if self.has_file("tokenizer_config.json") => {
                files::names_chat_template(&folder.join("tokenizer_config.json"))
            }
            _ => Ok(false),
        }
    }

    /// Whether there is a tokenizer that the engine can build.
    fn tokenizer(&self, path: &Path) -> Result<()> {
        let found = match self.configuration {
            Ok(Configuration::Gguf { metadata, .. }) => metadata.texts("tokenizer.ggml.tokens").is_some(),
            _ => self.files.iter().any(|file| file.to_str().is_some_and(is_tokenizer)),
        };
        if found {
            return Ok(());
        }
        Err(unsupported(path, "has no tokenizer that mlx-cache can read")
            .hint("a folder needs a tokenizer.json, a tokenizer.model or a tiktoken file, a GGUF file its tokenizer in the metadata"))
    }
}

#[cfg(test)]
mod tests;
