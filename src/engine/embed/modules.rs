//! The pipeline that a folder describes, as sentence-transformers writes it: modules.json and what it
//! names, sentence_bert_config.json, config_sentence_transformers.json.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::EmbedOptions;
use super::dense::{Dense, DenseFiles, VectorNorm};
use super::pooling::{Pooling, normalize};
use crate::engine::format::file::{damaged, read_small, unsupported};
use crate::engine::format::metadata::Metadata;
use crate::engine::format::tensors::Tensors;
use crate::error::{Code, Error, Result};

const MAX_JSON_BYTES: u64 = 64 << 20;
/// Where older releases write how long texts may be, one name for each kind of model.
const LENGTH_FILES: &[&str] = &[
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
];

/// What is put before every text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Prompt {
    /// The model's default, if it has one.
    #[default]
    Default,
    /// One of the model's, by its name.
    Named(String),
    /// This text.
    Text(String),
}

/// Something a user should know of the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    /// The files do not say how tokens become a vector.
    PoolingUnknown,
    /// The model has no prompt of this well-known name.
    NoPrompt(String),
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PoolingUnknown => f.write_str(
                "the model does not say how tokens become one vector: taking their mean (--pooling chooses)",
            ),
            Self::NoPrompt(name) => {
                write!(f, "the model has no prompt for {name}: texts are embedded as they are")
            }
        }
    }
}

/// What happens to texts before the encoder, and to hidden states after it.
#[derive(Debug)]
pub(super) struct Pipeline {
    /// The folder of the encoder.
    pub(super) encoder: PathBuf,
    /// How long texts may be, if the files say so.
    pub(super) max_tokens: Option<usize>,
    pub(super) lower_case: bool,
    pub(super) prompt: String,
    /// Whether the prompt's tokens count in pooling.
    pub(super) pool_prompt: bool,
    pooling: Vec<Pooling>,
    /// Nothing says how tokens become one vector, neither the files nor the options.
    pub(super) says_no_pooling: bool,
    steps: Vec<Step>,
    pub(super) dimensions: Option<usize>,
    pub(super) warnings: Vec<Warning>,
}

#[derive(Debug)]
enum Step {
    /// Not loaded yet.
    Unread(DenseFiles),
    Dense(Dense),
    Norm(PathBuf, Option<VectorNorm>),
    Normalize,
}

