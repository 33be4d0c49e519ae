use mlx_rs::ops::indexing::{IndexOp, TryIndexMutOp};
use mlx_rs::{Array, Dtype, fast, ops};

use super::{Random, assert_close};
use crate::engine::config::style::Growth;
use crate::engine::ffi::{Operand, Tensor, with_room};
use crate::engine::kernels::isa::forced;
use crate::engine::kernels::{Attention, Place, attention, attention_together};

/// The same by MLX's operations: `rope`, and softmax over masked scores. The output, and the caches' entries
/// as far as they are in use.
fn reference(qkv: &Array, caches: &[Array], vectors: &Array, layer: &Attention) -> (Array, Vec<Array>) {
    let is_half = caches[0].dtype() == Dtype::Float16;
    let pairs = (layer.rotary_dims / 2) as i32;
    let (frequencies, rest) = (vectors.index(..pairs), vectors.index(pairs..));
    let (h, kv) = (layer.heads as i32, layer.kv_heads as i32);
    let (d, dv) = (layer.head_dim as i32, layer.value_dim as i32);
    let (tokens, offset, held) = (qkv.dim(0), layer.offset as i32, layer.held as i32);
    let heads = |from: i32, count: i32, width: i32| {
        let part = qkv.index((.., from..from + count * width));
        part.reshape(&[tokens, count, width]).unwrap().swap_axes(0, 1).unwrap()
    };
    let rotate = |x: Array| {
        if layer.rotary_dims == 0 {
            return x;
        }
        // MLX takes the periods' inverses.
        let periods = ops::divide(Array::from_f32(1.0), &frequencies).unwrap();
        let x = x.expand_dims(0).unwrap();
        let dims = layer.rotary_dims as i32;
        let rotated = fast::rope(x, dims, layer.traditional, None, 1.0, offset, &periods).unwrap();
        let scaled =
            ops::multiply(rotated.index((0, .., .., ..dims)), Array::from_f32(layer.rope_scale)).unwrap();
        ops::concatenate(&[scaled, rotated.index((0, .., .., dims..))], 2).unwrap()
    };
    let (mut q, k) = (rotate(heads(0, h, d)), rotate(heads(h * d, kv, d)));
    if layer.weighs_queries {
        q = ops::multiply(&q, rest.index(..d)).unwrap();
    }
    if let Some(growth) = layer.growth {
        let factors: Vec<f32> = (0..tokens).map(|token| growth.at((offset + token) as usize)).collect();
        q = ops::multiply(&q, Array::from_slice(&factors, &[tokens, 1])).unwrap();
    }
    let mut new = vec![k];
    if !layer.values_in_keys {
        new.push(heads((h + kv) * d, kv, dv));
    }
    let new: Vec<Array> = new.iter().flat_map(|side| stored(side, layer, is_half)).collect();
    let all: Vec<Array> = caches
        .iter()
        .zip(&new)
        .map(|(cache, new)| ops::concatenate(&[cache.index((.., ..held, ..)), new.clone()], 1).unwrap())
        .collect();
    let mut sides = all.chunks(all.len() / sides(layer)).map(|side| read(side, layer));
    let keys = sides.next().unwrap();
    let values = sides.next().unwrap_or_else(|| keys.index((.., .., d - dv..)));
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
    let total = held + tokens;
    let mut mask = Vec::new();
    for token in 0..tokens {
        for entry in 0..total {
            let behind = held + token - entry;
            let near = layer.window.is_none_or(|window| behind < window as i32);
            let seen = behind >= 0 && (near || entry < layer.keep as i32);
            mask.push(if seen { 0.0 } else { f32::NEG_INFINITY });
        }
    }
    let scores = ops::add(&scores, Array::from_slice(&mask, &[tokens, total])).unwrap();
    let weights = if layer.has_sinks {
        let sinks = rest.index(rest.dim(0) - h..).reshape(&[h, 1, 1]).unwrap();
        let sinks = ops::broadcast_to(&sinks, &[h, tokens, 1]).unwrap();
        let scores = ops::concatenate(&[scores, sinks], -1).unwrap();
        ops::softmax_axis(&scores, -1, true).unwrap().index((.., .., ..total))
    } else {
        ops::softmax_axis(&scores, -1, true).unwrap()
    };
    let out = ops::matmul(&weights, repeat(&values)).unwrap();
    (out.swap_axes(0, 1).unwrap().reshape(&[tokens, h * dv]).unwrap(), all)
}

