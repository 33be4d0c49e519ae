//! The configuration in the metadata of a GGUF file.
//!
//! Keys: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>. The shapes and the presence of
//! tensors are the truth where the metadata leaves something out.

use std::path::Path;

use crate::engine::config::rope::{Rope, RopeScaling, positive, scaling_unsupported, yarn_magnitude};
use crate::engine::config::style::{Direction, Experts, LayerPlan, Mixer, NormKind, Routing, Scoring};
use crate::engine::config::{AttentionBias, Latent, MAX_LAYERS, ModelConfig, limits};
use crate::engine::format::file::{damaged, unsupported};
use crate::engine::format::metadata::{Metadata, Value};
use crate::engine::format::tensors::Tensors;
use crate::engine::format::weight::{FloatType, Floats};
use crate::engine::models;
use crate::error::Result;

/// A pair has one factor, and a head at most some thousand pairs.
const MAX_FACTOR_BYTES: u64 = 1 << 20;
/// Control tokens that end a turn in the chat formats of the Llama family. Older files name only the
/// end of the text as `eos_token_id`, and the turn's end is known by its text.
const TURN_ENDS: &[&str] = &["<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>"];
/// `tokenizer.ggml.token_type` of a control token.
const CONTROL: i64 = 3;

/// The keys of one architecture, without its name before them.
#[derive(Clone, Copy)]
pub struct GgufFields<'a> {
    metadata: &'a Metadata,
    tensors: &'a Tensors,
    architecture: &'a str,
}

impl GgufFields<'_> {
    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    pub fn path(&self) -> &Path {
        self.tensors.main_path()
    }

    pub fn number(&self, key: &str) -> Result<Option<usize>> {
        let name = self.key(key);
        match (self.metadata.unsigned(&name), self.metadata.get(&name)) {
            (Some(value), _) => Ok(Some(usize::try_from(value).unwrap_or(usize::MAX))),
            (None, None) => Ok(None),
            (None, Some(Value::Integers(_))) => {
                Err(unsupported(self.path(), &format!("has a different {key} for each layer")))
            }
            (None, Some(_)) => Err(damaged(self.path(), &format!("has a {key} that is not a number"))),
        }
    }

    /// A number for each layer, or one for all.
    pub fn each(&self, key: &str, layers: usize) -> Result<Option<Vec<usize>>> {
        let Some(Value::Integers(values)) = self.metadata.get(&self.key(key)) else {
            return Ok(self.number(key)?.map(|value| vec![value; layers.min(MAX_LAYERS)]));
        };
        if values.len() < layers {
            let reason = format!("has {} entries in {key} for {layers} layers", values.len());
            return Err(damaged(self.path(), &reason));
        }
        let sizes = values.iter().take(layers).map(|&value| usize::try_from(value).unwrap_or(usize::MAX));
        Ok(Some(sizes.collect()))
    }

    /// Whether heads of layers that slide have sizes of their own.
    pub fn has_heads_apart(&self) -> bool {
        self.metadata.get(&self.key("attention.key_length_swa")).is_some()
    }

    /// Rows of a matrix that belongs to no layer.
    pub fn rows_of(&self, module: &str) -> Option<usize> {
        self.tensors.get(&format!("{module}.weight"))?.shape.first().copied()
    }

    /// Rows of a tensor of the first layer.
    pub fn rows(&self, name: &str) -> Option<usize> {
        self.tensors.get(&format!("model.layers.0.{name}"))?.shape.first().copied()
    }

    /// Whether this layer has this tensor.
    pub fn has_in(&self, layer: usize, name: &str) -> bool {
        self.tensors.get(&format!("model.layers.{layer}.{name}")).is_some()
    }

    pub fn required(&self, key: &str) -> Result<usize> {
        let missing = || damaged(self.path(), &format!("does not say {}", self.key(key)));
        self.number(key)?.ok_or_else(missing)
    }

    pub fn float(&self, key: &str) -> Option<f64> {
        self.metadata.float(&self.key(key))
    }

    pub fn text(&self, key: &str) -> Option<&str> {
        self.metadata.text(&self.key(key))
    }

    pub fn flag(&self, key: &str) -> Option<bool> {
        match self.metadata.get(&self.key(key)) {
            Some(Value::Bool(flag)) => Some(*flag),
            _ => None,
        }
    }

    /// One truth value for each layer.
    pub fn flags(&self, key: &str) -> Option<&[bool]> {
        match self.metadata.get(&self.key(key)) {
            Some(Value::Bools(flags)) => Some(flags),
            _ => None,
        }
    }

    /// Whether any layer has this tensor.
    pub fn has_anywhere(&self, name: &str) -> bool {
        self.tensors.iter().any(|(tensor, _)| {
            let layer = tensor.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.'));
            layer.is_some_and(|(_, rest)| rest == name)
        })
    }

    /// Whether the first layer has this tensor.
    pub fn has(&self, module: &str, parameter: &str) -> bool {
        self.tensors.get(&format!("model.layers.0.{module}.{parameter}")).is_some()
    }
}

