//! `config.json` and `generation_config.json` as transformers 4, transformers 5 and mlx-lm write them.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::engine::config::fields::Fields;
use crate::engine::config::rope::{Rope, RopeContext};
use crate::engine::config::style::{Activation, Direction, LayerPlan, Mixer};
use crate::engine::config::{AttentionBias, Latent, MAX_LAYERS, ModelConfig, limits, quantization};
use crate::engine::format::file::{damaged, read_small, unsupported};
use crate::engine::format::weight::FloatType;
use crate::engine::models::{self, Defaults};
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
    match serde_json::from_slice(content) {
        Ok(object) => Ok(object),
        // Python writes infinity as a word that is not JSON.
        Err(error) => serde_json::from_slice(&without_infinity(content))
            .map_err(|_| damaged(path, &format!("is not a JSON object: {error}"))),
    }
}

/// The same JSON with null for `Infinity` outside of texts.
fn without_infinity(content: &[u8]) -> Vec<u8> {
    const WORD: &[u8] = b"Infinity";
    let mut plain = Vec::with_capacity(content.len());
    let (mut rest, mut in_text) = (content, false);
    while let [byte, behind @ ..] = rest {
        if let (false, Some(behind)) = (in_text, rest.strip_prefix(WORD)) {
            plain.extend_from_slice(b"null");
            rest = behind;
            continue;
        }
        plain.push(*byte);
        rest = behind;
        match (byte, rest) {
            (b'"', _) => in_text = !in_text,
            (b'\\', [escaped, behind @ ..]) if in_text => {
                plain.push(*escaped);
                rest = behind;
            }
            _ => {}
        }
    }
    plain
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
    let text_type = models::text_type(&files.config).unwrap_or(model_type);
    let architecture = models::of_type(text_type).ok_or_else(|| type_unsupported(text_type, path))?;
    let map = text_part(&files.config);
    let fields = Fields::new(&map, path);
    let defaults = &architecture.defaults;

    let quantization = quantization::from_config(&files.config, path)?;
    let mut style = architecture.style;
    style.activation = activation(&fields, style.activation)?;

    let hidden_size = fields.required("hidden_size")?;
    let heads = or_default(&fields, "num_attention_heads", defaults.heads)?;
    let latent = defaults.latent.map(|usual| Latent::read(&fields, &usual)).transpose()?;
    let head_dim = match latent {
        Some(latent) => latent.rotated,
        None => head_dim(&fields, defaults, hidden_size, heads)?,
    };
    // Left out, a field has the default of its model type; null has a meaning of its own.
    let kv_heads = match fields.number("num_key_value_heads")? {
        Some(kv_heads) => kv_heads,
        None if fields.has("num_key_value_heads") => heads,
        None => defaults.kv_heads.unwrap_or(heads),
    };
    let layers = match fields.texts("layers_block_type")? {
        // The number of them follows, and may be left out.
        Some(types) => types.len(),
        None => fields.required("num_hidden_layers")?,
    };
    let vocab_size = or_default(&fields, "vocab_size", defaults.vocabulary)?;
    let max_position_embeddings = fields.number("max_position_embeddings")?.unwrap_or(defaults.context);
    let bias = fields.flag("attention_bias")?.unwrap_or(false);
    let norm_eps = ["rms_norm_eps", "layer_norm_eps", "norm_epsilon", "norm_eps", "layer_norm_epsilon"];
    let norm_eps = norm_eps.iter().find_map(|name| fields.float(name).transpose()).transpose()?;
    let (rope, local_rope) = ropes(&fields, defaults, head_dim, style.interleaved, max_position_embeddings)?;
    let mut config = ModelConfig {
        architecture,
        style,
        hidden_size,
        layers,
        heads,
        kv_heads: latent.map_or(kv_heads, |_| 1),
        head_dim: latent.map_or(head_dim, |latent| latent.key_dim()),
        full_heads: None,
        without_keys: 0,
        layer_inputs: None,
        intermediate_size: or_default(&fields, "intermediate_size", defaults.intermediate)?,
        vocab_size,
        norm_eps: norm_eps.unwrap_or(defaults.norm_eps) as f32,
        rope,
        local_rope,
        plan: vec![LayerPlan::PLAIN; layers.min(MAX_LAYERS)],
        experts: None,
        recurrent: None,
        latent,
        attention_scale: (latent.map_or(head_dim, |latent| latent.query_dim()) as f32).sqrt().recip(),
        attention_cap: None,
        logits_cap: None,
        embedding_scale: 1.0,
        residual_scale: 1.0,
        logits_scale: 1.0,
        query_growth: None,
        attention_sinks: false,
        max_position_embeddings,
        tie_word_embeddings: fields.flag("tie_word_embeddings")?.unwrap_or(defaults.tied || !has_head),
        attention_bias: AttentionBias { qkv: bias, o: bias },
        mlp_bias: fields.flag("mlp_bias")?.unwrap_or(false),
        head_bias: false,
        sliding_window: sliding_window(&fields, defaults.window)?,
        direction: direction(&fields)?,
        eos_token_ids: eos_token_ids(files, &fields, vocab_size)?,
        bos_token_id: fields.token_ids("bos_token_id")?.first().and_then(|&id| token_id(id, vocab_size)),
        dtype: match stored {
            Some(stored) => stored,
            None => declared_dtype(&fields)?,
        },
        quantization,
        float_blocks: quantization::float_blocks(&files.config, path)?,
        model_type: model_type.to_owned(),
        other_inputs: ["vision_config", "audio_config"].iter().any(|part| files.config.contains_key(*part)),
    };
    limits::check(&config, path)?;
    (architecture.read)(&fields, &mut config)?;
    layer_types(&fields, &mut config)?;
    config.settle(path)?;
    limits::check(&config, path)?;
    Ok(config)
}

