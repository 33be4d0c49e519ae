//! `config.json` and `generation_config.json` as transformers 4, transformers 5 and mlx-lm write them.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::engine::config::rope::{Rope, RopeJson};
use crate::engine::config::{Architecture, AttentionBias, ModelConfig, limits, quantization};
use crate::engine::format::file::{damaged, read_small, unsupported};
use crate::engine::format::weight::FloatType;
use crate::error::{Code, Error, Result};

/// Configurations of the largest models have some 100 KB, most of it quantization by layer.
const MAX_CONFIG_BYTES: u64 = 16 << 20;

/// The configuration files of a checkpoint's folder, parsed but not yet understood.
#[derive(Debug, Clone)]
pub struct ConfigFiles {
    /// Path of config.json, for messages.
    pub path: PathBuf,
    pub config: Map<String, Value>,
    /// generation_config.json, empty if there is none.
    pub generation: Map<String, Value>,
}

impl ConfigFiles {
    /// Reads the files of a folder; a missing config.json is FILE_NOT_FOUND.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("config.json");
        let config = parse_object(&path, &read_small(&path, MAX_CONFIG_BYTES)?)?;
        let generation_path = folder.join("generation_config.json");
        let generation = match read_small(&generation_path, MAX_CONFIG_BYTES) {
            Ok(content) => parse_object(&generation_path, &content)?,
            Err(error) if error.code() == Code::FileNotFound => Map::new(),
            Err(error) => return Err(error),
        };
        Ok(Self { path, config, generation })
    }

    /// From contents already read; `path` is for messages.
    pub fn parse(path: &Path, config: &[u8], generation: Option<&[u8]>) -> Result<Self> {
        let generation = generation.map(|content| parse_object(path, content)).transpose()?;
        Ok(Self {
            path: path.to_owned(),
            config: parse_object(path, config)?,
            generation: generation.unwrap_or_default(),
        })
    }
}

fn parse_object(path: &Path, content: &[u8]) -> Result<Map<String, Value>> {
    serde_json::from_slice(content).map_err(|e| damaged(path, &format!("is not a JSON object: {e}")))
}

/// The fields of config.json that matter to a Llama block. Whatever older writers leave out has the
/// default of transformers.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ConfigJson {
    hidden_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    intermediate_size: Option<usize>,
    vocab_size: Option<usize>,
    hidden_act: Option<String>,
    rms_norm_eps: Option<f64>,
    max_position_embeddings: Option<usize>,
    tie_word_embeddings: Option<bool>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    layer_types: Option<Vec<String>>,
    rope_theta: Option<f64>,
    rope_traditional: Option<bool>,
    rope_scaling: Option<RopeJson>,
    rope_parameters: Option<RopeJson>,
    partial_rotary_factor: Option<f64>,
    eos_token_id: Option<TokenIds>,
    bos_token_id: Option<TokenIds>,
    torch_dtype: Option<String>,
    dtype: Option<String>,
}

/// One id or several.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum TokenIds {
    One(i64),
    Several(Vec<i64>),
}

impl TokenIds {
    fn ids(&self) -> &[i64] {
        match self {
            Self::One(id) => std::slice::from_ref(id),
            Self::Several(ids) => ids,
        }
    }
}

/// Understands a configuration.
///
/// `has_head` tells whether the checkpoint has an `lm_head`: it decides where the configuration does
/// not say whether embedding and head are one. `stored` is the type of the checkpoint's floats, if
/// known; otherwise it is what the configuration says.
pub fn from_config_json(
    files: &ConfigFiles,
    has_head: bool,
    stored: Option<FloatType>,
) -> Result<ModelConfig> {
    let path = files.path.as_path();
    let model_type = files.config.get("model_type").and_then(Value::as_str);
    let model_type = model_type.ok_or_else(|| damaged(path, "does not say its model_type"))?;
    let architecture = Architecture::of(model_type).ok_or_else(|| type_unsupported(model_type, path))?;
    let mistral = model_type == "mistral";
    let json: ConfigJson = serde_path_to_error::deserialize(Value::Object(files.config.clone()))
        .map_err(|e| damaged(path, &format!("has a {} that makes no sense: {}", e.path(), e.inner())))?;

    let quantization = quantization::from_config(&files.config, path)?;
    if let Some(act) = &json.hidden_act
        && !matches!(act.as_str(), "silu" | "swish")
    {
        return Err(unsupported(path, &format!("needs the activation {act:?}"))
            .hint("a Llama block with silu is supported"));
    }

    let hidden_size = required(json.hidden_size, "hidden_size", path)?;
    let heads = required(json.num_attention_heads, "num_attention_heads", path)?;
    let head_dim = match json.head_dim {
        Some(head_dim) => head_dim,
        None if heads != 0 && hidden_size.is_multiple_of(heads) => hidden_size / heads,
        None => {
            return Err(damaged(
                path,
                &format!("divides a hidden size of {hidden_size} among {heads} heads"),
            ));
        }
    };
    let vocab_size = required(json.vocab_size, "vocab_size", path)?;
    let attention_bias = json.attention_bias.unwrap_or(false);
    // Left out, a field has the default of its model type; null has a meaning of its own.
    let is_left_out = |name: &str| !files.config.contains_key(name);
    let config = ModelConfig {
        architecture,
        hidden_size,
        layers: required(json.num_hidden_layers, "num_hidden_layers", path)?,
        heads,
        kv_heads: json.num_key_value_heads.unwrap_or(if is_left_out("num_key_value_heads") && mistral {
            8
        } else {
            heads
        }),
        head_dim,
        intermediate_size: required(json.intermediate_size, "intermediate_size", path)?,
        vocab_size,
        rms_norm_eps: json.rms_norm_eps.unwrap_or(1e-6) as f32,
        rope: rope(&json, head_dim, path)?,
        max_position_embeddings: json.max_position_embeddings.unwrap_or(if mistral { 131_072 } else { 2048 }),
        tie_word_embeddings: json.tie_word_embeddings.unwrap_or(!has_head),
        attention_bias: AttentionBias { qkv: attention_bias, o: attention_bias },
        mlp_bias: json.mlp_bias.unwrap_or(false),
        sliding_window: sliding_window(files, &json, mistral)?,
        eos_token_ids: eos_token_ids(files, &json, vocab_size)?,
        bos_token_id: json.bos_token_id.as_ref().and_then(|ids| token_id(*ids.ids().first()?, vocab_size)),
        dtype: stored.unwrap_or_else(|| declared_dtype(&json)),
        quantization,
        model_type: model_type.to_owned(),
    };
    limits::check(&config, path)?;
    Ok(config)
}

