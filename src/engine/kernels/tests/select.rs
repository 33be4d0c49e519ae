use mlx_rs::ops::indexing::argmax_axis;
use mlx_rs::{Array, ops};

use super::Random;
use crate::engine::kernels::argmax;
use crate::engine::kernels::isa::forced;

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
