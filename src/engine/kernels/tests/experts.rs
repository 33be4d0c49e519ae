use mlx_rs::ops::indexing::IndexOp;
use mlx_rs::{Array, ops};

use super::{ACTIVATIONS, Random, affine, assert_close, dense};
use crate::engine::config::style::Activation;
use crate::engine::format::weight::WeightData;
use crate::engine::kernels::isa::forced;
use crate::engine::kernels::{PackedMatrix, Routing, experts};
use crate::engine::layers::projection::activate;

/// The same for one token, expert by expert, by MLX's operations.
fn reference(x: &Array, scores: &[f32], matrices: &[Array; 3], routing: &Routing) -> Array {
    let mut order: Vec<usize> = (0..routing.count).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let chosen = &order[..routing.used];
    let among = if routing.normalized { chosen } else { &order[..] };
    let total: f32 = among.iter().map(|&expert| scores[expert].exp()).sum();
    let rows = |matrix: &Array, expert: usize| {
        let each = matrix.dim(0) / routing.count as i32;
        let first = expert as i32 * each;
        matrix.index((first..first + each, ..)).swap_axes(0, 1).unwrap()
    };
    let [gate, up, down] = matrices;
    let mut sum = ops::multiply(x, Array::from_f32(0.0)).unwrap();
    for &expert in chosen {
        let gates = activate(&ops::matmul(x, rows(gate, expert)).unwrap(), routing.activation).unwrap();
        let inner = ops::multiply(&gates, ops::matmul(x, rows(up, expert)).unwrap()).unwrap();
        let out = ops::matmul(&inner, rows(down, expert)).unwrap();
        let weight = Array::from_f32(scores[expert].exp() / total);
        sum = ops::add(&sum, ops::multiply(&out, &weight).unwrap()).unwrap();
    }
    sum
}

#[test]
fn experts_equal_mlx_over_random_shapes() {
    let mut random = Random(31);
    for round in 0..12 {
        let routing = Routing {
            count: random.pick(&[1, 2, 5]),
            used: 1 + random.below(2),
            normalized: round % 2 == 0,
            activation: random.pick(&ACTIVATIONS),
        };
        let routing = Routing { used: routing.used.min(routing.count), ..routing };
        let (hidden, inner) = (random.pick(&[32, 64]), random.pick(&[32, 96]));
        let tokens = random.pick(&[1, 2, 9, 40]);
        let mut matrix = |rows: usize, columns: usize| -> (WeightData, Array) {
            if random.below(2) == 0 {
                return dense(&mut random, routing.count * rows, columns);
            }
            let bits = random.pick(&[4, 8]);
            affine(&mut random, routing.count * rows, columns, 32, bits)
        };
        let parts = [matrix(inner, hidden), matrix(inner, hidden), matrix(hidden, inner)];
        let packed = parts.each_ref().map(|(data, _)| PackedMatrix::pack(data).unwrap());
        let arrays = parts.map(|(_, array)| array);
        let x = random.array(&[tokens, hidden]);
        let scores = random.array(&[tokens, routing.count]);
        let by_token = scores.as_slice::<f32>().chunks(routing.count).enumerate().map(|(token, scores)| {
            let token = token as i32;
            reference(&x.index((token..token + 1, ..)), scores, &arrays, &routing)
        });
        let expected = ops::concatenate(&by_token.collect::<Vec<_>>(), 0).unwrap();
        expected.eval().unwrap();
        forced::each(|isa| {
            let [gate, up, down] = &packed;
            let ours = experts(&x, &scores, [gate, up, down], &routing).unwrap();
            let what = format!("{isa:?}, {round}: {tokens} tokens, {hidden} and {inner}, {routing:?}");
            assert_close(&ours, &expected, 2e-5, &what);
        });
    }
}

#[test]
fn experts_that_do_not_fit_are_errors() {
    let mut random = Random(37);
    let mut pack =
        |rows: usize, columns: usize| PackedMatrix::pack(&dense(&mut random, rows, columns).0).unwrap();
    let (gate, down, odd) = (pack(64, 16), pack(32, 32), pack(48, 16));
    let routing = Routing { count: 2, used: 1, normalized: true, activation: Activation::Silu };
    let mut random = Random(41);
    let (x, scores) = (random.array(&[3, 16]), random.array(&[3, 2]));
    assert!(experts(&x, &scores, [&gate, &gate, &down], &routing).is_ok());
    assert!(experts(&x, &scores, [&gate, &odd, &down], &routing).is_err());
    assert!(experts(&x, &scores, [&gate, &gate, &odd], &routing).is_err());
    for used in [0, 3] {
        assert!(experts(&x, &scores, [&gate, &gate, &down], &Routing { used, ..routing }).is_err());
    }
    assert!(experts(&x, &random.array(&[3, 3]), [&gate, &gate, &down], &routing).is_err());
    assert!(experts(&random.array(&[3, 17]), &scores, [&gate, &gate, &down], &routing).is_err());
}
