use mlx_rs::ops::indexing::IndexOp;

use super::*;
use crate::engine::layers::Backend;

/// One layer of keys with 32 elements and values of 32, and one state of two numbers.
fn cache(window: Option<usize>, options: &CacheOptions) -> KvCache {
    let tokens = TokenShape { heads: 1, key_dim: 32, values: Values::Own(32), window };
    let state = StateShape { name: "state", shape: vec![2] };
    let layers = vec![LayerShape::Tokens(tokens), LayerShape::Nothing, LayerShape::State(vec![state])];
    let shape = CacheShape { layers, dtype: Dtype::Float32, backend: Backend::Stock };
    KvCache::with_options(&shape, options).unwrap()
}

/// One layer with attention only.
fn plain(window: Option<usize>, options: &CacheOptions) -> KvCache {
    let tokens = TokenShape { heads: 1, key_dim: 32, values: Values::Own(32), window };
    let layers = vec![LayerShape::Tokens(tokens)];
    KvCache::with_options(&CacheShape { layers, dtype: Dtype::Float32, backend: Backend::Stock }, options)
        .unwrap()
}

const SMALL: CacheOptions = CacheOptions {
    half: false,
    quantization: None,
    quantized_from: 0,
    most_tokens: None,
    keep: 0,
    step: 4,
    rollback: 2,
};

/// Steps of one token, whose key and value are its position.
fn feed(cache: &mut KvCache, tokens: usize) {
    for _ in 0..tokens {
        cache.reserve(1).unwrap();
        let position = cache.offset() as f32;
        let row = ops::full::<f32>(&[1, 1, 32], Array::from_f32(position)).unwrap();
        let layer = cache.tokens(0).unwrap();
        let parts = crate::engine::layers::append(layer, &row, Some(&row)).unwrap();
        cache.set_tokens(0, parts.into_iter().map(Into::into).collect());
        if let Ok([state]) = cache.state(2) {
            let state = ops::add(state, Array::from_f32(position)).unwrap();
            cache.set_state(2, vec![state]);
        }
        cache.advance(1);
    }
}

/// The positions whose keys are held.
fn held(cache: &KvCache) -> Vec<f32> {
    let layer = cache.tokens(0).unwrap();
    let keys = match layer.quantization() {
        Some(packed) => {
            let [numbers, scales, biases, ..] = &layer.arrays().unwrap()[..] else { panic!("packed parts") };
            ops::dequantize(numbers, scales, biases, packed.group() as i32, packed.bits() as i32).unwrap()
        }
        None => layer.arrays().unwrap().swap_remove(0).as_dtype(Dtype::Float32).unwrap(),
    };
    (0..layer.held()).map(|entry| keys.index((0, entry as i32, 0)).item_exact::<f32>()).collect()
}

fn positions(range: std::ops::Range<usize>) -> Vec<f32> {
    range.map(|position| position as f32).collect()
}

#[test]
fn a_growing_cache_holds_everything_and_goes_back_anywhere() {
    let mut cache = plain(None, &SMALL);
    feed(&mut cache, 9);
    assert_eq!((cache.offset(), held(&cache)), (9, positions(0..9)));
    assert_eq!(cache.bytes().unwrap(), 2 * 12 * 32 * 4);
    cache.truncate(3).unwrap();
    feed(&mut cache, 2);
    assert_eq!((cache.offset(), held(&cache)), (5, positions(0..5)));
    cache.expect(20).unwrap();
    assert_eq!((held(&cache), cache.bytes().unwrap()), (positions(0..5), 2 * 28 * 32 * 4));
    cache.truncate(99).unwrap();
    assert_eq!(cache.offset(), 5);
}

#[test]
fn a_window_stays_as_large_as_it_is() {
    let mut cache = plain(Some(5), &SMALL);
    feed(&mut cache, 30);
    let sizes: Vec<u64> = (0..40)
        .map(|_| {
            feed(&mut cache, 1);
            let held = held(&cache);
            let first = held[0] as usize;
            assert_eq!(held, positions(first..cache.offset()));
            // What the next token sees, and what can be taken back.
            assert!(first + 4 + 2 <= cache.offset());
            cache.bytes().unwrap()
        })
        .collect();
    assert!(sizes.iter().all(|&bytes| bytes == sizes[0]) && sizes[0] <= 2 * 12 * 32 * 4, "{sizes:?}");
    let now = cache.offset();
    cache.truncate(now - 2).unwrap();
    assert_eq!(cache.truncate(now / 2), Err(Refusal::Dropped { layer: 0 }));
    assert_eq!(cache.offset(), now - 2, "a refusal changes nothing");
    cache.truncate(0).unwrap();
    feed(&mut cache, 3);
    assert_eq!(held(&cache), positions(0..3));
}