#[derive(Deserialize)]
struct Module {
    #[serde(default)]
    path: String,
    r#type: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
#[expect(clippy::struct_excessive_bools, reason = "the format has them")]
struct PoolingConfig {
    pooling_mode: Option<Value>,
    pooling_mode_cls_token: bool,
    pooling_mode_max_tokens: bool,
    pooling_mode_mean_tokens: bool,
    pooling_mode_mean_sqrt_len_tokens: bool,
    pooling_mode_weightedmean_tokens: bool,
    pooling_mode_lasttoken: bool,
    include_prompt: Option<bool>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct LengthConfig {
    max_seq_length: Option<usize>,
    do_lower_case: bool,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct PromptConfig {
    prompts: BTreeMap<String, Option<String>>,
    default_prompt_name: Option<String>,
}

impl Pipeline {
    /// Reads what the folder says, changed by the options.
    pub(super) fn read(folder: &Path, options: &EmbedOptions) -> Result<Self> {
        let mut pipeline = Self {
            encoder: folder.to_owned(),
            max_tokens: None,
            lower_case: false,
            prompt: String::new(),
            pool_prompt: true,
            pooling: Vec::new(),
            says_no_pooling: false,
            steps: Vec::new(),
            dimensions: options.dimensions,
            warnings: Vec::new(),
        };
        let path = folder.join("modules.json");
        let modules: Vec<Module> = read_json(&path)?.unwrap_or_default();
        for module in &modules {
            pipeline.add(folder, &path, module)?;
        }
        for name in LENGTH_FILES {
            let Some(config) = read_json::<LengthConfig>(&pipeline.encoder.join(name))? else { continue };
            pipeline.max_tokens = config.max_seq_length;
            pipeline.lower_case = config.do_lower_case;
            break;
        }
        let prompts: PromptConfig =
            read_json(&folder.join("config_sentence_transformers.json"))?.unwrap_or_default();
        pipeline.choose_prompt(&options.prompt, &prompts)?;
        pipeline.finish(options);
        Ok(pipeline)
    }

    /// What a GGUF file says: a kind of pooling. llama.cpp makes vectors of length 1, and so do we.
    pub(super) fn of_gguf(
        path: &Path,
        metadata: &Metadata,
        tensors: &Tensors,
        options: &EmbedOptions,
    ) -> Result<Self> {
        let architecture = metadata.text("general.architecture").unwrap_or_default();
        // `enum llama_pooling_type` of llama.h.
        let pooling = match metadata.unsigned(&format!("{architecture}.pooling_type")) {
            None | Some(0) => Vec::new(),
            Some(1) => vec![Pooling::Mean],
            Some(2) => vec![Pooling::Cls],
            Some(3) => vec![Pooling::Last],
            Some(other) => return Err(unsupported(path, &format!("has the pooling type {other}"))),
        };
        let mut pipeline = Self {
            encoder: path.to_owned(),
            max_tokens: None,
            lower_case: false,
            prompt: String::new(),
            pool_prompt: true,
            pooling,
            says_no_pooling: false,
            steps: Vec::new(),
            dimensions: options.dimensions,
            warnings: Vec::new(),
        };
        for name in ["dense_2", "dense_3"] {
            pipeline.steps.extend(Dense::of_gguf(tensors, name)?.map(Step::Dense));
        }
        pipeline.steps.push(Step::Normalize);
        pipeline.choose_prompt(&options.prompt, &PromptConfig::default())?;
        pipeline.finish(options);
        Ok(pipeline)
    }

    fn add(&mut self, folder: &Path, list: &Path, module: &Module) -> Result<()> {
        let below = Path::new(&module.path);
        if !below.components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(Error::new(
                Code::BoundaryViolation,
                format!("{} names the folder {:?}, outside the model", list.display(), module.path),
            )
            .hint("do not use this model: its list of modules is not an honest one"));
        }
        let at = if module.path.is_empty() { folder.to_owned() } else { folder.join(below) };
        match module.r#type.rsplit('.').next().unwrap_or_default() {
            "Transformer" => self.encoder = at,
            "Pooling" => {
                let path = at.join("config.json");
                let config: PoolingConfig = read_json(&path)?
                    .ok_or_else(|| damaged(&path, "is missing, although modules.json names it"))?;
                self.pooling = config.ways(&path)?;
                self.pool_prompt = config.include_prompt.unwrap_or(true);
            }
            "Dense" => self.steps.push(Step::Unread(DenseFiles::open(&at)?)),
            "LayerNorm" => self.steps.push(Step::Norm(at, None)),
            "Normalize" => self.steps.push(Step::Normalize),
            // It does something only while a model is trained.
            "Dropout" => {}
            _ => {
                return Err(unsupported(list, &format!("needs the module {:?}", module.r#type))
                    .hint("supported are Transformer, Pooling, Dense, LayerNorm, Normalize and Dropout")
                    .detail("module", module.r#type.clone()));
            }
        }
        Ok(())
    }

    fn choose_prompt(&mut self, asked: &Prompt, config: &PromptConfig) -> Result<()> {
        let prompt = |name: &str| config.prompts.get(name).cloned().flatten();
        self.prompt = match asked {
            Prompt::Text(text) => text.clone(),
            Prompt::Default => config.default_prompt_name.as_deref().and_then(prompt).unwrap_or_default(),
            Prompt::Named(name) => {
                // What sentence-transformers looks for when documents are encoded.
                let names = if name == "document" {
                    &["document", "passage", "corpus"][..]
                } else {
                    &[name.as_str()]
                };
                match names.iter().find_map(|name| prompt(name)) {
                    Some(text) => text,
                    None if name == "document" || name == "query" => {
                        self.warnings.push(Warning::NoPrompt(name.clone()));
                        String::new()
                    }
                    None => return Err(unknown_prompt(name, config)),
                }
            }
        };
        Ok(())
    }

    fn finish(&mut self, options: &EmbedOptions) {
        if let Some(pooling) = options.pooling {
            self.pooling = vec![pooling];
        }
        if self.pooling.is_empty() {
            self.says_no_pooling = true;
            self.pooling = vec![Pooling::Mean];
            self.warnings.push(Warning::PoolingUnknown);
        }
        match options.normalize {
            Some(false) => self.steps.retain(|step| !matches!(step, Step::Normalize)),
            Some(true) if !self.normalizes() => self.steps.push(Step::Normalize),
            _ => {}
        }
    }

    /// Loads the steps, checks that they fit each other, and gives the width of a vector at the end.
    pub(super) fn fit(&mut self, hidden: usize) -> Result<usize> {
        let mut width = hidden * self.pooling.len();
        for step in &mut self.steps {
            if let Step::Unread(files) = step {
                *step = Step::Dense(files.load()?);
            }
            match step {
                Step::Dense(dense) => {
                    let (columns, rows) = dense.widths();
                    if columns != width {
                        return Err(damaged(
                            &self.encoder,
                            &format!("has a dense module for {columns} numbers after {width}"),
                        ));
                    }
                    width = rows;
                }
                Step::Norm(folder, norm) => *norm = Some(VectorNorm::load(folder, width)?),
                Step::Unread(_) | Step::Normalize => {}
            }
        }
        match self.dimensions {
            Some(0) => Err(Error::new(Code::InvalidRequest, "a vector of 0 dimensions holds nothing")
                .hint("ask for at least one dimension")),
            Some(asked) if asked > width => Err(Error::new(
                Code::InvalidRequest,
                format!("{asked} dimensions are more than the {width} that the model has"),
            )
            .hint(format!("ask for at most {width}"))),
            asked => Ok(asked.unwrap_or(width)),
        }
    }

    /// Names of the ways of pooling.
    pub(super) fn pooling(&self) -> String {
        let names: Vec<_> = self.pooling.iter().map(|pooling| pooling.name()).collect();
        names.join("+")
    }

    /// Whether vectors have the length 1.
    pub(super) fn normalizes(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Normalize))
    }

    /// The vector of a text from its hidden states; the first `skipped` are a prompt's.
    pub(super) fn vector(&self, states: &[f32], hidden: usize, skipped: usize, to: &mut Vec<f32>) {
        let mut vector = Vec::with_capacity(hidden * self.pooling.len());
        for pooling in &self.pooling {
            pooling.pool(states, hidden, skipped, &mut vector);
        }
        for step in &self.steps {
            match step {
                Step::Dense(dense) => vector = dense.apply(&vector),
                Step::Norm(_, Some(norm)) => norm.apply(&mut vector),
                Step::Unread(_) | Step::Norm(_, None) => {}
                Step::Normalize => normalize(&mut vector),
            }
        }
        if let Some(dimensions) = self.dimensions {
            vector.truncate(dimensions);
            if self.normalizes() {
                normalize(&mut vector);
            }
        }
        to.extend_from_slice(&vector);
    }
}

impl PoolingConfig {
    fn ways(&self, path: &Path) -> Result<Vec<Pooling>> {
        if let Some(modes) = &self.pooling_mode {
            let listed = match modes {
                Value::Array(listed) => listed.as_slice(),
                one => std::slice::from_ref(one),
            };
            return listed
                .iter()
                .map(|mode| match mode.as_str() {
                    Some("cls") => Ok(Pooling::Cls),
                    Some("max") => Ok(Pooling::Max),
                    Some("mean") => Ok(Pooling::Mean),
                    Some("mean_sqrt_len_tokens") => Ok(Pooling::MeanSqrtLength),
                    Some("weightedmean") => Ok(Pooling::WeightedMean),
                    Some("lasttoken") => Ok(Pooling::Last),
                    _ => Err(unsupported(path, &format!("needs the pooling {mode}"))),
                })
                .collect();
        }
        // The order in which sentence-transformers joins them.
        let ways = [
            (self.pooling_mode_cls_token, Pooling::Cls),
            (self.pooling_mode_max_tokens, Pooling::Max),
            (self.pooling_mode_mean_tokens, Pooling::Mean),
            (self.pooling_mode_mean_sqrt_len_tokens, Pooling::MeanSqrtLength),
            (self.pooling_mode_weightedmean_tokens, Pooling::WeightedMean),
            (self.pooling_mode_lasttoken, Pooling::Last),
        ];
        let chosen: Vec<_> = ways.into_iter().filter(|way| way.0).map(|way| way.1).collect();
        Ok(if chosen.is_empty() { vec![Pooling::Mean] } else { chosen })
    }
}

fn unknown_prompt(name: &str, config: &PromptConfig) -> Error {
    let names: Vec<&str> = config.prompts.keys().map(String::as_str).collect();
    let hint = if names.is_empty() {
        "the model has no prompts: write one out with --prompt-text".to_owned()
    } else {
        format!("it has {}; --prompt-text takes any other text", names.join(", "))
    };
    Error::new(Code::InvalidRequest, format!("the model has no prompt called '{}'", name.escape_debug()))
        .hint(hint)
        .detail("prompts", names.into_iter().map(Value::from).collect::<Vec<_>>())
}

/// A JSON file, `None` if it is not there.
fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let content = match read_small(path, MAX_JSON_BYTES) {
        Ok(content) => content,
        Err(error) if error.code() == Code::FileNotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    serde_json::from_slice(&content)
        .map(Some)
        .map_err(|error| damaged(path, &format!("cannot be understood: {error}")))
}