/// Keys and values, or keys that are both.
fn sides(layer: &Attention) -> usize {
    if layer.values_in_keys { 1 } else { 2 }
}

/// Keys or values as the cache has them: the parts of one side.
fn stored(side: &Array, layer: &Attention, is_half: bool) -> Vec<Array> {
    let Some((bits, group)) = layer.packing else {
        let dtype = if is_half { Dtype::Float16 } else { Dtype::Float32 };
        return vec![side.as_dtype(dtype).unwrap()];
    };
    let (numbers, scales, biases) = ops::quantize(side, group as i32, bits as i32).unwrap();
    vec![numbers, scales, biases]
}

/// Caches of their own with the first `held` entries, for kernels to update.
fn copies(caches: &[Array], held: usize) -> Vec<Tensor> {
    let copy = |cache: &Array| {
        let &[heads, capacity, width] = cache.shape() else { panic!("{:?}", cache.shape()) };
        let rows = (held > 0).then(|| cache.index((.., ..held as i32, ..)));
        Tensor::from(with_room(rows.as_ref(), [heads, capacity, width], cache.dtype()).unwrap())
    };
    caches.iter().map(copy).collect()
}

fn arrays(caches: &[Tensor]) -> Vec<Array> {
    caches.iter().map(|cache| cache.array().unwrap()).collect()
}

/// The entries in use.
fn head(part: &Array, filled: i32) -> Array {
    part.index((.., ..filled, ..)).contiguous().unwrap()
}

fn read(side: &[Array], layer: &Attention) -> Array {
    match (side, layer.packing) {
        ([numbers, scales, biases], Some((bits, group))) => {
            ops::dequantize(numbers, scales, biases, group as i32, bits as i32).unwrap()
        }
        _ => side[0].as_dtype(Dtype::Float32).unwrap(),
    }
}

fn some_layer(random: &mut Random) -> Attention {
    let kv_heads = 1 + random.below(3);
    let packing = random.pick(&[None, None, Some((4, 32)), Some((8, 32)), Some((8, 64))]);
    let head_dim = match packing {
        Some((_, group)) => group * (1 + random.below(2)),
        None => random.pick(&[2, 6, 16, 20, 32, 40, 64, 64, 80, 128]),
    };
    let values_in_keys = random.below(4) == 0;
    let value_dim = match (packing, values_in_keys) {
        (_, true) => 1 + random.below(head_dim),
        (Some((_, group)), false) => group * (1 + random.below(2)),
        (None, false) => random.pick(&[head_dim, head_dim, 8, 24, 64]),
    };
    let held = random.pick(&[0, 0, 1, 15, 16, 17, 100, 333]);
    let window = random.pick(&[None, None, Some(1), Some(5), Some(40), Some(1000)]);
    Attention {
        heads: kv_heads * (1 + random.below(4)),
        kv_heads,
        head_dim,
        value_dim,
        appends: true,
        values_in_keys,
        rotary_dims: random.pick(&[head_dim, head_dim, head_dim / 4 * 2, 0]),
        traditional: random.below(2) == 0,
        rope_scale: random.pick(&[1.0, 1.25]),
        scale: 1.0 / (head_dim as f32).sqrt(),
        soft_cap: random.pick(&[None, None, None, Some(2.0), Some(30.0)]),
        growth: random.pick(&[None, None, Some(Growth { beta: 0.5, period: 10.0 })]),
        weighs_queries: random.below(3) == 0,
        has_sinks: random.below(3) == 0,
        offset: held + random.pick(&[0, 0, 77]),
        held,
        window,
        keep: random.pick(&[0, 0, 0, 3, 20]),
        packing,
    }
}