#[test]
fn the_first_tokens_stay_where_they_are_kept() {
    let options = CacheOptions { most_tokens: Some(8), keep: 3, ..SMALL };
    let mut cache = plain(None, &options);
    feed(&mut cache, 50);
    let held = held(&cache);
    let (kept, rest) = held.split_at(3);
    assert_eq!(kept, positions(0..3));
    assert_eq!(rest, positions(rest[0] as usize..50));
    let layer = cache.tokens(0).unwrap();
    assert_eq!((layer.window(), layer.keep()), (Some(5), 3));
    assert!(rest.len() >= 4 && cache.bytes().unwrap() <= 2 * 16 * 32 * 4);
    // A prompt of several steps does not make it larger.
    cache.expect(1000).unwrap();
    assert!(cache.bytes().unwrap() <= 2 * 16 * 32 * 4);
}

#[test]
fn a_cache_is_packed_from_where_it_is_to_be() {
    let quantization = KvQuantization::new(8, 32).unwrap();
    let options = CacheOptions { quantization: Some(quantization), quantized_from: 6, ..SMALL };
    let mut cache = plain(Some(5), &options);
    feed(&mut cache, 6);
    assert_eq!(cache.tokens(0).unwrap().quantization(), None);
    feed(&mut cache, 1);
    assert_eq!(cache.tokens(0).unwrap().quantization(), Some(quantization));
    assert_eq!(held(&cache), positions(0..7));
    feed(&mut cache, 20);
    let found = held(&cache);
    assert_eq!(found, positions(found[0] as usize..27));
    let entries = cache.tokens(0).unwrap().arrays().unwrap()[0].dim(1) as u64;
    assert_eq!(cache.bytes().unwrap(), 2 * entries * (32 + 2 * 4));
    // A new sequence begins as it is to begin.
    cache.clear();
    feed(&mut cache, 1);
    assert_eq!(cache.tokens(0).unwrap().quantization(), None);
}

#[test]
fn half_floats_take_half_of_the_room_and_are_never_infinite() {
    let half = CacheOptions { half: true, ..SMALL };
    for (window, tokens) in [(None, 23), (Some(5), 60)] {
        let (mut cache, mut whole) = (plain(window, &half), plain(window, &SMALL));
        feed(&mut cache, tokens);
        feed(&mut whole, tokens);
        assert_eq!(held(&cache), held(&whole));
        assert_eq!(2 * cache.bytes().unwrap(), whole.bytes().unwrap());
        cache.truncate(tokens - 2).unwrap();
        feed(&mut cache, 3);
        let held = held(&cache);
        assert_eq!(held[held.len() - 3..], positions(tokens - 2..tokens + 1));
    }
    // What is computed in half floats, or nearly, stays as it is.
    let shape = |dtype| {
        let layers = vec![LayerShape::Tokens(TokenShape {
            heads: 1,
            key_dim: 32,
            values: Values::Own(32),
            window: None,
        })];
        CacheShape { layers, dtype, backend: Backend::Stock }
    };
    for (computed, stored) in [
        (Dtype::Float32, Dtype::Float16),
        (Dtype::Bfloat16, Dtype::Bfloat16),
        (Dtype::Float16, Dtype::Float16),
    ] {
        let mut cache = KvCache::with_options(&shape(computed), &half).unwrap();
        cache.reserve(1).unwrap();
        assert_eq!(cache.tokens(0).unwrap().arrays().unwrap()[1].dtype(), stored);
    }
    let mut cache = KvCache::with_options(&shape(Dtype::Float32), &half).unwrap();
    cache.reserve(1).unwrap();
    let mut row = vec![1e6_f32, -1e6, f32::INFINITY, 65519.0, 2049.0, 2051.0];
    row.resize(32, 0.5);
    let row = Array::from_slice(&row, &[1, 1, 32]);
    let parts = crate::engine::layers::append(cache.tokens(0).unwrap(), &row, Some(&row)).unwrap();
    let keys = parts[0].index((0, 0, ..7)).as_dtype(Dtype::Float32).unwrap();
    assert_eq!(keys.as_slice::<f32>(), [65504.0, -65504.0, 65504.0, 65504.0, 2048.0, 2052.0, 0.5]);
}