/// Understands a file's configuration.
pub fn from_gguf(metadata: &Metadata, tensors: &Tensors) -> Result<ModelConfig> {
    let path = tensors.main_path();
    let model_type = metadata
        .text("general.architecture")
        .ok_or_else(|| damaged(path, "does not say its architecture"))?;
    let is_sparse = metadata.unsigned(&format!("{model_type}.expert_count")).is_some_and(|count| count > 0);
    let Some((architecture, gguf)) = models::of_gguf(model_type, is_sparse) else {
        if models::of_gguf(model_type, !is_sparse).is_some() {
            return Err(unsupported(path, "is a mixture of experts of a kind that is not supported"));
        }
        let model_type: String = model_type.chars().take(64).collect();
        return Err(unsupported(path, &format!("is a model of type {model_type:?}"))
            .hint(format!("supported types of GGUF files are {}", models::gguf_types().join(", "))));
    };
    let fields = GgufFields { metadata, tensors, architecture: model_type };
    let hidden_size = fields.required("embedding_length")?;
    let names = &architecture.names;
    // Where no layer has attention, files say 0 of what belongs to it.
    let first = names.qkv.first().copied().unwrap_or_default();
    let recurs = !names.recurrent.is_empty();
    let attends = !recurs || fields.has_anywhere(&format!("{first}.weight"));
    let defaults = &architecture.defaults;
    let heads = match fields.required("attention.head_count")? {
        0 if !attends => defaults.heads.unwrap_or(1),
        heads => heads,
    };
    let latent = latent(&fields)?;
    let head_dim = match fields.number("attention.key_length")? {
        _ if let Some(latent) = latent => latent.key_dim(),
        Some(length) => length,
        None if !attends => defaults.head_dim.unwrap_or(64),
        None if heads != 0 && hidden_size.is_multiple_of(heads) => hidden_size / heads,
        None => {
            return Err(damaged(
                path,
                &format!("divides an embedding length of {hidden_size} among {heads} heads"),
            ));
        }
    };
    if let Some(length) = fields.number("attention.value_length")?
        && length != head_dim
        && latent.is_none()
    {
        return Err(unsupported(path, &format!("has keys of length {head_dim} and values of {length}")));
    }
    let vocab_size = vocabulary(metadata, tensors)?;
    let layers = fields.required("block_count")?;
    let experts = experts(&fields)?;
    let plain = LayerPlan { sparse: experts.is_some(), ..LayerPlan::PLAIN };
    let mut plan = vec![plain; layers.min(MAX_LAYERS)];
    let kv_heads = key_value_heads(&fields, heads, recurs, &mut plan)?;
    let intermediate_size = match inner_size(&fields, &mut plan)? {
        Some(0) | None if !attends => defaults.intermediate.unwrap_or(1),
        Some(size) => size,
        None => fields.required("expert_feed_forward_length")?,
    };
    let mut style = architecture.style;
    // The converter of llama.cpp has added the one.
    if style.norm == NormKind::RmsPlusOne {
        style.norm = NormKind::Rms;
    }
    let max_position_embeddings = fields.required("context_length")?;
    let epsilon = match style.norm {
        NormKind::Layer { .. } => "attention.layer_norm_epsilon",
        _ => "attention.layer_norm_rms_epsilon",
    };
    let norm_eps = fields
        .float(epsilon)
        // Files of Nemotron-H may have it under this name only.
        .or_else(|| fields.float("attention.layer_norm_epsilon"))
        .ok_or_else(|| damaged(path, &format!("does not say {}", fields.key(epsilon))))?;
    let mut config = ModelConfig {
        architecture,
        style,
        model_type: model_type.to_owned(),
        // What encodes images has a file of its own.
        other_inputs: false,
        hidden_size,
        layers,
        heads,
        kv_heads: if latent.is_some() { 1 } else { kv_heads },
        head_dim,
        full_heads: None,
        without_keys: 0,
        layer_inputs: None,
        intermediate_size,
        vocab_size,
        norm_eps: norm_eps as f32,
        rope: rope(&fields, head_dim, gguf.interleaved, max_position_embeddings)?,
        local_rope: None,
        plan,
        experts,
        recurrent: None,
        latent,
        attention_scale: (latent.map_or(head_dim, |latent| latent.query_dim()) as f32).sqrt().recip(),
        attention_cap: fields.float("attn_logit_softcapping").map(|cap| cap as f32),
        logits_cap: fields.float("final_logit_softcapping").map(|cap| cap as f32),
        embedding_scale: 1.0,
        residual_scale: 1.0,
        logits_scale: 1.0,
        query_growth: None,
        attention_sinks: false,
        max_position_embeddings,
        tie_word_embeddings: tensors.get("lm_head.weight").is_none(),
        attention_bias: AttentionBias {
            qkv: fields.has(names.qkv.first().copied().unwrap_or_default(), "bias"),
            o: fields.has(names.output, "bias"),
        },
        mlp_bias: fields.has(names.down, "bias"),
        head_bias: tensors.get("lm_head.bias").is_some(),
        sliding_window: fields.number("attention.sliding_window")?.filter(|&window| window > 0),
        direction: Direction::of(metadata.bool(&fields.key("attention.causal")).unwrap_or(true)),
        eos_token_ids: eos_token_ids(metadata, vocab_size),
        bos_token_id: token(metadata, "tokenizer.ggml.bos_token_id", vocab_size),
        dtype: tensors.stored_float().unwrap_or(FloatType::F16),
        quantization: None,
        float_blocks: None,
    };
    if let Some(scale) = fields.float("attention.scale") {
        config.attention_scale = scale as f32;
    }
    config.slide_all(config.sliding_window.is_some());
    limits::check(&config, path)?;
    (gguf.read)(&fields, &mut config)?;
    sliding(&fields, &mut config)?;
    config.settle(path)?;
    limits::check(&config, path)?;
    Ok(config)
}

