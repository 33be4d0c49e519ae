use mlx_rs::ops::indexing::IndexOp;
use mlx_rs::{Array, ops};

use super::{Random, assert_close};
use crate::engine::kernels::isa::forced;
use crate::engine::kernels::{SequenceAttention, sequence_attention};

/// A head `[tokens, D]` with its first dimensions rotated by `[P, R]` cosines and sines.
fn rotated(x: &Array, rotation: &Array, interleaved: bool) -> Array {
    let (tokens, r) = (x.dim(0), rotation.dim(1));
    let (cosines, sines) = (rotation.index((..tokens, ..r / 2)), rotation.index((..tokens, r / 2..)));
    let pairs = x.index((.., ..r));
    let (low, high) = if interleaved {
        let split = pairs.reshape(&[tokens, r / 2, 2]).unwrap();
        (split.index((.., .., 0)), split.index((.., .., 1)))
    } else {
        (pairs.index((.., ..r / 2)), pairs.index((.., r / 2..)))
    };
    let times = |a: &Array, b: &Array| ops::multiply(a, b).unwrap();
    let new_low = ops::subtract(times(&low, &cosines), times(&high, &sines)).unwrap();
    let new_high = ops::add(times(&low, &sines), times(&high, &cosines)).unwrap();
    let turned = if interleaved {
        ops::stack(&[new_low, new_high], -1).unwrap().reshape(&[tokens, r]).unwrap()
    } else {
        ops::concatenate(&[new_low, new_high], -1).unwrap()
    };
    ops::concatenate(&[turned, x.index((.., r..))], -1).unwrap()
}

/// One sequence after the other, one head after the other.
fn reference(
    qkv: &Array,
    starts: &[i32],
    rotation: Option<&Array>,
    bias: Option<&Array>,
    layer: &SequenceAttention,
) -> Array {
    let d = layer.head_dim as i32;
    let sequences: Vec<Array> = starts
        .windows(2)
        .map(|pair| {
            let (rows, length) = (qkv.index((pair[0]..pair[1], ..)), pair[1] - pair[0]);
            let head = |index: usize| rows.index((.., index as i32 * d..(index as i32 + 1) * d));
            let turn = |x: Array| rotation.map_or(x.clone(), |it| rotated(&x, it, layer.interleaved));
            let heads: Vec<Array> = (0..layer.heads)
                .map(|index| {
                    let shared = layer.heads + index / (layer.heads / layer.kv_heads);
                    let (q, k) = (turn(head(index)), turn(head(shared)));
                    let scores = ops::matmul(&q, k.swap_axes(0, 1).unwrap()).unwrap();
                    let mut scores = ops::multiply(&scores, Array::from_f32(layer.scale)).unwrap();
                    let mut added = Vec::new();
                    for query in 0..length {
                        for key in 0..length {
                            let near = layer.reach.is_none_or(|reach| query.abs_diff(key) as usize <= reach);
                            let seen = near && (!layer.causal || key <= query);
                            let hidden = if seen { 0.0 } else { f32::NEG_INFINITY };
                            added.push(bias.map_or(hidden, |bias| {
                                let place = (bias.dim(1) - 1) / 2 + key - query;
                                hidden + bias.index((index as i32, place)).item_exact::<f32>()
                            }));
                        }
                    }
                    scores = ops::add(&scores, Array::from_slice(&added, &[length, length])).unwrap();
                    let weights = ops::softmax_axis(&scores, -1, true).unwrap();
                    ops::matmul(&weights, head(shared + layer.kv_heads)).unwrap()
                })
                .collect();
            ops::concatenate(&heads, 1).unwrap()
        })
        .collect();
    ops::concatenate(&sequences, 0).unwrap()
}

#[test]
fn attention_within_sequences_equals_mlx_over_random_shapes() {
    let mut random = Random(23);
    for round in 0..40 {
        let kv_heads = 1 + random.below(3);
        let head_dim = random.pick(&[2, 6, 16, 20, 32, 40, 64]);
        let layer = SequenceAttention {
            heads: kv_heads * (1 + random.below(3)),
            kv_heads,
            head_dim,
            scale: 1.0 / (head_dim as f32).sqrt(),
            reach: random.pick(&[None, None, Some(0), Some(3), Some(20), Some(1000)]),
            causal: random.below(3) == 0,
            interleaved: random.below(2) == 0,
        };
        let mut starts = vec![0];
        for _ in 0..=random.below(5) {
            // Longer than the queries that are answered together, too.
            starts.push(starts[starts.len() - 1] + random.pick(&[1, 2, 7, 15, 16, 17, 49, 100]));
        }
        let longest = starts.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap() as usize;
        let tokens = starts[starts.len() - 1] as usize;
        let qkv = random.array(&[tokens, (layer.heads + 2 * kv_heads) * head_dim]);
        let rotated = random.pick(&[0, head_dim, head_dim, head_dim / 4 * 2]);
        let positions = longest + random.below(3);
        let rotation = (rotated > 0).then(|| random.array(&[positions, rotated]));
        let bias = (round % 4 == 3).then(|| random.array(&[layer.heads, 2 * positions - 1]));
        let expected = reference(&qkv, &starts, rotation.as_ref(), bias.as_ref(), &layer);
        expected.eval().unwrap();
        let places = Array::from_slice(&starts, &[starts.len() as i32]);
        forced::each(|isa| {
            let ours = sequence_attention(&qkv, &places, rotation.as_ref(), bias.as_ref(), &layer).unwrap();
            assert_close(&ours, &expected, 2e-5, &format!("{isa:?}, {round}: {starts:?}, {layer:?}"));
        });
    }
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    let layer = SequenceAttention {
        heads: 2,
        kv_heads: 1,
        head_dim: 4,
        scale: 0.5,
        reach: None,
        causal: false,
        interleaved: false,
    };
    let mut random = Random(3);
    let qkv = random.array(&[5, 16]);
    let starts = Array::from_slice(&[0, 5], &[2]);
    let ok = |qkv: &Array, starts: &Array, rotation: Option<&Array>, bias: Option<&Array>| {
        sequence_attention(qkv, starts, rotation, bias, &layer).is_ok()
    };
    assert!(ok(&qkv, &starts, None, None));
    assert!(!ok(&random.array(&[5, 12]), &starts, None, None));
    assert!(!ok(&qkv, &Array::from_slice(&[0.0f32, 5.0], &[2]), None, None));
    assert!(!ok(&qkv, &Array::from_slice(&[0], &[1]), None, None));
    assert!(!ok(&qkv, &starts, Some(&random.array(&[5, 6])), None));
    assert!(!ok(&qkv, &starts, None, Some(&random.array(&[3, 9]))));
    assert!(!ok(&qkv, &starts, None, Some(&random.array(&[2, 8]))));
}