#[test]
fn half_floats_are_packed_from_where_they_are_to_be() {
    let quantization = KvQuantization::new(8, 32).unwrap();
    let options = CacheOptions { half: true, quantization: Some(quantization), quantized_from: 6, ..SMALL };
    let mut cache = plain(None, &options);
    feed(&mut cache, 6);
    assert_eq!(cache.bytes().unwrap(), 2 * 8 * 32 * 2);
    feed(&mut cache, 1);
    assert_eq!(held(&cache), positions(0..7));
    // Scales and biases stay in float32, which kernels unpack with.
    assert_eq!(cache.tokens(0).unwrap().arrays().unwrap()[1].dtype(), Dtype::Float32);
}

#[test]
fn a_state_goes_back_only_to_a_mark_or_the_beginning() {
    let mut cache = cache(None, &SMALL);
    feed(&mut cache, 4);
    let mark = cache.mark();
    feed(&mut cache, 3);
    assert_eq!(cache.truncate(4), Err(Refusal::Recurrent { layer: 2 }));
    assert_eq!(cache.offset(), 7);
    cache.rewind(&mark).unwrap();
    assert_eq!((cache.offset(), held(&cache)), (4, positions(0..4)));
    assert_eq!(cache.state(2).unwrap()[0].as_slice::<f32>(), [6.0; 2], "0 + 1 + 2 + 3");
    cache.truncate(0).unwrap();
    feed(&mut cache, 2);
    assert_eq!(cache.state(2).unwrap()[0].as_slice::<f32>(), [1.0; 2]);
}

#[test]
fn contents_continue_where_they_were_saved() {
    let packed = CacheOptions { quantization: Some(KvQuantization::new(4, 32).unwrap()), ..SMALL };
    let half = CacheOptions { half: true, ..SMALL };
    for (window, options) in
        [(None, SMALL), (Some(5), SMALL), (Some(5), packed), (None, half), (Some(5), half)]
    {
        let mut first = cache(window, &options);
        feed(&mut first, 23);
        let contents = first.contents().unwrap();
        let names: Vec<&str> = contents.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!((names[0], *names.last().unwrap()), ("layers.0.keys", "layers.2.state"));
        let take =
            |name: &str| contents.iter().find(|(known, _)| known == name).map(|(_, array)| array.clone());
        let mut second = cache(window, &options);
        feed(&mut second, 2);
        second.restore(23, take).unwrap();
        assert_eq!((second.offset(), held(&second)), (23, held(&first)));
        feed(&mut first, 3);
        feed(&mut second, 3);
        let (first_state, second_state) = (first.state(2).unwrap(), second.state(2).unwrap());
        assert_eq!(first_state[0].as_slice::<f32>(), second_state[0].as_slice::<f32>());
        let (all, again) = (held(&first), held(&second));
        let common = all.len().min(again.len());
        assert_eq!(all[all.len() - common..], again[again.len() - common..]);
    }
}

#[test]
fn contents_that_do_not_fit_are_refused() {
    let mut saved = cache(None, &SMALL);
    feed(&mut saved, 6);
    let contents = saved.contents().unwrap();
    let take = |name: &str| contents.iter().find(|(known, _)| known == name).map(|(_, array)| array.clone());
    let mut fresh = cache(None, &SMALL);
    assert!(fresh.restore(6, take).is_ok());
    assert!(fresh.restore(7, take).is_err(), "more tokens than keys");
    assert_eq!(fresh.offset(), 0);
    assert!(fresh.restore(6, |name| take(name).filter(|_| name != "layers.2.state")).is_err());
    assert!(fresh.restore(6, |name| take(name).filter(|_| name != "layers.0.values")).is_err());
    let narrow = |name: &str| take(name).map(|array| array.index((.., .., ..16)));
    let error = fresh.restore(6, |name| if name == "layers.0.keys" { narrow(name) } else { take(name) });
    assert_eq!(error.unwrap_err().code(), Code::IntegrityFailed);
    assert!(fresh.restore(0, |_| None).is_ok());
    let mut half = cache(None, &CacheOptions { half: true, ..SMALL });
    assert!(half.restore(6, take).is_err(), "keys of another type");
}
