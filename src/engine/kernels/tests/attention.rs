use mlx_rs::ops::indexing::IndexOp;
use mlx_rs::{Array, fast, ops};

use super::{Random, assert_close};
use crate::engine::kernels::isa::forced;
use crate::engine::kernels::{Attention, attention};

/// The same by MLX's operations: `rope`, and softmax over masked scores.
fn reference(
    qkv: &Array,
    keys: &Array,
    values: &Array,
    frequencies: &Array,
    layer: &Attention,
) -> [Array; 3] {
    let (h, kv, d) = (layer.heads as i32, layer.kv_heads as i32, layer.head_dim as i32);
    let (tokens, offset) = (qkv.dim(0), layer.offset as i32);
    let heads = |from: i32, count: i32| {
        let part = qkv.index((.., from * d..(from + count) * d));
        part.reshape(&[tokens, count, d]).unwrap().swap_axes(0, 1).unwrap()
    };
    let rotate = |x: Array| {
        if layer.rotary_dims == 0 {
            return x;
        }
        // MLX takes the periods' inverses.
        let periods = ops::divide(Array::from_f32(1.0), frequencies).unwrap();
        let x = x.expand_dims(0).unwrap();
        let dims = layer.rotary_dims as i32;
        let rotated = fast::rope(x, dims, layer.traditional, None, 1.0, offset, &periods).unwrap();
        let scaled =
            ops::multiply(rotated.index((0, .., .., ..dims)), Array::from_f32(layer.rope_scale)).unwrap();
        ops::concatenate(&[scaled, rotated.index((0, .., .., dims..))], 2).unwrap()
    };
    let (q, k, v) = (rotate(heads(0, h)), rotate(heads(h, kv)), heads(h + kv, kv));
    let all = |cache: &Array, new: &Array| {
        ops::concatenate(&[cache.index((.., ..offset, ..)), new.clone()], 1).unwrap()
    };
    let (keys, values) = (all(keys, &k), all(values, &v));
    let repeat = |x: &Array| ops::repeat_axis::<f32>(x.clone(), h / kv, 0).unwrap();
    let scores = ops::matmul(&q, repeat(&keys).swap_axes(1, 2).unwrap()).unwrap();
    let scores = ops::multiply(&scores, Array::from_f32(layer.scale)).unwrap();
    let scores = match layer.soft_cap {
        Some(cap) => {
            let cap = Array::from_f32(cap);
            ops::multiply(ops::tanh(ops::divide(&scores, &cap).unwrap()).unwrap(), &cap).unwrap()
        }
        None => scores,
    };
    let total = offset + tokens;
    let mut mask = Vec::new();
    for token in 0..tokens {
        for position in 0..total {
            let behind = offset + token - position;
            let seen = behind >= 0 && layer.window.is_none_or(|window| behind < window as i32);
            mask.push(if seen { 0.0 } else { f32::NEG_INFINITY });
        }
    }
    let scores = ops::add(&scores, Array::from_slice(&mask, &[tokens, total])).unwrap();
    let weights = ops::softmax_axis(&scores, -1, true).unwrap();
    let out = ops::matmul(&weights, repeat(&values)).unwrap();
    let out = out.swap_axes(0, 1).unwrap().reshape(&[tokens, h * d]).unwrap();
    [out, keys, values]
}

