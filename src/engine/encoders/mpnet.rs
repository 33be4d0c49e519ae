//! MPNet (Song et al., arXiv:2004.09297): BERT with a bias by distance, which all layers share.

use mlx_rs::Array;

use super::Encoder;
use super::bert::{self, Modules};
use super::block::bert_shape;
use super::settings::Settings;
use super::weights::Weights;
use crate::engine::format::file::damaged;
use crate::error::Result;

/// Distances from here on share a bucket (a constant of `transformers`).
const MAX_DISTANCE: f32 = 128.0;

const MODULES: Modules = Modules {
    layers: "encoder.layer",
    qkv: ["attention.attn.q", "attention.attn.k", "attention.attn.v"],
    output: "attention.attn.o",
    up: "intermediate.dense",
    down: "output.dense",
    norms: ["attention.LayerNorm", "output.LayerNorm"],
};

pub fn load(settings: &Settings, weights: &Weights) -> Result<Encoder> {
    let padding = settings.size(&["pad_token_id"])?.unwrap_or(1);
    let shape = bert_shape(settings, padding + 1)?;
    let prefix = weights.prefix(&["", "mpnet.", "model."], "embeddings.word_embeddings.weight");
    // Found too short where the configuration asks for more positions than there are.
    let positions = bert::positions(weights, &shape, prefix, Some(padding as u32))?;
    let buckets = settings.size(&["relative_attention_num_buckets"])?.unwrap_or(32);
    if buckets < 4 {
        return Err(damaged(settings.path(), &format!("has {buckets} kinds of distances")));
    }
    // [buckets, heads]
    let table =
        weights.vector(&format!("{prefix}encoder.relative_attention_bias.weight"), buckets * shape.heads)?;
    let width = 2 * shape.max_tokens - 1;
    let mut bias = Vec::with_capacity(shape.heads * width);
    for head in 0..shape.heads {
        bias.extend((0..width).map(|place| {
            let distance = place as i64 - (shape.max_tokens as i64 - 1);
            table[bucket(distance, buckets) * shape.heads + head]
        }));
    }
    let bias = Array::from_slice(&bias, &[shape.heads as i32, width as i32]);
    bert::assemble(weights, shape, prefix, &MODULES, positions, Some(&bias))
}

/// The bucket of `key - query` (Raffel et al., arXiv:1910.10683, section 2.1): half of them for keys that
/// follow, half of those for exact distances, the rest growing logarithmically.
fn bucket(distance: i64, buckets: usize) -> usize {
    let half = buckets / 2;
    let follows = if distance > 0 { half } else { 0 };
    let distance = distance.unsigned_abs() as usize;
    let exact = half / 2;
    if distance < exact {
        return follows + distance;
    }
    let share = (distance as f32 / exact as f32).ln() / (f64::from(MAX_DISTANCE) / exact as f64).ln() as f32;
    let far = exact + (share * (half - exact) as f32) as usize;
    follows + far.min(half - 1)
}

#[cfg(test)]
mod tests {
    use super::bucket;

    #[test]
    fn near_distances_have_buckets_of_their_own() {
        let found: Vec<usize> =
            [0, -1, -7, -8, -16, -127, -500, 1, 7, 8, 500].map(|d| bucket(d, 32)).to_vec();
        assert_eq!(found, [0, 1, 7, 8, 10, 15, 15, 17, 23, 24, 31]);
    }
}