/// The fields of the text model: of a multimodal configuration those under `text_config`, and from
/// around it what they leave out.
fn text_part(config: &Map<String, Value>) -> Map<String, Value> {
    const TIED: &str = "tie_word_embeddings";
    let mut map = config.clone();
    if let Some(Value::Object(text)) = map.remove("text_config") {
        let around = map.get(TIED).and_then(Value::as_bool);
        let is_disputed = around.zip(text.get(TIED).and_then(Value::as_bool)).is_some_and(|(a, b)| a != b);
        map.extend(text);
        // transformers writes defaults of both parts: the tensors tell then.
        if is_disputed {
            map.remove(TIED);
        }
    }
    map
}

fn or_default(fields: &Fields, name: &str, default: Option<usize>) -> Result<usize> {
    match (fields.number(name)?, default) {
        (Some(number), _) | (None, Some(number)) => Ok(number),
        (None, None) => fields.required(name),
    }
}

/// `is_causal`, or `use_bidirectional_attention`, which may be said of the tokens of images alone.
fn direction(fields: &Fields) -> Result<Direction> {
    let both = match fields.get("use_bidirectional_attention") {
        Some(Value::String(which)) if which == "vision" => false,
        _ => fields.flag("use_bidirectional_attention")?.unwrap_or(false),
    };
    Ok(Direction::of(!both && fields.flag("is_causal")?.unwrap_or(true)))
}

/// Elements of a head, which share out the hidden size where nothing says otherwise.
fn head_dim(fields: &Fields, defaults: &Defaults, hidden_size: usize, heads: usize) -> Result<usize> {
    match (fields.number("head_dim")?, defaults.head_dim) {
        (Some(head_dim), _) => Ok(head_dim),
        (None, Some(head_dim)) if !fields.has("head_dim") => Ok(head_dim),
        _ if heads != 0 && hidden_size.is_multiple_of(heads) => Ok(hidden_size / heads),
        _ => Err(damaged(
            fields.path(),
            &format!("divides a hidden size of {hidden_size} among {heads} heads"),
        )),
    }
}

/// MODEL_UNSUPPORTED for a block that the engine lacks, with the nearest that it has.
fn type_unsupported(model_type: &str, path: &Path) -> Error {
    let model_type: String = model_type.chars().take(64).collect();
    let near = models::nearest(&model_type);
    let hint = if near.is_empty() {
        format!("supported types are {}", models::types().join(", "))
    } else {
        format!("the nearest supported types are {}", near.join(", "))
    };
    unsupported(path, &format!("is a model of type {model_type:?}")).hint(hint)
}

/// `hidden_act`, or `hidden_activation` in Gemma, whose first release said "gelu" and meant its
/// approximation.
fn activation(fields: &Fields, default: Activation) -> Result<Activation> {
    if let Some(name) = fields.text("hidden_activation")? {
        return Activation::of(name).ok_or_else(|| activation_unsupported(name, fields.path()));
    }
    match fields.text("hidden_act")? {
        None => Ok(default),
        Some("gelu") if default == Activation::GeluTanh => Ok(default),
        Some(name) => Activation::of(name).ok_or_else(|| activation_unsupported(name, fields.path())),
    }
}

fn activation_unsupported(name: &str, path: &Path) -> Error {
    unsupported(path, &format!("needs the activation {name:?}"))
        .hint("supported are silu, gelu, its approximation by tanh, relu and its square")
}

