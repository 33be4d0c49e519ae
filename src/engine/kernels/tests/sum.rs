use mlx_rs::{Array, ops};

use super::{Random, assert_close};
use crate::engine::kernels::isa::forced;
use crate::engine::kernels::{Other, sum_onto};

#[test]
fn sums_equal_mlx_with_and_without_their_parts() {
    let mut random = Random(61);
    for round in 0..40 {
        let (tokens, columns) = (random.pick(&[1, 2, 9, 20]), random.pick(&[1, 15, 16, 33, 576]));
        let [x, values, residual] = std::array::from_fn(|_| random.array(&[tokens, columns]));
        let gate = random.array(&[tokens, 1]);
        let (other, gated, onto) = (random.below(3) > 0, random.below(2) > 0, random.below(2) > 0);
        let mut expected = x.clone();
        if other {
            let weight = if gated { ops::sigmoid(&gate).unwrap() } else { Array::from_f32(1.0) };
            expected = ops::add(&expected, ops::multiply(&weight, &values).unwrap()).unwrap();
        }
        if onto {
            let scaled = ops::multiply(&expected, Array::from_f32(0.3)).unwrap();
            expected = ops::add(&residual, scaled).unwrap();
        }
        forced::each(|isa| {
            let other = other.then_some(Other { values: &values, gate: gated.then_some(&gate) });
            let sum: Array = sum_onto(&x, other.as_ref(), onto.then_some((&residual, 0.3))).unwrap();
            assert_close(&sum, &expected, 1e-6, &format!("{isa:?}, {round}: {tokens} x {columns}"));
        });
    }
}

#[test]
fn parts_of_other_shapes_are_no_sum() {
    let mut random = Random(67);
    let [x, narrow, row] = [[3, 8], [3, 7], [1, 8]].map(|shape| random.array(&shape));
    for (values, gate, residual) in [(&narrow, None, &x), (&x, Some(&row), &x), (&x, None, &row)] {
        assert!(sum_onto(&x, Some(&Other { values, gate }), Some((residual, 1.0))).is_err());
    }
}