/// Inner size of the feed-forward blocks. Layers for which a list has another get that in their plan, those for
/// which it has 0 feed nothing.
fn inner_size(fields: &GgufFields, plan: &mut [LayerPlan]) -> Result<Option<usize>> {
    let Some(each) = fields.each("feed_forward_length", plan.len())? else { return Ok(None) };
    let Some(inner) = each.iter().copied().find(|&size| size > 0) else { return Ok(Some(0)) };
    for (layer, size) in plan.iter_mut().zip(each) {
        layer.feeds = size > 0;
        layer.inner = Some(size).filter(|&size| size != inner && size > 0);
    }
    Ok(Some(inner))
}

/// Heads of keys and values in layers with attention; the others of a model that `recurs` have none, and become
/// recurrent ones. Where layers that slide have other heads, those of the first layer.
fn key_value_heads(fields: &GgufFields, heads: usize, recurs: bool, plan: &mut [LayerPlan]) -> Result<usize> {
    let Some(each) = fields.each("attention.head_count_kv", plan.len())? else { return Ok(heads) };
    let mut found = None;
    for (layer, count) in plan.iter_mut().zip(each) {
        match (count, found) {
            (0, _) if recurs => layer.mixer = Mixer::Recurrent,
            (count, None) => found = Some(count),
            (count, Some(known)) if count == known => {}
            _ if fields.has_heads_apart() => {}
            _ => return Err(unsupported(fields.path(), "has different heads in different layers")),
        }
    }
    Ok(found.unwrap_or(heads))
}

/// Sizes of attention over latents. Files of before April 2025 have the lengths of whole keys and values
/// where later ones have those of what is remembered of them.
fn latent(fields: &GgufFields) -> Result<Option<Latent>> {
    let Some(rank) = fields.number("attention.kv_lora_rank")? else { return Ok(None) };
    let length = |name: &str| match fields.number(&format!("attention.{name}_length_mla"))? {
        Some(length) => Ok(length),
        None => fields.required(&format!("attention.{name}_length")),
    };
    let (rotated, key) = (fields.required("rope.dimension_count")?, length("key")?);
    let plain = key.checked_sub(rotated);
    let plain = plain
        .ok_or_else(|| damaged(fields.path(), &format!("rotates {rotated} of {key} dimensions of a key")))?;
    let query_rank = fields.number("attention.q_lora_rank")?.filter(|&rank| rank > 0);
    Ok(Some(Latent { query_rank, rank, rotated, plain, value: length("value")? }))
}

