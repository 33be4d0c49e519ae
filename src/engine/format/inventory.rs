//! The tensors that a model needs, and their shapes.
//!
//! A checkpoint is compared with this list when it is opened: a missing or wrongly shaped tensor is
//! found before any weight is loaded.

use crate::engine::config::recurrent::{Delta, Mamba, Recurrent, ShortConv};
use crate::engine::config::style::{Mixer, NormKind, Placement, QkNorm};
use crate::engine::config::{Latent, ModelConfig};
use crate::engine::models::names;

/// A tensor that the model reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Needed {
    /// The matrix `[rows, columns]` of a module, packed or dense. Those of several experts lie in one
    /// tensor of three dimensions, and count as one matrix with all their rows.
    Matrix {
        module: String,
        rows: usize,
        columns: usize,
        /// Whether it is made of matrices by heads, which are unpacked where the kernels compute.
        by_heads: bool,
    },
    /// A vector by its full name. Weights of single heads lie in as many rows.
    Vector { name: String, size: usize, rows: usize },
    /// The taps of a convolution by channel, by the full name: `[channels, width]`, with a one between them
    /// as PyTorch has it, or behind them as MLX has.
    Conv { name: String, channels: usize, width: usize },
}

/// Everything that the configured model reads, layer by layer. `has` tells whether the checkpoint has a
/// module's matrix, where there are several ways to lay out the same weights.
pub fn needed<'a>(
    config: &'a ModelConfig,
    has: impl Fn(&str) -> bool + 'a,
) -> impl Iterator<Item = Needed> + 'a {
    let mut ends = List::new("", config);
    ends.matrix("model.embed_tokens", config.vocab_size, config.hidden_size, false);
    if !config.tie_word_embeddings {
        ends.matrix("lm_head", config.vocab_size, config.hidden_size, config.head_bias);
    }
    ends.norm(config.architecture.names.final_norm);
    if let Some(inputs) = config.layer_inputs {
        let all = config.layers.saturating_mul(inputs.size);
        ends.matrix(names::LAYER_INPUTS.table, inputs.vocabulary, all, false);
        ends.matrix(names::LAYER_INPUTS.projection, all, config.hidden_size, false);
        ends.norm_of(names::LAYER_INPUTS.norm, inputs.size, 1);
    }
    ends.needed.into_iter().chain((0..config.layers).flat_map(move |index| layer(config, index, &has)))
}

struct List<'a> {
    prefix: String,
    config: &'a ModelConfig,
    needed: Vec<Needed>,
}

impl<'a> List<'a> {
    fn new(prefix: impl Into<String>, config: &'a ModelConfig) -> Self {
        Self { prefix: prefix.into(), config, needed: Vec::new() }
    }

    fn matrix(&mut self, name: &str, rows: usize, columns: usize, bias: bool) {
        let module = format!("{}{name}", self.prefix);
        if bias {
            self.vector(&format!("{name}.bias"), rows, 1);
        }
        self.needed.push(Needed::Matrix { module, rows, columns, by_heads: false });
    }

    fn heads(&mut self, name: &str, rows: usize, columns: usize) {
        let module = format!("{}{name}", self.prefix);
        self.needed.push(Needed::Matrix { module, rows, columns, by_heads: true });
    }

    fn vector(&mut self, name: &str, size: usize, rows: usize) {
        self.needed.push(Needed::Vector { name: format!("{}{name}", self.prefix), size, rows });
    }

    fn conv(&mut self, module: &str, channels: usize, width: usize) {
        let name = format!("{}{module}.weight", self.prefix);
        self.needed.push(Needed::Conv { name, channels, width });
    }

    fn norm(&mut self, name: &str) {
        self.norm_of(name, self.config.hidden_size, 1);
    }

    fn norm_of(&mut self, name: &str, size: usize, rows: usize) {
        self.vector(&format!("{name}.weight"), size, rows);
        if self.config.style.norm == (NormKind::Layer { bias: true }) {
            self.vector(&format!("{name}.bias"), size, rows);
        }
    }