fn required(value: Option<usize>, name: &str, path: &Path) -> Result<usize> {
    value.ok_or_else(|| damaged(path, &format!("does not say {name}")))
}

/// MODEL_UNSUPPORTED for a block that the engine lacks.
fn type_unsupported(model_type: &str, path: &Path) -> Error {
    let model_type: String = model_type.chars().take(64).collect();
    let known: Vec<&str> = Architecture::MODEL_TYPES.iter().map(|row| row.0).collect();
    unsupported(path, &format!("is a model of type {model_type:?}"))
        .hint(format!("supported types are {}", known.join(", ")))
}

fn rope(json: &ConfigJson, head_dim: usize, path: &Path) -> Result<Rope> {
    let nested = json.rope_parameters.as_ref().or(json.rope_scaling.as_ref());
    // An explicit rope_theta beside rope_scaling is transformers 4's place for it.
    let theta = match &json.rope_parameters {
        Some(parameters) => parameters.rope_theta.or(json.rope_theta),
        None => json.rope_theta.or_else(|| nested.and_then(|n| n.rope_theta)),
    };
    let partial = nested.and_then(|n| n.partial_rotary_factor).or(json.partial_rotary_factor);
    let scaling = nested.map(|n| n.scaling(path)).transpose()?;
    Ok(Rope {
        theta: theta.unwrap_or(10_000.0) as f32,
        dims: (head_dim as f64 * partial.unwrap_or(1.0)) as usize,
        traditional: json.rope_traditional.unwrap_or(false),
        scaling: scaling.unwrap_or(super::RopeScaling::Default),
    })
}

/// `sliding_window`, which a Mistral has unless it says null, and a Llama only with `layer_types`.
fn sliding_window(files: &ConfigFiles, json: &ConfigJson, mistral: bool) -> Result<Option<usize>> {
    let path = files.path.as_path();
    let window = match files.config.get("sliding_window") {
        None if mistral => Some(4096),
        None | Some(Value::Null) => None,
        Some(value) => match value.as_u64() {
            Some(window) if window > 0 => Some(window as usize),
            _ => return Err(damaged(path, &format!("has the impossible sliding_window {value}"))),
        },
    };
    let Some(types) = &json.layer_types else {
        return Ok(window.filter(|_| mistral));
    };
    if let Some(unknown) =
        types.iter().find(|t| !matches!(t.as_str(), "full_attention" | "sliding_attention"))
    {
        return Err(unsupported(path, &format!("needs layers of type {unknown:?}")));
    }
    let sliding = types.iter().filter(|t| *t == "sliding_attention").count();
    if sliding == 0 {
        return Ok(None);
    }
    if sliding < types.len() {
        return Err(unsupported(path, "mixes layers with and without a sliding window"));
    }
    match window {
        Some(window) => Ok(Some(window)),
        None => Err(damaged(path, "has sliding_attention layers without a sliding_window")),
    }
}

/// The ids of config.json, then those that only generation_config.json has.
fn eos_token_ids(files: &ConfigFiles, json: &ConfigJson, vocab_size: usize) -> Result<Vec<u32>> {
    let generation = match files.generation.get("eos_token_id") {
        None | Some(Value::Null) => None,
        Some(value) => Some(TokenIds::deserialize(value).map_err(|e| {
            damaged(
                &files.path.with_file_name("generation_config.json"),
                &format!("has a broken eos_token_id: {e}"),
            )
        })?),
    };
    let mut ids = Vec::new();
    let all = [json.eos_token_id.as_ref(), generation.as_ref()];
    for id in all.into_iter().flatten().flat_map(TokenIds::ids) {
        if let Some(id) = token_id(*id, vocab_size)
            && !ids.contains(&id)
        {
            ids.push(id);
        }
    }
    Ok(ids)
}

/// An id that the model can produce; -1 and the like stand for none.
fn token_id(id: i64, vocab_size: usize) -> Option<u32> {
    u32::try_from(id).ok().filter(|&id| (id as usize) < vocab_size)
}

fn declared_dtype(json: &ConfigJson) -> FloatType {
    match json.dtype.as_deref().or(json.torch_dtype.as_deref()) {
        Some("float16") => FloatType::F16,
        Some("bfloat16") => FloatType::BF16,
        _ => FloatType::F32,
    }
}
