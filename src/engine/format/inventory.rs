//! The tensors that a block needs, and their shapes.
//!
//! A checkpoint is compared with this list when it is opened: a missing or wrongly shaped tensor is
//! found before any weight is loaded.

use crate::engine::config::ModelConfig;

/// A tensor that the model reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Needed {
    /// The matrix `[rows, columns]` of a module, packed or dense.
    Matrix { module: String, rows: usize, columns: usize },
    /// A vector by its full name.
    Vector { name: String, size: usize },
}

/// Shape `[rows, columns]` of a module's matrix, before packing; `None` for other names.
pub fn matrix_shape(config: &ModelConfig, module: &str) -> Option<(usize, usize)> {
    let hidden = config.hidden_size;
    let name = module.rsplit('.').next()?;
    Some(match name {
        "embed_tokens" | "lm_head" => (config.vocab_size, hidden),
        "q_proj" => (config.heads * config.head_dim, hidden),
        "k_proj" | "v_proj" => (config.kv_heads * config.head_dim, hidden),
        "o_proj" => (hidden, config.heads * config.head_dim),
        "gate_proj" | "up_proj" => (config.intermediate_size, hidden),
        "down_proj" => (hidden, config.intermediate_size),
        _ => return None,
    })
}

/// Everything that the configured model reads, layer by layer.
pub fn needed(config: &ModelConfig) -> impl Iterator<Item = Needed> + '_ {
    let hidden = config.hidden_size;
    let matrix = |module: String| {
        let (rows, columns) = matrix_shape(config, &module)?;
        Some(Needed::Matrix { module, rows, columns })
    };
    let vector = |name: String, size: usize| Needed::Vector { name, size };
    let layer = move |index: usize| {
        let prefix = format!("model.layers.{index}");
        let mut list = vec![
            vector(format!("{prefix}.input_layernorm.weight"), hidden),
            vector(format!("{prefix}.post_attention_layernorm.weight"), hidden),
        ];
        let bias = config.attention_bias;
        let modules = [
            ("self_attn.q_proj", bias.qkv),
            ("self_attn.k_proj", bias.qkv),
            ("self_attn.v_proj", bias.qkv),
            ("self_attn.o_proj", bias.o),
            ("mlp.gate_proj", config.mlp_bias),
            ("mlp.up_proj", config.mlp_bias),
            ("mlp.down_proj", config.mlp_bias),
        ];
        for (module, has_bias) in modules {
            let module = format!("{prefix}.{module}");
            if let Some(needed) = matrix(module) {
                if let (true, Needed::Matrix { module, rows, .. }) = (has_bias, &needed) {
                    list.push(vector(format!("{module}.bias"), *rows));
                }
                list.push(needed);
            }
        }
        list
    };
    let head = (!config.tie_word_embeddings).then(|| "lm_head".to_owned());
    let ends = ["model.embed_tokens".to_owned()].into_iter().chain(head);
    ends.filter_map(matrix)
        .chain([vector("model.norm.weight".to_owned(), hidden)])
        .chain((0..config.layers).flat_map(layer))
}
