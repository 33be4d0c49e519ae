use mlx_rs::error::Exception;
use mlx_rs::ops::indexing::IndexOp;
use mlx_rs::{Array, ops};

use super::{Random, affine, assert_close, dense};
use crate::engine::config::style::{Activation, Gating, Routing, Scoring};
use crate::engine::format::weight::WeightData;
use crate::engine::kernels::isa::forced;
use crate::engine::kernels::{ExpertVectors, Experts, PackedMatrix, experts};
use crate::engine::layers::projection::activate;

/// The same for one token, expert by expert, by MLX's operations.
fn reference(
    x: &Array,
    scores: &[f32],
    correction: Option<&[f32]>,
    matrices: &[Array; 3],
    biases: Option<&[Array; 3]>,
    kind: &Experts,
) -> Array {
    let Routing { count, used, normalized, scale, scoring, .. } = kind.routing;
    let all: f32 = scores.iter().map(|score| score.exp()).sum();
    let weights: Vec<f32> = scores
        .iter()
        .map(|score| match scoring {
            Scoring::Softmax => score.exp() / all,
            Scoring::Sigmoid => 1.0 / (1.0 + (-score).exp()),
        })
        .collect();
    let rank = |expert: usize| weights[expert] + correction.map_or(0.0, |correction| correction[expert]);
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by(|&a, &b| rank(b).total_cmp(&rank(a)));
    let chosen = &order[..used];
    let total: f32 = if normalized { chosen.iter().map(|&expert| weights[expert]).sum() } else { 1.0 };
    let product = |x: &Array, index: usize, expert: usize| {
        let matrix = &matrices[index];
        let each = matrix.dim(0) / count as i32;
        let first = expert as i32 * each;
        let rows = matrix.index((first..first + each, ..)).swap_axes(0, 1).unwrap();
        let product = ops::matmul(x, rows).unwrap();
        match biases {
            Some(biases) => ops::add(&product, biases[index].index((expert as i32, ..))).unwrap(),
            None => product,
        }
    };
    let number = Array::from_f32;
    let mut sum = ops::multiply(x, number(0.0)).unwrap();
    for &expert in chosen {
        let (gate, up) = (product(x, 0, expert), product(x, 1, expert));
        let inner = match kind.gating {
            Gating::Plain(activation) => ops::multiply(activate(&gate, activation).unwrap(), &up).unwrap(),
            Gating::Alone(activation) => activate(&up, activation).unwrap(),
            Gating::Clamped { alpha, limit } => {
                let gate = ops::minimum(&gate, number(limit)).unwrap();
                let up = ops::maximum(ops::minimum(&up, number(limit)).unwrap(), number(-limit)).unwrap();
                let open = ops::sigmoid(ops::multiply(&gate, number(alpha)).unwrap()).unwrap();
                let gate = ops::multiply(&gate, &open).unwrap();
                ops::multiply(&gate, ops::add(&up, number(1.0)).unwrap()).unwrap()
            }
        };
        let weight = Array::from_f32(weights[expert] / total * scale);
        sum = ops::add(&sum, ops::multiply(product(&inner, 2, expert), &weight).unwrap()).unwrap();
    }
    sum
}