#[test]
fn attention_equals_mlx_over_random_shapes() {
    let mut random = Random(17);
    for round in 0..140 {
        let layer = some_layer(&mut random);
        let tokens = random.pick(&[1, 1, 1, 2, 3, 9, 24, 25, 60]);
        let capacity = layer.held + tokens + random.below(30);
        let rotary_dims = layer.rotary_dims;
        let frequencies: Vec<f32> =
            (0..rotary_dims / 2).map(|i| 1e4_f32.powf(-2.0 * i as f32 / rotary_dims as f32)).collect();
        let frequencies = Array::from_slice(&frequencies, &[(rotary_dims / 2) as i32]);
        let (weights, sinks) = (random.array(&[layer.head_dim]), random.array(&[layer.heads]));
        let mut vectors = vec![frequencies];
        vectors.extend(layer.weighs_queries.then_some(weights));
        vectors.extend(layer.has_sinks.then_some(sinks));
        let vectors = ops::concatenate(&vectors, 0).unwrap();
        let own = if layer.values_in_keys { 0 } else { layer.kv_heads * layer.value_dim };
        let width = (layer.heads + layer.kv_heads) * layer.head_dim + own;
        let qkv =
            ops::multiply(random.array(&[tokens, width]), Array::from_f32(random.pick(&[1.0, 8.0]))).unwrap();
        let is_half = layer.packing.is_none() && random.below(2) == 0;
        let caches: Vec<Array> = [layer.head_dim, layer.value_dim][..sides(&layer)]
            .iter()
            .flat_map(|&width| stored(&random.array(&[layer.kv_heads, capacity, width]), &layer, is_half))
            .collect();
        let (out, all) = reference(&qkv, &caches, &vectors, &layer);
        mlx_rs::transforms::eval(all.iter().chain([&out]).chain(&caches)).unwrap();
        forced::each(|isa| {
            // Each level starts with caches of its own, filled up to the new tokens.
            let caches = copies(&caches, layer.held);
            let ours = attention(&qkv, &caches, Some(&vectors), &layer).unwrap();
            let what = format!("{isa:?}, {round}: {tokens} tokens, half {is_half}, {layer:?}");
            // Angles of some hundred radians carry an error of 1e-5, which scores multiply, and which may
            // be what makes a packed number or a half float another.
            let [tolerance, of_entries] = match layer.packing {
                Some(_) => [3e-2, 5e-2],
                None if is_half => [2e-3, 1e-3],
                None => [2e-4, 1e-4],
            };
            assert_close(&ours.output, &out, tolerance, &what);
            // Queries alone find the same once the entries are there.
            let alone = qkv.index((.., ..(layer.heads * layer.head_dim) as i32)).contiguous().unwrap();
            let looking = Attention { appends: false, ..layer };
            let again = attention(&alone, &ours.caches, Some(&vectors), &looking).unwrap();
            assert_close(&again.output, &out, tolerance, &what);
            let filled = (layer.held + tokens) as i32;
            let filled: Vec<Array> = arrays(&ours.caches).iter().map(|part| head(part, filled)).collect();
            let parts = filled.len() / sides(&layer);
            for (ours, all) in filled.chunks(parts).zip(all.chunks(parts)) {
                assert_close(&read(ours, &layer), &read(all, &layer), of_entries, &what);
            }
        });
    }
}