/// Which layers slide, and with what rope, where a file says so itself: newer ones do.
fn sliding(fields: &GgufFields, config: &mut ModelConfig) -> Result<()> {
    if config.sliding_window.is_some() {
        let key = "attention.sliding_window_pattern";
        match fields.flags(key) {
            Some(flags) if flags.len() < config.layers => {
                let reason = format!("has {} entries in {key} for {} layers", flags.len(), config.layers);
                return Err(damaged(fields.path(), &reason));
            }
            Some(flags) => {
                for (layer, &slides) in config.plan.iter_mut().zip(flags) {
                    layer.slides = slides;
                }
            }
            None => {
                if let Some(period) = fields.number(key)? {
                    config.slide_but_every(period);
                }
            }
        }
    }
    if let (Some(rope), Some(theta)) = (&mut config.local_rope, fields.float("rope.freq_base_swa")) {
        rope.theta = theta as f32;
    }
    Ok(())
}

/// `llama_expert_gating_func_type` of llama.cpp.
const SOFTMAX: usize = 1;
const SIGMOID: usize = 2;

fn experts(fields: &GgufFields) -> Result<Option<Experts>> {
    let Some(count) = fields.number("expert_count")?.filter(|&count| count > 0) else {
        return Ok(None);
    };
    let intermediate_size = match fields.number("expert_feed_forward_length")? {
        Some(size) => size,
        None => fields.required("feed_forward_length")?,
    };
    let mut routing = Routing::softmax(count, fields.required("expert_used_count")?);
    match fields.number("expert_gating_func")? {
        None | Some(0 | SOFTMAX) => {}
        Some(SIGMOID) => routing.scoring = Scoring::Sigmoid,
        Some(other) => {
            return Err(unsupported(fields.path(), &format!("weighs experts in the way {other}")));
        }
    }
    if let Some(normalized) = fields.flag("expert_weights_norm") {
        routing.normalized = normalized;
    }
    // 0 stands for none.
    if let Some(scale) = fields.float("expert_weights_scale").filter(|&scale| scale != 0.0) {
        routing.scale = scale as f32;
    }
    Ok(Some(Experts::plain(routing, intermediate_size)))
}

/// Rows of the embedding; more tokens than rows cannot be.
fn vocabulary(metadata: &Metadata, tensors: &Tensors) -> Result<usize> {
    let embedding = tensors.require("model.embed_tokens.weight")?;
    let rows = embedding.shape.first().copied().unwrap_or(0);
    match metadata.texts("tokenizer.ggml.tokens") {
        Some(tokens) if tokens.len() > rows => Err(damaged(
            tensors.main_path(),
            &format!("has {} tokens, but only {rows} rows in its embedding", tokens.len()),
        )),
        _ => Ok(rows),
    }
}

fn rope(fields: &GgufFields, head_dim: usize, traditional: bool, context: usize) -> Result<Rope> {
    let path = fields.path();
    let dims = fields.number("rope.dimension_count")?.unwrap_or(head_dim);
    let theta = fields.float("rope.freq_base").unwrap_or(10_000.0) as f32;
    let (scaling, magnitude) = scaling(fields, dims, context)?;
    if let RopeScaling::Factors(factors) = &scaling
        && factors.len() != dims / 2
    {
        return Err(damaged(
            path,
            &format!("has {} factors in rope_freqs.weight for {dims} rotated dimensions", factors.len()),
        ));
    }
    Ok(Rope { theta, dims, traditional, scaling, magnitude })
}