#[test]
fn attention_equals_mlx_over_random_shapes() {
    let mut random = Random(17);
    for round in 0..60 {
        let kv_heads = 1 + random.below(3);
        let heads = kv_heads * (1 + random.below(4));
        let head_dim = random.pick(&[2, 6, 16, 20, 32, 40, 64, 64, 80, 128]);
        let rotary_dims = random.pick(&[head_dim, head_dim, head_dim / 4 * 2, 0]);
        let tokens = random.pick(&[1, 1, 1, 2, 3, 9, 24, 25, 60]);
        let offset = random.pick(&[0, 0, 1, 15, 16, 17, 100, 333]);
        let window = random.pick(&[None, None, Some(1), Some(5), Some(40), Some(1000)]);
        let capacity = offset + tokens + random.below(30);
        let layer = Attention {
            heads,
            kv_heads,
            head_dim,
            rotary_dims,
            traditional: random.below(2) == 0,
            rope_scale: random.pick(&[1.0, 1.25]),
            scale: 1.0 / (head_dim as f32).sqrt(),
            soft_cap: random.pick(&[None, None, None, Some(2.0), Some(30.0)]),
            offset,
            window,
        };
        let frequencies: Vec<f32> =
            (0..rotary_dims / 2).map(|i| 1e4_f32.powf(-2.0 * i as f32 / rotary_dims as f32)).collect();
        let frequencies = Array::from_slice(&frequencies, &[(rotary_dims / 2) as i32]);
        let qkv = ops::multiply(
            random.array(&[tokens, (heads + 2 * kv_heads) * head_dim]),
            Array::from_f32(random.pick(&[1.0, 8.0])),
        )
        .unwrap();
        let keys = random.array(&[kv_heads, capacity, head_dim]);
        let values = random.array(&[kv_heads, capacity, head_dim]);
        let [out, all_keys, all_values] = reference(&qkv, &keys, &values, &frequencies, &layer);
        mlx_rs::transforms::eval([&out, &all_keys, &all_values]).unwrap();
        forced::each(|isa| {
            // Each level starts with caches of its own, filled up to the offset.
            let (keys, values) = (keys.deep_clone(), values.deep_clone());
            let ours = attention(&qkv, &keys, &values, Some(&frequencies), &layer).unwrap();
            let what = format!("{isa:?}, {round}: {tokens} tokens, {layer:?}");
            // Angles of some hundred radians carry an error of 1e-5, which scores multiply.
            assert_close(&ours.output, &out, 2e-4, &what);
            let filled = (offset + tokens) as i32;
            let filled = |cache: &Array| cache.index((.., ..filled, ..)).contiguous().unwrap();
            assert_close(&filled(&ours.keys), &all_keys, 1e-4, &what);
            assert_close(&filled(&ours.values), &all_values, 0.0, &what);
        });
    }
}

#[test]
fn impossible_attention_is_an_error() {
    let layer = Attention {
        heads: 4,
        kv_heads: 2,
        head_dim: 8,
        rotary_dims: 8,
        traditional: false,
        rope_scale: 1.0,
        scale: 1.0,
        soft_cap: None,
        offset: 3,
        window: None,
    };
    let mut random = Random(1);
    let qkv = random.array(&[2, 64]);
    let cache = random.array(&[2, 5, 8]);
    let frequencies = random.array(&[4]);
    assert!(attention(&qkv, &cache, &cache, Some(&frequencies), &layer).is_ok());
    let broken = [
        Attention { offset: 4, ..layer },
        Attention { offset: usize::MAX, ..layer },
        Attention { heads: 3, ..layer },
        Attention { kv_heads: 0, ..layer },
        Attention { head_dim: 7, ..layer },
        Attention { rotary_dims: 10, ..layer },
        Attention { rotary_dims: 4, ..layer },
        Attention { window: Some(0), ..layer },
        Attention { soft_cap: Some(0.0), ..layer },
        Attention { heads: usize::MAX / 2 * 2, ..layer },
    ];
    for layer in broken {
        assert!(attention(&qkv, &cache, &cache, Some(&frequencies), &layer).is_err(), "{layer:?}");
    }
    assert!(attention(&qkv, &cache, &cache, None, &layer).is_err(), "a rotation without frequencies");
    assert!(attention(&qkv, &cache, &cache, None, &Attention { rotary_dims: 0, ..layer }).is_ok());
    assert!(attention(&qkv, &cache, &random.array(&[2, 6, 8]), Some(&frequencies), &layer).is_err());
}
