use mlx_rs::{Array, fast, ops};

use super::{ACTIVATIONS, Random, affine, assert_close, dense};
use crate::engine::config::style::Activation;
use crate::engine::format::weight::WeightData;
use crate::engine::kernels::isa::{Isa, forced};
use crate::engine::kernels::{
    Epilogue, HeadNorms, Norm, PackedMatrix, embed, norm_heads, norm_onto, project,
};
use crate::engine::layers::norm::{onto, scaled};
use crate::engine::layers::projection::activate;

fn weight(random: &mut Random, rows: usize, columns: usize) -> (WeightData, Array) {
    let groups: Vec<usize> =
        [16, 32, 64, 128].into_iter().filter(|group| columns.is_multiple_of(*group)).collect();
    let bits = random.pick(&[2, 3, 4, 5, 6, 8]);
    let known = groups.iter().any(|&group| group >= 32);
    if !known || random.below(4) == 0 {
        return dense(random, rows, columns);
    }
    let group = loop {
        let group = random.pick(&groups);
        // MLX, which makes the reference, knows no groups of 16.
        if group >= 32 {
            break group;
        }
    };
    affine(random, rows, columns, group, bits)
}

fn pack(weight: &WeightData) -> PackedMatrix {
    PackedMatrix::pack(weight).unwrap()
}