fn scaling(fields: &GgufFields, dims: usize, context: usize) -> Result<(RopeScaling, f32)> {
    let path = fields.path();
    let factor = fields
        .float("rope.scaling.factor")
        // The key before August 2023.
        .or_else(|| fields.float("rope.scale_linear"))
        .filter(|&factor| factor != 0.0);
    let original = fields.number("rope.scaling.original_context_length")?.unwrap_or(context) as f64;
    let original = positive(original, "original context length", path)?;
    let magnitude = fields.float("rope.scaling.attn_factor");
    if let (Some(short), Some(long)) =
        (factors(fields, "rope_factors_short.weight")?, factors(fields, "rope_factors_long.weight")?)
    {
        if short.len() != dims / 2 || long.len() != dims / 2 {
            return Err(damaged(path, &format!("has {} rope factors for {dims} dimensions", long.len())));
        }
        let scaling = RopeScaling::Long { short, long, original_max_position_embeddings: original };
        return Ok((scaling, positive(magnitude.unwrap_or(1.0), "attention factor", path)?));
    }
    let kind = fields.text("rope.scaling.type");
    let scaled = match kind {
        None | Some("none") => factor.filter(|_| kind.is_none()),
        Some("linear" | "yarn") => {
            let kind = kind.unwrap_or_default();
            let missing = || damaged(path, &format!("has {kind} rope scaling without a factor"));
            Some(factor.ok_or_else(missing)?)
        }
        Some(other) => return Err(scaling_unsupported(other, path)),
    };
    let scaled = scaled.map(|factor| positive(factor, "rope scaling factor", path)).transpose()?;
    let factors = factors(fields, "rope_freqs.weight")?;
    match (scaled, factors) {
        (None, None) => Ok((RopeScaling::Default, 1.0)),
        (None, Some(factors)) => Ok((RopeScaling::Factors(factors), 1.0)),
        (Some(_), Some(_)) => Err(unsupported(path, "has both rope scaling and rope_freqs.weight")),
        (Some(factor), None) if kind == Some("yarn") => {
            let beta = |which: &str, default: f64| {
                let said = fields.float(&format!("rope.scaling.yarn_beta_{which}")).unwrap_or(default);
                positive(said, "border of rope scaling", path)
            };
            let scaling = RopeScaling::Yarn {
                factor,
                original_max_position_embeddings: original,
                beta_fast: beta("fast", 32.0)?,
                beta_slow: beta("slow", 1.0)?,
                truncate: true,
            };
            // What the model's own configuration says stands for the whole.
            let own = fields.float("rope.scaling.yarn_attn_factor");
            let own = own.map(|own| positive(own, "attention factor", path)).transpose()?;
            let usual = || yarn_magnitude(factor, 1.0) * magnitude.unwrap_or(1.0) as f32;
            Ok((scaling, own.unwrap_or_else(usual)))
        }
        (Some(factor), None) => Ok((RopeScaling::Linear { factor }, 1.0)),
    }
}

/// The content of a tensor of rope factors, if there is one.
fn factors(fields: &GgufFields, name: &str) -> Result<Option<Vec<f32>>> {
    let Some(tensor) = fields.tensors.get(name) else {
        return Ok(None);
    };
    let dtype = tensor.encoding.float();
    let dtype = dtype.ok_or_else(|| {
        unsupported(fields.path(), &format!("has tensor {name:?} of type {}", tensor.encoding.name()))
    })?;
    if tensor.bytes > MAX_FACTOR_BYTES {
        return Err(damaged(fields.path(), &format!("has {} bytes of factors in {name}", tensor.bytes)));
    }
    let factors = Floats { dtype, bytes: fields.tensors.read(tensor)? }.to_f32();
    for &factor in &factors {
        positive(factor.into(), &format!("factor in {name}"), fields.path())?;
    }
    Ok(Some(factors))
}

/// Ends of text, turn and message, by key and by text.
fn eos_token_ids(metadata: &Metadata, vocab_size: usize) -> Vec<u32> {
    let mut ids = Vec::new();
    let mut add = |id: u32| {
        if !ids.contains(&id) {
            ids.push(id);
        }
    };
    for key in ["eos", "eot", "eom"] {
        let key = format!("tokenizer.ggml.{key}_token_id");
        token(metadata, &key, vocab_size).into_iter().for_each(&mut add);
    }
    let tokens = metadata.texts("tokenizer.ggml.tokens").unwrap_or_default();
    let types = metadata.integers("tokenizer.ggml.token_type").unwrap_or_default();
    for (id, (token, &kind)) in tokens.iter().zip(types).enumerate() {
        if kind == CONTROL && TURN_ENDS.contains(&token.as_str()) {
            add(id as u32);
        }
    }
    ids
}

fn token(metadata: &Metadata, key: &str, vocab_size: usize) -> Option<u32> {
    let id = metadata.unsigned(key)?;
    u32::try_from(id).ok().filter(|&id| (id as usize) < vocab_size)
}