    /// Of as many heads, one below the other, or each a module of its own.
    fn norms_of_heads(&mut self, name: &str, heads: usize, head_dim: usize, has: &impl Fn(&str) -> bool) {
        let apart = self.config.architecture.names.head_norms;
        match apart.filter(|_| !has(&format!("{}{name}", self.prefix))) {
            None => self.vector(&format!("{name}.weight"), heads * head_dim, heads),
            Some(norms) => {
                for head in 0..heads {
                    self.vector(&format!("{name}.{norms}.{head}.weight"), head_dim, 1);
                }
            }
        }
    }
}

fn layer(config: &ModelConfig, index: usize, has: &impl Fn(&str) -> bool) -> Vec<Needed> {
    let (style, names, hidden) = (config.style, &config.architecture.names, config.hidden_size);
    let mut list = List::new(format!("model.layers.{index}."), config);

    let feeds = config.plan.get(index).is_none_or(|layer| layer.feeds);
    let mixes = config.plan.get(index).is_none_or(|layer| layer.mixer != Mixer::Nothing);
    let norms: &[&str] = match style.placement {
        Placement::Before if !feeds => &[names.attention_norm],
        Placement::Before if !mixes => &[names.mlp_norm],
        Placement::Parallel => &[names.attention_norm],
        Placement::Before => &[names.attention_norm, names.mlp_norm],
        Placement::After => &[names.attention_post_norm, names.mlp_post_norm],
        Placement::Around => {
            &[names.attention_norm, names.attention_post_norm, names.mlp_norm, names.mlp_post_norm]
        }
    };
    for norm in norms {
        list.norm(norm);
    }
    match (config.plan.get(index).map(|layer| layer.mixer), &config.recurrent) {
        (Some(Mixer::Recurrent), Some(Recurrent::Delta(delta))) => delta_net(delta, &mut list, has),
        (Some(Mixer::Recurrent), Some(Recurrent::ShortConv(conv))) => short_conv(conv, &mut list),
        (Some(Mixer::Recurrent), Some(Recurrent::Mamba(sizes))) => mamba(sizes, &mut list),
        (Some(Mixer::Nothing), _) => {}
        _ if let Some(latent) = config.latent => latent_attention(&latent, &mut list, has),
        _ => attention(&mut list, index, has),
    }
    if style.scaled_layers {
        list.vector(names.scalar, 1, 1);
    }
    if let Some(inputs) = config.layer_inputs {
        list.matrix(names::LAYER_INPUTS.gate, inputs.size, hidden, false);
        list.matrix(names::LAYER_INPUTS.back, hidden, inputs.size, false);
        list.norm(names::LAYER_INPUTS.post_norm);
    }
    if !feeds {
        return list.needed;
    }

    if let Some(mixed) = config.experts
        && config.plan.get(index).is_some_and(|layer| layer.sparse)
    {
        experts(config, &mut list, has);
        if !mixed.beside {
            return list.needed;
        }
        for norm in names.experts.norms {
            list.norm(norm);
        }
        list.vector(names.experts.router_norm, hidden, 1);
        list.vector(names.experts.factors, mixed.routing.count, 1);
    }
    let inner = config.plan.get(index).and_then(|layer| layer.inner).unwrap_or(config.intermediate_size);
    if let Some([gate, up, down]) = names.split_mlp
        && has(&format!("{}{gate}", list.prefix))
    {
        list.matrix(gate, inner, hidden, config.mlp_bias);
        list.matrix(up, inner, hidden, config.mlp_bias);
        list.matrix(down, hidden, inner, config.mlp_bias);
        return list.needed;
    }
    let rows = if style.gated && names.gate_up.len() == 1 { 2 * inner } else { inner };
    for name in names.gate_up {
        list.matrix(name, rows, hidden, config.mlp_bias);
    }
    list.matrix(names.down, hidden, inner, config.mlp_bias);
    list.needed
}