/// The results of each level, by their bits; of what is no number, only that.
fn results(x: &Array, packed: &PackedMatrix) -> Vec<(Isa, Vec<u32>)> {
    let mut all = Vec::new();
    forced::each(|isa| {
        let y: Array = project(x, None, &[packed], None, Epilogue::None).unwrap();
        let bits = |y: &f32| if y.is_nan() { f32::NAN.to_bits() } else { y.to_bits() };
        all.push((isa, y.as_slice::<f32>().iter().map(bits).collect()));
    });
    all
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[test]
fn subnormal_quants_change_no_bit_of_a_product() {
    let mut random = Random(91);
    let levels = Isa::available().filter(|isa| isa.subnormals()).count();
    assert!(levels > 0, "a processor without AVX2 or NEON");
    for round in 0..200 {
        let columns = random.pick(&[32, 64, 96, 576]);
        let bits = random.pick(&[2, 3, 4, 5, 6, 8]);
        let tokens = 1 + random.below(8);
        let rows = 1 + random.below(40);
        let packed = pack(&affine(&mut random, rows, columns, 32, bits).0);
        let mut x: Vec<f32> = (0..tokens * columns).map(|_| random.float()).collect();
        // From products that would be too small to be right, if they were not made larger, to those that are too large.
        let size = random.pick(&[1.0, 0.0, 1e-20, 1e-3, 40.0, 1e9, 1e29, 1e32, 1e38]);
        for x in &mut x {
            *x *= size;
        }
        let odd = random.pick(&[None, None, None, Some(f32::INFINITY), Some(f32::NAN), Some(3e5)]);
        if let Some(odd) = odd {
            let at = random.below(x.len());
            x[at] = odd;
        }
        let results = results(&Array::from_slice(&x, &[tokens as i32, columns as i32]), &packed);
        let pairs = results.windows(2).filter(|pair| pair[1].0.subnormals());
        let what = format!("{round}: {tokens} x {rows} x {columns}, {bits} bits, {size}, {odd:?}");
        assert_eq!(pairs.clone().count(), levels);
        for pair in pairs {
            assert!(pair[0].1 == pair[1].1, "{:?}, {what}", pair[1].0);
        }
    }
}

#[test]
fn projections_equal_mlx_over_random_shapes() {
    let mut random = Random(7);
    for round in 0..150 {
        let columns = random.pick(&[32, 64, 96, 128, 160, 256, 576, 1536, 24, 33]);
        let tokens = random.pick(&[1, 1, 2, 3, 4, 5, 7, 12, 13, 31, 40]);
        let epilogue = random.below(5);
        let activation = random.pick(&ACTIVATIONS);
        let factor = random.pick(&[1.0, 0.3]);
        let count = if epilogue == 1 { 2 } else { 1 + random.below(3) };
        let shared_rows = 1 + random.below(70);
        let x = random.array(&[tokens, columns]);
        let (mut packed, mut products) = (Vec::new(), Vec::new());
        let weight_of_norm = random.array(&[columns]);
        let bias_of_norm = (random.below(2) == 0).then(|| random.array(&[columns]));
        let norm =
            (random.below(2) == 0).then(|| random_norm(&mut random, &weight_of_norm, bias_of_norm.as_ref()));
        let normed = norm.as_ref().map_or_else(|| x.clone(), |norm| by_mlx(norm, &x));
        let mut all_rows = 0;
        for _ in 0..count {
            let rows = if epilogue == 1 { shared_rows } else { 1 + random.below(70) };
            all_rows += rows;
            let (data, dense) = weight(&mut random, rows, columns);
            packed.push(pack(&data));
            products.push(ops::matmul(&normed, dense.swap_axes(0, 1).unwrap()).unwrap());
        }
        let mut expected = ops::concatenate(&products, 1).unwrap();
        let bias = (random.below(2) == 0).then(|| random.array(&[all_rows]));
        if let Some(bias) = &bias {
            expected = ops::add(&expected, bias).unwrap();
        }
        let residual = random.array(&[tokens, all_rows]);
        let finish = match epilogue {
            0 => Epilogue::None,
            1 => {
                let parts = ops::split_equal(&expected, 2, 1).unwrap();
                expected = ops::multiply(activate(&parts[0], activation).unwrap(), &parts[1]).unwrap();
                Epilogue::Gate(activation)
            }
            2 => {
                expected = activate(&expected, activation).unwrap();
                Epilogue::Activate(activation)
            }
            3 => {
                expected = scaled(expected, factor).unwrap();
                Epilogue::Scale(factor)
            }
            _ => {
                expected = onto(&residual, expected, factor).unwrap();
                Epilogue::Residual(&residual, factor)
            }
        };
        let matrices: Vec<&PackedMatrix> = packed.iter().collect();
        expected.eval().unwrap();
        forced::each(|isa| {
            let ours = project(&x, norm.as_ref(), &matrices, bias.as_ref(), finish).unwrap();
            let what = format!("{isa:?}, {round}: {tokens} × {columns}, {count} matrices, {all_rows} rows");
            assert_close(&ours, &expected, 2e-5, &what);
        });
    }
}

fn random_norm<'a>(random: &mut Random, weight: &'a Array, bias: Option<&'a Array>) -> Norm<'a> {
    Norm { centred: random.below(2) == 0, weight, bias, epsilon: 1e-5 }
}

/// The same by MLX's operations.
fn by_mlx(norm: &Norm, x: &Array) -> Array {
    if norm.centred {
        return fast::layer_norm(x, Some(norm.weight), norm.bias, norm.epsilon).unwrap();
    }
    let normed = fast::rms_norm(x, Some(norm.weight), norm.epsilon).unwrap();
    norm.bias.map_or_else(|| normed.clone(), |bias| ops::add(&normed, bias).unwrap())
}

#[test]
fn norms_equal_mlx_over_random_shapes() {
    let mut random = Random(13);
    for round in 0..60 {
        let columns = random.pick(&[1, 15, 16, 17, 48, 64, 576]);
        let tokens = random.pick(&[1, 2, 9, 40]);
        let (weight, bias) = (random.array(&[columns]), random.array(&[columns]));
        let norm = random_norm(&mut random, &weight, (round % 2 == 0).then_some(&bias));
        let (x, residual) = (random.array(&[tokens, columns]), random.array(&[tokens, columns]));
        let expected = by_mlx(&norm, &x);
        let sum = onto(&residual, expected.clone(), 0.3).unwrap();
        mlx_rs::transforms::eval([&expected, &sum]).unwrap();
        forced::each(|isa| {
            let what = format!("{isa:?}, {tokens} × {columns}, {norm:?}");
            assert_close(&norm_onto(&x, &norm, None).unwrap(), &expected, 1e-5, &what);
            assert_close(&norm_onto(&x, &norm, Some((&residual, 0.3))).unwrap(), &sum, 1e-5, &what);
        });
    }
}

#[test]
fn norms_of_heads_equal_mlx_over_random_shapes() {
    let mut random = Random(19);
    for _ in 0..60 {
        let (heads, kv_heads) = (1 + random.below(4), 1 + random.below(3));
        let head_dim = random.pick(&[2, 8, 16, 20, 64]);
        let tokens = random.pick(&[1, 3, 20]);
        let widths = [heads, kv_heads].map(|heads| heads * head_dim);
        let qkv = random.array(&[tokens, widths[0] + 2 * widths[1]]);
        // One weight for all heads, one for each, or all heads together.
        let way = random.below(3);
        let units = if way == 2 { widths } else { [head_dim; 2] };
        let lengths = if way == 0 { units } else { widths };
        let weights = lengths.map(|length| random.array(&[length]));
        let bias = lengths.map(|length| random.array(&[length]));
        let centred = random.below(2) == 0;
        let with_bias = random.below(2) == 0;
        let norm = |index: usize| Norm {
            centred,
            weight: &weights[index],
            bias: with_bias.then_some(&bias[index]),
            epsilon: 1e-6,
        };
        let parts =
            ops::split_at_indices(&qkv, &[widths[0] as i32, (widths[0] + widths[1]) as i32], -1).unwrap();
        let mut expected = Vec::new();
        for (index, part) in parts[..2].iter().enumerate() {
            let unit = units[index] as i32;
            let rows = part.reshape(&[-1, unit]).unwrap();
            let one = Array::from_slice(&vec![1.0_f32; units[index]], &[unit]);
            let plain = by_mlx(&Norm { weight: &one, bias: None, ..norm(index) }, &rows);
            let plain = plain.reshape(&[tokens as i32, widths[index] as i32]).unwrap();
            let repeated = |values: &Array| {
                let times = widths[index] / values.size();
                ops::concatenate(&vec![values.clone(); times], 0).unwrap()
            };
            let mut normed = ops::multiply(&plain, repeated(&weights[index])).unwrap();
            if with_bias {
                normed = ops::add(&normed, repeated(&bias[index])).unwrap();
            }
            expected.push(normed);
        }
        expected.push(parts[2].clone());
        let expected = ops::concatenate(&expected, -1).unwrap();
        expected.eval().unwrap();
        forced::each(|isa| {
            let norms = HeadNorms { queries: norm(0), keys: norm(1), widths, units };
            let what = format!("{isa:?}: {heads} and {kv_heads} heads of {head_dim}, way {way}");
            assert_close(&norm_heads(&qkv, &norms).unwrap(), &expected, 1e-5, &what);
        });
    }
}

#[test]
fn embedding_rows_equal_dequantized_ones() {
    let mut random = Random(11);
    for columns in [32, 96, 576] {
        let (data, dense) = weight(&mut random, 50, columns);
        let ids = Array::from_slice(&[49, 0, 17, 17], &[4]);
        let ours = embed(&pack(&data), &ids, 1.0).unwrap();
        assert_close(&ours, &dense.take_axis(&ids, 0).unwrap(), 1e-6, "rows");
    }
}

#[test]
fn an_id_out_of_range_gives_nan() {
    let (data, _) = dense(&mut Random(3), 5, 8);
    let rows: Array = embed(&pack(&data), &Array::from_slice(&[5, -1, i32::MAX, 4], &[4]), 1.0).unwrap();
    let nan: Vec<bool> = rows.as_slice::<f32>().chunks(8).map(|row| row.iter().all(|v| v.is_nan())).collect();
    assert_eq!(nan, [true, true, true, false]);
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    let mut random = Random(5);
    let (a, b) = (pack(&dense(&mut random, 4, 8).0), pack(&dense(&mut random, 5, 8).0));
    let wide = pack(&dense(&mut random, 4, 9).0);
    let x = random.array(&[2, 8]);
    let nine = random.array(&[9]);
    let wide_norm = Norm { centred: true, weight: &nine, bias: None, epsilon: 1e-5 };
    assert!(norm_onto(&x, &wide_norm, None).is_err());
    let heads = HeadNorms { queries: wide_norm, keys: wide_norm, widths: [4, 2], units: [2, 2] };
    assert!(norm_heads(&x, &heads).is_err());
    assert!(project(&x, None, &[], None, Epilogue::None).is_err());
    assert!(project(&x, None, &[&wide], None, Epilogue::None).is_err());
    assert!(project(&x, None, &[&a, &b], None, Epilogue::Gate(Activation::Silu)).is_err());
    assert!(project(&x, Some(&wide_norm), &[&a], None, Epilogue::None).is_err());
    assert!(project(&x, None, &[&a], Some(&random.array(&[5])), Epilogue::None).is_err());
    assert!(project(&x, None, &[&a], None, Epilogue::Residual(&random.array(&[2, 5]), 1.0)).is_err());
    assert!(project(&Array::from_slice(&[1_i32; 16], &[2, 8]), None, &[&a], None, Epilogue::None).is_err());
    assert!(project(&random.array(&[8]), None, &[&a], None, Epilogue::None).is_err());
}