#[test]
fn sequences_together_are_as_each_alone() {
    let mut random = Random(23);
    for round in 0..60 {
        let plain = Attention { weighs_queries: false, has_sinks: false, ..some_layer(&mut random) };
        let layer = Attention { appends: true, ..plain };
        let parts = sides(&layer) * if layer.packing.is_some() { 3 } else { 1 };
        let count = 1 + random.below(9);
        let frequencies = random.array(&[layer.rotary_dims / 2]);
        let vectors = (layer.rotary_dims > 0).then_some(&frequencies);
        let own = if layer.values_in_keys { 0 } else { layer.kv_heads * layer.value_dim };
        let width = (layer.heads + layer.kv_heads) * layer.head_dim + own;
        let is_half = layer.packing.is_none() && random.below(2) == 0;
        let mut sequences = Vec::new();
        for _ in 0..count {
            let (tokens, held) = (random.pick(&[1, 1, 1, 2, 30]), random.pick(&[0, 1, 40, 300]));
            let capacity = held + tokens + random.below(9);
            let caches: Vec<Array> = [layer.head_dim, layer.value_dim][..sides(&layer)]
                .iter()
                .flat_map(|&width| stored(&random.array(&[layer.kv_heads, capacity, width]), &layer, is_half))
                .collect();
            mlx_rs::transforms::eval(&caches).unwrap();
            sequences.push((random.array(&[tokens, width]), held + random.below(50), held, caches));
        }
        let rows: Vec<&Array> = sequences.iter().map(|(qkv, ..)| qkv).collect();
        let rows = ops::concatenate(&rows, 0).unwrap();
        forced::each(|isa| {
            let copied: Vec<Vec<Tensor>> =
                sequences.iter().map(|(.., held, caches)| copies(caches, *held)).collect();
            let places: Vec<Place> = sequences
                .iter()
                .zip(&copied)
                .map(|((qkv, offset, held, _), caches)| Place {
                    tokens: qkv.dim(0) as usize,
                    offset: *offset,
                    held: *held,
                    caches,
                })
                .collect();
            let together = attention_together(&rows, &places, vectors, &layer).unwrap();
            let made = arrays(&together.caches);
            assert_eq!(made.len(), count * parts);
            let (mut start, mut made) = (0, made.iter());
            for (qkv, offset, held, caches) in &sequences {
                let what = format!("{isa:?}, {round}: {count} sequences, {layer:?}");
                let alone = Attention { offset: *offset, held: *held, ..layer };
                let alone = attention(qkv, &copies(caches, *held), vectors, &alone).unwrap();
                let end = start + qkv.dim(0);
                assert_close(&together.output.index((start..end, ..)), &alone.output, 1e-4, &what);
                let filled = *held as i32 + qkv.dim(0);
                for (own, alone) in made.by_ref().take(parts).zip(&arrays(&alone.caches)) {
                    let same = head(own, filled).eq(head(alone, filled)).unwrap();
                    assert!(same.all(None).unwrap().item_exact::<bool>(), "{what}");
                }
                start = end;
            }
        });
    }
}

/// Half floats are the numbers rounded once: attention over them is that over the same numbers in float32.
#[test]
fn a_cache_of_half_floats_is_one_of_rounded_numbers() {
    let mut random = Random(31);
    for round in 0..60 {
        let layer = Attention { packing: None, has_sinks: false, ..some_layer(&mut random) };
        let layer = Attention { weighs_queries: false, rotary_dims: 0, appends: false, ..layer };
        let tokens = random.pick(&[1, 1, 2, 9, 40]);
        let capacity = layer.held + tokens;
        let queries = random.array(&[tokens, layer.heads * layer.head_dim]);
        let rounded: Vec<Array> = [layer.head_dim, layer.value_dim][..sides(&layer)]
            .iter()
            .flat_map(|&width| stored(&random.array(&[layer.kv_heads, capacity, width]), &layer, true))
            .collect();
        let wide: Vec<Array> = rounded.iter().map(|half| half.as_dtype(Dtype::Float32).unwrap()).collect();
        mlx_rs::transforms::eval(rounded.iter().chain(&wide)).unwrap();
        forced::each(|isa| {
            let halves = attention(&queries, &copies(&rounded, capacity), None, &layer).unwrap();
            let floats = attention(&queries, &copies(&wide, capacity), None, &layer).unwrap();
            let same = halves.output.eq(&floats.output).unwrap().all(None).unwrap();
            assert!(same.item_exact::<bool>(), "{isa:?}, {round}: {tokens} tokens, {layer:?}");
        });
    }
}

#[test]
fn rows_are_packed_as_mlx_packs_them() {
    let mut random = Random(29);
    for (bits, group) in [(4, 32), (8, 32), (4, 64), (8, 64), (4, 128), (8, 128)] {
        let (tokens, width) = (40, 128);
        let layer = Attention { head_dim: width, value_dim: width, packing: Some((bits, group)), ..PLAIN };
        let mut qkv = random.array(&[tokens, 3 * width]);
        // Groups of one number, of zeros, and without zero between their extremes.
        for (row, shift) in [(0, 0.0), (1, 0.0), (2, 5.0), (3, -5.0)] {
            let factor = if row < 2 { 0.0 } else { 1.0 };
            let changed = ops::multiply(qkv.index(row), Array::from_f32(factor)).unwrap();
            let fill = if row == 1 { 0.3 } else { shift };
            qkv.try_index_mut(row, &ops::add(changed, Array::from_f32(fill)).unwrap()).unwrap();
        }
        let caches: Vec<Array> = (0..2)
            .flat_map(|_| {
                stored(&ops::zeros::<f32>(&[1, tokens as i32, width as i32]).unwrap(), &layer, false)
            })
            .collect();
        let from = 2 * width as i32;
        let expected = stored(&qkv.index((.., from..)).expand_dims(0).unwrap(), &layer, false);
        mlx_rs::transforms::eval(caches.iter().chain(&expected)).unwrap();
        let ours = attention(&qkv, &copies(&caches, layer.held), None, &layer).unwrap();
        mlx_rs::transforms::eval([&ours.output]).unwrap();
        let made = arrays(&ours.caches);
        let numbers = |array: &Array| array.as_slice::<u32>().to_vec();
        assert_eq!(numbers(&made[3]), numbers(&expected[0]), "{bits} bits, groups of {group}");
        assert_close(&made[4], &expected[1], 0.0, "scales");
        assert_close(&made[5], &expected[2], 0.0, "biases");
    }
}