fn attention(list: &mut List, index: usize, has: &impl Fn(&str) -> bool) {
    let config = list.config;
    let (style, names, hidden) = (config.style, &config.architecture.names, config.hidden_size);
    let keys = config.key_heads(index);
    let (q, kv) = (config.heads * keys.dim, keys.count * keys.dim);
    let has_keys = config.plan.get(index).is_none_or(|layer| layer.keys_of.is_none());
    match style.qk_norm {
        None => {}
        Some(QkNorm::Heads | QkNorm::Rotated) => {
            list.norm_of(names.q_norm, keys.dim, 1);
            if has_keys {
                list.norm_of(names.k_norm, keys.dim, 1);
            }
        }
        Some(QkNorm::Whole) => {
            list.norm_of(names.q_norm, q, 1);
            list.norm_of(names.k_norm, kv, 1);
        }
        Some(QkNorm::EachHead) => {
            list.norms_of_heads(names.q_norm, config.heads, keys.dim, has);
            list.norms_of_heads(names.k_norm, keys.count, keys.dim, has);
        }
    }
    let q_rows = if style.gated_attention { 2 * q } else { q };
    let rows: &[usize] = match (names.qkv.len(), has_keys, keys.are_values) {
        (1, ..) => &[q_rows + 2 * kv],
        (_, false, _) => &[q_rows],
        (_, true, true) => &[q_rows, kv],
        (_, true, false) => &[q_rows, kv, kv],
    };
    for (name, &rows) in names.qkv.iter().zip(rows) {
        list.matrix(name, rows, hidden, config.attention_bias.qkv);
    }
    list.matrix(names.output, hidden, q, config.attention_bias.o);
    if config.attention_sinks {
        list.vector(names.sinks, config.heads, 1);
    }
}

fn latent_attention(latent: &Latent, list: &mut List, has: &impl Fn(&str) -> bool) {
    let config = list.config;
    let (names, hidden, heads, bias) =
        (&names::LATENT, config.hidden_size, config.heads, config.attention_bias);
    let queries = heads * latent.query_dim();
    match latent.query_rank {
        Some(rank) => {
            list.matrix(names.query_down, rank, hidden, bias.qkv);
            list.norm_of(names.query_norm, rank, 1);
            list.matrix(names.query_up, queries, rank, false);
        }
        None => list.matrix(names.query, queries, hidden, false),
    }
    list.matrix(names.latent, latent.key_dim(), hidden, bias.qkv);
    list.norm_of(names.latent_norm, latent.rank, 1);
    if has(&format!("{}{}", list.prefix, names.both)) {
        list.heads(names.both, heads * latent.made(), latent.rank);
    } else {
        list.heads(names.keys, heads * latent.rank, latent.plain);
        list.heads(names.values, heads * latent.value, latent.rank);
    }
    list.matrix(config.architecture.names.output, hidden, heads * latent.value, bias.o);
}

fn delta_net(delta: &Delta, list: &mut List, has: &impl Fn(&str) -> bool) {
    let (names, hidden, heads) = (&names::DELTA, list.config.hidden_size, delta.value_heads);
    let [mixed, gates, rates, decays] = names.split;
    let input = [(mixed, delta.channels()), (gates, delta.values())];
    let pace = [(rates, heads), (decays, heads)];
    for (fused, split) in names.fused.into_iter().zip([input, pace]) {
        if has(&format!("{}{fused}", list.prefix)) {
            list.matrix(fused, split[0].1 + split[1].1, hidden, false);
        } else {
            for (name, rows) in split {
                list.matrix(name, rows, hidden, false);
            }
        }
    }
    list.conv(names.conv, delta.channels(), delta.width);
    list.vector(names.decay, heads, 1);
    list.vector(names.decay_bias, heads, 1);
    list.vector(&format!("{}.weight", names.norm), delta.value_dim, 1);
    list.matrix(names.output, hidden, delta.values(), false);
}

fn short_conv(conv: &ShortConv, list: &mut List) {
    let (names, hidden) = (&names::SHORT_CONV, list.config.hidden_size);
    list.matrix(names.input, 3 * hidden, hidden, conv.bias);
    list.conv(names.conv, conv.channels, conv.width);
    if conv.bias {
        list.vector(&format!("{}.bias", names.conv), conv.channels, 1);
    }
    list.matrix(names.output, hidden, hidden, conv.bias);
}

