use mlx_rs::ops::indexing::argmax_axis;
use mlx_rs::{Array, ops};

use super::Random;
use crate::engine::kernels::isa::forced;
use crate::engine::kernels::{argmax, sample};
use crate::engine::request::SamplingOptions;
use crate::engine::sample::Sampler;

fn row(values: &[f32]) -> Array {
    Array::from_slice(values, &[1, values.len() as i32])
}

fn token(array: &Array) -> i32 {
    array.as_slice::<i32>()[0]
}

#[test]
fn argmax_equals_mlx_over_random_sizes() {
    let mut random = Random(23);
    for size in [1, 2, 15, 16, 17, 1023, 1024, 1025, 5000, 49152] {
        let logits = random.array(&[1, size]);
        let expected = argmax_axis(&logits, -1, false).unwrap().as_slice::<u32>()[0];
        forced::each(|isa| {
            assert_eq!(token(&argmax(&logits).unwrap()), expected.cast_signed(), "{isa:?} {size}");
        });
    }
}

#[test]
fn argmax_takes_the_first_of_equals_and_passes_over_nan() {
    let mut values = vec![0.0; 3000];
    values[2999] = 5.0;
    values[1234] = 5.0;
    values[7] = f32::NAN;
    values[1500] = f32::NAN;
    let nothing = [f32::NAN, f32::NEG_INFINITY];
    forced::each(|_| {
        assert_eq!(token(&argmax(&row(&values)).unwrap()), 1234);
        assert_eq!(token(&argmax(&row(&[f32::INFINITY, 1.0])).unwrap()), 0);
        for size in [1, 40, 2000] {
            let values: Vec<f32> = nothing.iter().copied().cycle().take(size).collect();
            assert_eq!(token(&argmax(&row(&values)).unwrap()), -1);
        }
    });
    assert!(argmax(&ops::zeros::<f32>(&[2, 8]).unwrap()).is_err());
}

#[test]
fn sampling_in_the_graph_chooses_as_the_sampler_does() {
    let mut random = Random(29);
    let options = SamplingOptions {
        temperature: 0.8,
        top_k: 40,
        top_p: 0.95,
        repetition_penalty: 1.3,
        repetition_window: 8,
        seed: 5,
        ..SamplingOptions::default()
    };
    let sampler = Sampler::new(options).unwrap();
    for step in 0..50 {
        let logits = ops::multiply(random.array(&[1, 300]), Array::from_f32(6.0)).unwrap();
        let recent: Vec<u32> = (0..random.below(20)).map(|_| random.below(300) as u32).collect();
        let last = random.below(300) as u32;
        let mut copy = logits.as_slice::<f32>().to_vec();
        let all: Vec<u32> = recent.iter().copied().chain([last]).collect();
        let expected = sampler.sample(&mut copy, &all, step).unwrap();
        // The pending token is the result of an operation that has not run yet.
        let pending = ops::add(Array::from_slice(&[last as i32 - 1], &[1]), Array::from_int(1)).unwrap();
        let chosen = sample(&logits, &recent, &pending, &options, step).unwrap();
        assert_eq!(token(&chosen), expected.cast_signed(), "step {step}");
    }
    let none = Array::from_slice::<i32>(&[], &[0]);
    assert_eq!(token(&sample(&row(&[f32::NAN; 4]), &[], &none, &options, 0).unwrap()), -1);
    let refused = SamplingOptions { top_p: 2.0, ..options };
    assert!(sample(&row(&[1.0]), &[], &none, &refused, 0).is_err());
    assert!(sample(&row(&[1.0]), &[], &row(&[1.0]), &options, 0).is_err());
}