#[test]
fn experts_equal_mlx_over_random_shapes() {
    let mut random = Random(31);
    for round in 0..24 {
        let routing = Routing {
            normalized: round % 2 == 0,
            scoring: random.pick(&[Scoring::Softmax, Scoring::Sigmoid]),
            scale: random.pick(&[1.0, 1.7]),
            corrected: random.below(3) == 0,
            ..Routing::softmax(random.pick(&[1, 2, 5]), 1)
        };
        let routing = Routing { used: (1 + random.below(2)).min(routing.count), ..routing };
        let clamped = Gating::Clamped { alpha: 1.7, limit: 0.8 };
        let plain = [Activation::Silu, Activation::GeluTanh].map(Gating::Plain);
        // Dense sizes need not be multiples of the kernels' blocks.
        let is_odd = round % 3 == 2;
        let (hidden, inner) = if is_odd {
            (random.pick(&[6, 24, 50]), random.pick(&[4, 20, 33]))
        } else {
            (random.pick(&[32, 64]), random.pick(&[32, 96]))
        };
        let gating = random.pick(&[plain[0], plain[1], clamped, Gating::Alone(Activation::ReluSquared)]);
        let kind = Experts { routing, gating, intermediate_size: inner };
        // Enough for one expert to get more than its products take row by row.
        let tokens = random.pick(&[1, 2, 9, 40]);
        let mut matrix = |rows: usize, columns: usize| -> (WeightData, Array) {
            if is_odd || random.below(2) == 0 {
                return dense(&mut random, routing.count * rows, columns);
            }
            let bits = random.pick(&[4, 8]);
            affine(&mut random, routing.count * rows, columns, 32, bits)
        };
        let parts = [matrix(inner, hidden), matrix(inner, hidden), matrix(hidden, inner)];
        let packed = parts.each_ref().map(|(data, _)| PackedMatrix::pack_parts(data, routing.count).unwrap());
        let arrays = parts.map(|(_, array)| array);
        let biases = [inner, inner, hidden].map(|rows| random.array(&[routing.count, rows]));
        let biases = (round % 4 < 2).then_some(&biases);
        let flat = biases.map(|biases| {
            let flat = biases.each_ref().map(|bias| bias.reshape(&[-1]).unwrap());
            ops::concatenate(&flat, 0).unwrap()
        });
        let x = random.array(&[tokens, hidden]);
        let scores = random.array(&[tokens, routing.count]);
        let correction = random.array(&[routing.count]);
        let correction = routing.corrected.then_some(&correction);
        let by_token = scores.as_slice::<f32>().chunks(routing.count).enumerate().map(|(token, scores)| {
            let (token, correction) = (token as i32, correction.map(Array::as_slice::<f32>));
            reference(&x.index((token..token + 1, ..)), scores, correction, &arrays, biases, &kind)
        });
        let expected = ops::concatenate(&by_token.collect::<Vec<_>>(), 0).unwrap();
        expected.eval().unwrap();
        forced::each(|isa| {
            let vectors = ExpertVectors { correction, factors: None, biases: flat.as_ref() };
            let ours = experts(&x, &scores, packed.each_ref(), &vectors, &kind).unwrap();
            let what = format!("{isa:?}, {round}: {tokens} tokens, {hidden} and {inner}, {kind:?}");
            assert_close(&ours, &expected, 2e-5, &what);
            let halves = ops::full::<f32>(&[routing.count as i32], Array::from_f32(0.5)).unwrap();
            let vectors = ExpertVectors { factors: Some(&halves), ..vectors };
            let halved = experts(&x, &scores, packed.each_ref(), &vectors, &kind).unwrap();
            assert_close(&ops::add(&halved, &halved).unwrap(), &expected, 2e-5, &what);
        });
    }
}

fn run(x: &Array, scores: &Array, matrices: [&PackedMatrix; 3], kind: &Experts) -> Result<Array, Exception> {
    experts(x, scores, matrices, &ExpertVectors::default(), kind)
}

#[test]
fn experts_that_do_not_fit_are_errors() {
    let mut random = Random(37);
    let mut pack = |rows: usize, columns: usize| {
        PackedMatrix::pack_parts(&dense(&mut random, rows, columns).0, 2).unwrap()
    };
    let (gate, down, odd) = (pack(64, 16), pack(32, 32), pack(80, 16));
    let kind = Experts {
        routing: Routing::softmax(2, 1),
        gating: Gating::Plain(Activation::Silu),
        intermediate_size: 32,
    };
    let mut random = Random(41);
    let (x, scores, bias) = (random.array(&[3, 16]), random.array(&[3, 2]), random.array(&[2 * 80 + 1]));
    assert!(run(&x, &scores, [&gate, &gate, &down], &kind).is_ok());
    assert!(run(&x, &scores, [&gate, &odd, &down], &kind).is_err());
    assert!(run(&x, &scores, [&gate, &gate, &odd], &kind).is_err());
    for used in [0, 3] {
        let routing = Routing { used, ..kind.routing };
        assert!(run(&x, &scores, [&gate, &gate, &down], &Experts { routing, ..kind }).is_err());
    }
    let corrected = Routing { corrected: true, ..kind.routing };
    assert!(run(&x, &scores, [&gate, &gate, &down], &Experts { routing: corrected, ..kind }).is_err());
    assert!(run(&x, &random.array(&[3, 3]), [&gate, &gate, &down], &kind).is_err());
    assert!(run(&random.array(&[3, 17]), &scores, [&gate, &gate, &down], &kind).is_err());
    let wrong = |vectors| experts(&x, &scores, [&gate, &gate, &down], &vectors, &kind).is_err();
    assert!(wrong(ExpertVectors { biases: Some(&bias), ..ExpertVectors::default() }));
    assert!(wrong(ExpertVectors { factors: Some(&bias), ..ExpertVectors::default() }));
    assert!(PackedMatrix::pack_parts(&dense(&mut random, 9, 4).0, 2).is_err());
}