pub(super) const PLAIN: Attention = Attention {
    heads: 1,
    kv_heads: 1,
    head_dim: 8,
    value_dim: 8,
    appends: true,
    values_in_keys: false,
    rotary_dims: 0,
    traditional: false,
    rope_scale: 1.0,
    scale: 1.0,
    soft_cap: None,
    growth: None,
    weighs_queries: false,
    has_sinks: false,
    offset: 0,
    held: 0,
    window: None,
    keep: 0,
    packing: None,
};

#[test]
fn impossible_attention_is_an_error() {
    let layer = Attention { heads: 4, kv_heads: 2, rotary_dims: 8, offset: 3, held: 3, ..PLAIN };
    let mut random = Random(1);
    let qkv = random.array(&[2, 64]);
    let cache = Tensor::from(random.array(&[2, 5, 8]));
    let caches = [cache.clone(), cache.clone()];
    let frequencies = random.array(&[4]);
    assert!(attention(&qkv, &caches, Some(&frequencies), &layer).is_ok());
    let broken = [
        Attention { held: 4, ..layer },
        Attention { held: usize::MAX, ..layer },
        Attention { heads: 3, ..layer },
        Attention { kv_heads: 0, ..layer },
        Attention { head_dim: 7, ..layer },
        Attention { value_dim: 0, ..layer },
        Attention { value_dim: 16, ..layer },
        Attention { values_in_keys: true, ..layer },
        Attention { rotary_dims: 10, ..layer },
        Attention { rotary_dims: 4, ..layer },
        Attention { window: Some(0), ..layer },
        Attention { soft_cap: Some(0.0), ..layer },
        Attention { packing: Some((4, 8)), ..layer },
        Attention { packing: Some((5, 3)), ..layer },
        Attention { heads: usize::MAX / 2 * 2, ..layer },
        Attention { weighs_queries: true, ..layer },
        Attention { has_sinks: true, ..layer },
    ];
    for layer in broken {
        assert!(attention(&qkv, &caches, Some(&frequencies), &layer).is_err(), "{layer:?}");
    }
    assert!(attention(&qkv, &caches, None, &layer).is_err(), "a rotation without frequencies");
    assert!(attention(&qkv, &caches, None, &Attention { rotary_dims: 0, ..layer }).is_ok());
    let half = Tensor::from(cache.array().unwrap().as_dtype(Dtype::Float16).unwrap());
    assert!(attention(&qkv, &[half.clone(), half.clone()], Some(&frequencies), &layer).is_ok());
    assert!(attention(&qkv, &[half, cache.clone()], Some(&frequencies), &layer).is_err());
    let narrow = Tensor::from(cache.array().unwrap().as_dtype(Dtype::Bfloat16).unwrap());
    assert!(attention(&qkv, &[narrow.clone(), narrow], Some(&frequencies), &layer).is_err());
    let short = Tensor::from(random.array(&[2, 5, 6]).as_dtype(Dtype::Float16).unwrap());
    assert!(attention(&qkv, &[short.clone(), short], Some(&frequencies), &layer).is_err());
    let uneven = [cache.clone(), Tensor::from(random.array(&[2, 6, 8]))];
    assert!(attention(&qkv, &uneven, Some(&frequencies), &layer).is_err());
    assert!(attention(&qkv, &caches[..1], Some(&frequencies), &layer).is_err());
    let three = [cache.clone(), cache.clone(), cache];
    assert!(attention(&qkv, &three, Some(&frequencies), &layer).is_err());
}
