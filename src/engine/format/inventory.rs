//! The tensors that a model needs, and their shapes.
//!
//! A checkpoint is compared with this list when it is opened: a missing or wrongly shaped tensor is
//! found before any weight is loaded.

use crate::engine::config::ModelConfig;
use crate::engine::config::style::{NormKind, Placement, QkNorm};

/// A tensor that the model reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Needed {
    /// The matrix `[rows, columns]` of a module, packed or dense. Those of several experts lie in one
    /// tensor of three dimensions, and count as one matrix with all their rows.
    Matrix { module: String, rows: usize, columns: usize },
    /// A vector by its full name. Weights of single heads lie in as many rows.
    Vector { name: String, size: usize, rows: usize },
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
        self.needed.push(Needed::Matrix { module, rows, columns });
    }

    fn vector(&mut self, name: &str, size: usize, rows: usize) {
        self.needed.push(Needed::Vector { name: format!("{}{name}", self.prefix), size, rows });
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
}

fn layer(config: &ModelConfig, index: usize, has: &impl Fn(&str) -> bool) -> Vec<Needed> {
    let (style, names, hidden) = (config.style, &config.architecture.names, config.hidden_size);
    let (q, kv) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
    let mut list = List::new(format!("model.layers.{index}."), config);

    let norms: &[&str] = match style.placement {
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
    match style.qk_norm {
        None => {}
        Some(QkNorm::Heads | QkNorm::Rotated) => {
            list.norm_of(names.q_norm, config.head_dim, 1);
            list.norm_of(names.k_norm, config.head_dim, 1);
        }
        Some(QkNorm::Whole) => {
            list.norm_of(names.q_norm, q, 1);
            list.norm_of(names.k_norm, kv, 1);
        }
        Some(QkNorm::EachHead) => {
            list.norm_of(names.q_norm, q, config.heads);
            list.norm_of(names.k_norm, kv, config.kv_heads);
        }
    }
    let rows: &[usize] = if names.qkv.len() == 1 { &[q + 2 * kv] } else { &[q, kv, kv] };
    for (name, &rows) in names.qkv.iter().zip(rows) {
        list.matrix(name, rows, hidden, config.attention_bias.qkv);
    }
    list.matrix(names.output, hidden, q, config.attention_bias.o);
    if config.attention_sinks {
        list.vector(names.sinks, config.heads, 1);
    }

    if config.experts.is_some() && config.plan.get(index).is_some_and(|layer| layer.sparse) {
        experts(config, &mut list, has);
        return list.needed;
    }
    let inner = config.intermediate_size;
    let rows = if style.gated && names.gate_up.len() == 1 { 2 * inner } else { inner };
    for name in names.gate_up {
        list.matrix(name, rows, hidden, config.mlp_bias);
    }
    list.matrix(names.down, hidden, inner, config.mlp_bias);
    list.needed
}

fn experts(config: &ModelConfig, list: &mut List, has: &impl Fn(&str) -> bool) {
    let Some(experts) = config.experts else { return };
    let (names, hidden) = (&config.architecture.names.experts, config.hidden_size);
    let (count, inner) = (experts.routing.count, experts.intermediate_size);
    let there = |name: &str| has(&format!("{}{name}", list.prefix));
    let (is_stacked, is_fused) = (there(names.stacked[0]), there(names.fused[0]));
    let transposed = names.transposed.filter(|names| there(names[0]));
    list.matrix(names.router, count, hidden, experts.bias);
    if experts.routing.corrected {
        list.vector(names.correction, count, 1);
    }
    if is_stacked {
        let rows = [inner, inner, hidden];
        for (index, columns) in [hidden, hidden, inner].into_iter().enumerate() {
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
            list.matrix(names.fused[1], count * hidden, inner, false);
        }
        if experts.bias {
            list.vector(names.fused_bias[0], count * 2 * inner, count);
            list.vector(names.fused_bias[1], count * hidden, count);
        }
    } else {
        for expert in 0..count {
            let name = |part: usize| format!("{}.{expert}.{}", names.each, names.parts[part]);
            list.matrix(&name(0), inner, hidden, false);
            list.matrix(&name(1), inner, hidden, false);
            list.matrix(&name(2), hidden, inner, false);
        }
    }
    if let Some(shared) = experts.shared {
        let name = |part: usize| format!("{}.{}", names.shared, ["gate_proj", "up_proj", "down_proj"][part]);
        list.matrix(&name(0), shared.intermediate_size, hidden, false);
        list.matrix(&name(1), shared.intermediate_size, hidden, false);
        list.matrix(&name(2), hidden, shared.intermediate_size, false);
        if shared.gated {
            list.matrix(names.shared_gate, 1, hidden, false);
        }
    }
}