/// The rope of the model, and that of its sliding layers where it is another.
fn ropes(
    fields: &Fields,
    defaults: &Defaults,
    head_dim: usize,
    interleaved: bool,
    max_position_embeddings: usize,
) -> Result<(Rope, Option<Rope>)> {
    let path = fields.path();
    let top = fields.float("rope_theta")?;
    let context = RopeContext {
        theta: top.unwrap_or(defaults.theta),
        partial: fields.float("partial_rotary_factor")?.unwrap_or(defaults.partial),
        head_dim,
        traditional: fields.flag("rope_traditional")?.unwrap_or(interleaved),
        max_position_embeddings,
        original: fields.number("original_max_position_embeddings")?,
    };
    if let Some(parameters) = fields.object("rope_parameters", "rope_parameters.")? {
        // By type of layer, or one for all.
        let full = parameters.object("full_attention", "rope_parameters.full_attention.")?;
        let sliding = parameters.object("sliding_attention", "rope_parameters.sliding_attention.")?;
        let by_type = full.is_some() || sliding.is_some();
        let local = RopeContext { theta: defaults.local_theta.unwrap_or(context.theta), ..context };
        let rope = Rope::read(if by_type { full } else { Some(parameters) }, &context, path)?;
        let has_local = sliding.is_some() || defaults.local_theta.is_some();
        let local = has_local.then(|| Rope::read(sliding, &local, path)).transpose()?;
        return Ok((rope, local));
    }
    let scaling = fields.object("rope_scaling", "rope_scaling.")?;
    let mut rope = Rope::read(scaling, &context, path)?;
    if let Some(theta) = top {
        // An explicit rope_theta beside rope_scaling is transformers 4's place for it.
        rope.theta = theta as f32;
    }
    // Layers that slide have no use for a longer context: only a plain rope of their own.
    let local = match (fields.float("rope_local_base_freq")?, defaults.local_theta) {
        (None, None) => None,
        (Some(theta), _) => Some(theta),
        (None, Some(theta)) => {
            Some(top.filter(|_| defaults.theta.to_bits() == theta.to_bits()).unwrap_or(theta))
        }
    };
    let local = local.map(|theta| Rope::read(None, &RopeContext { theta, ..context }, path)).transpose()?;
    Ok((rope, local))
}

/// `sliding_window`, or its default where it is left out; null is none.
fn sliding_window(fields: &Fields, default: Option<usize>) -> Result<Option<usize>> {
    match fields.get("sliding_window") {
        None if fields.has("sliding_window") => Ok(None),
        None => Ok(default),
        Some(value) => match value.as_u64() {
            Some(window) if window > 0 => Ok(Some(window as usize)),
            // Qwen2-MoE's way to say none.
            Some(0) if fields.flag("use_sliding_window")? == Some(false) => Ok(None),
            _ => Err(damaged(fields.path(), &format!("has the impossible sliding_window {value}"))),
        },
    }
}

/// `layer_types` tells which layers slide and which are recurrent, whatever the architecture.
fn layer_types(fields: &Fields, config: &mut ModelConfig) -> Result<()> {
    let path = fields.path();
    if let Some(types) = fields.texts("layer_types")? {
        if types.len() != config.plan.len() {
            return Err(damaged(
                path,
                &format!("has {} layer_types for {} layers", types.len(), config.plan.len()),
            ));
        }
        for (layer, kind) in config.plan.iter_mut().zip(types) {
            (layer.mixer, layer.slides) = match kind {
                "full_attention" | "attention" => (Mixer::Attention, false),
                "sliding_attention" => (Mixer::Attention, true),
                "linear_attention" | "conv" | "mamba" if config.recurrent.is_some() => {
                    (Mixer::Recurrent, false)
                }
                other => return Err(unsupported(path, &format!("needs layers of type {other:?}"))),
            };
        }
    }
    if config.sliding_window.is_none() && config.plan.iter().any(|layer| layer.slides) {
        return Err(damaged(path, "has sliding_attention layers without a sliding_window"));
    }
    Ok(())
}

/// The ids of config.json, then those that only generation_config.json has.
fn eos_token_ids(files: &ConfigFiles, fields: &Fields, vocab_size: usize) -> Result<Vec<u32>> {
    let generation_path = files.path.with_file_name("generation_config.json");
    let generation = Fields::new(&files.generation, &generation_path);
    let mut all = fields.token_ids("eos_token_id")?;
    all.extend(generation.token_ids("eos_token_id")?);
    let mut ids = Vec::new();
    for id in all {
        if let Some(id) = token_id(id, vocab_size)
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

fn declared_dtype(fields: &Fields) -> Result<FloatType> {
    let dtype = fields.text("dtype")?;
    Ok(match dtype.or(fields.text("torch_dtype")?) {
        Some("float16") => FloatType::F16,
        Some("bfloat16") => FloatType::BF16,
        _ => FloatType::F32,
    })
}