fn mamba(sizes: &Mamba, list: &mut List) {
    let (hidden, inner, heads) = (list.config.hidden_size, sizes.values(), sizes.heads);
    let at = |name: &str| format!("{}.{name}", list.config.architecture.names.mamba);
    let [input, conv, output] = ["in_proj", "conv1d", "out_proj"].map(at);
    let vectors = [("A_log", heads), ("D", heads), ("dt_bias", heads), ("norm.weight", inner)];
    let vectors = vectors.map(|(name, size)| (at(name), size));
    list.matrix(&input, inner + sizes.channels() + heads, hidden, sizes.bias);
    list.conv(&conv, sizes.channels(), sizes.width);
    if sizes.conv_bias {
        list.vector(&format!("{conv}.bias"), sizes.channels(), 1);
    }
    for (name, size) in vectors {
        list.vector(&name, size, 1);
    }
    list.matrix(&output, hidden, inner, sizes.bias);
}

fn experts(config: &ModelConfig, list: &mut List, has: &impl Fn(&str) -> bool) {
    let Some(experts) = config.experts else { return };
    let (names, states, gated) = (&config.architecture.names.experts, config.hidden_size, config.style.gated);
    let hidden = experts.squeezed.unwrap_or(states);
    if experts.squeezed.is_some() {
        list.matrix(names.squeeze[0], hidden, states, false);
        list.matrix(names.squeeze[1], states, hidden, false);
    }
    let parts = if gated { 0..3 } else { 1..3 };
    let (count, inner) = (experts.routing.count, experts.intermediate_size);
    let there = |name: &str| has(&format!("{}{name}", list.prefix));
    let (is_stacked, is_fused) = (there(names.stacked[1]), there(names.fused[0]) && !experts.turned);
    // GGUF files fuse gate and up only.
    let fused_down = if there(names.fused[1]) { names.fused[1] } else { names.stacked[2] };
    let transposed = names.transposed.filter(|names| there(names[0]));
    let split_shared = names.split_shared.filter(|[gate, _]| there(gate));
    list.matrix(names.router, count, states, experts.bias);
    if experts.routing.corrected {
        list.vector(names.correction, count, 1);
    }
    if is_stacked {
        let (rows, columns) = ([inner, inner, hidden], [hidden, hidden, inner]);
        for index in parts {
            let columns = columns[index];
            list.matrix(names.stacked[index], count * rows[index], columns, false);
            if experts.bias {
                list.vector(&format!("{}.bias", names.stacked[index]), count * rows[index], count);
            }
        }
    } else if is_fused || transposed.is_some() {
        if let Some([gate_up, down]) = transposed.filter(|_| !is_fused) {
            list.matrix(gate_up, count * hidden, 2 * inner, false);
            list.matrix(down, count * inner, hidden, false);
        } else {
            list.matrix(names.fused[0], count * 2 * inner, hidden, false);
            list.matrix(fused_down, count * hidden, inner, false);
        }
        if experts.bias {
            list.vector(names.fused_bias[0], count * 2 * inner, count);
            list.vector(names.fused_bias[1], count * hidden, count);
        }
    } else {
        for expert in 0..count {
            let name = |part: usize| format!("{}.{expert}.{}", names.each, names.parts[part]);
            if gated {
                list.matrix(&name(0), inner, hidden, false);
            }
            list.matrix(&name(1), inner, hidden, false);
            list.matrix(&name(2), hidden, inner, false);
        }
    }
    if let Some(shared) = experts.shared {
        let [gate, up, down] = names.shared;
        let inner = shared.intermediate_size;
        match (split_shared, up.is_empty()) {
            (Some(split), _) => split.iter().for_each(|name| list.matrix(name, inner, states, false)),
            (None, true) => list.matrix(gate, if gated { 2 * inner } else { inner }, states, false),
            (None, false) => {
                list.matrix(gate, inner, states, false);
                list.matrix(up, inner, states, false);
            }
        }
        list.matrix(down, states, inner, false);
        if shared.gated {
            list.matrix(names.shared_gate, 1, states, false);
        }
    }
}
