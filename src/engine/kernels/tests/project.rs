use mlx_rs::{Array, fast, ops};

use super::{Random, affine, assert_close, dense};
use crate::engine::format::weight::WeightData;
use crate::engine::kernels::isa::forced;
use crate::engine::kernels::{Epilogue, PackedMatrix, embed, project};

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

#[test]
fn projections_equal_mlx_over_random_shapes() {
    let mut random = Random(7);
    for round in 0..150 {
        let columns = random.pick(&[32, 64, 96, 128, 160, 256, 576, 1536, 24, 33]);
        let tokens = random.pick(&[1, 1, 2, 3, 4, 5, 7, 12, 13, 31, 40]);
        let epilogue = random.below(3);
        let count = if epilogue == 1 { 2 } else { 1 + random.below(3) };
        let shared_rows = 1 + random.below(70);
        let x = random.array(&[tokens, columns]);
        let (mut packed, mut products) = (Vec::new(), Vec::new());
        let norm = (random.below(2) == 0).then(|| random.array(&[columns]));
        let normed = match &norm {
            Some(weight) => fast::rms_norm(&x, Some(weight), 1e-5).unwrap(),
            None => x.clone(),
        };
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
                let silu = ops::multiply(&parts[0], ops::sigmoid(&parts[0]).unwrap()).unwrap();
                expected = ops::multiply(&silu, &parts[1]).unwrap();
                Epilogue::SiluGate
            }
            _ => {
                expected = ops::add(&expected, &residual).unwrap();
                Epilogue::Residual(&residual)
            }
        };
        let matrices: Vec<&PackedMatrix> = packed.iter().collect();
        expected.eval().unwrap();
        forced::each(|isa| {
            let norm = norm.as_ref().map(|weight| (weight, 1e-5));
            let ours = project(&x, norm, &matrices, bias.as_ref(), finish).unwrap();
            let what = format!("{isa:?}, {round}: {tokens} × {columns}, {count} matrices, {all_rows} rows");
            assert_close(&ours, &expected, 2e-5, &what);
        });
    }
}

#[test]
fn embedding_rows_equal_dequantized_ones() {
    let mut random = Random(11);
    for columns in [32, 96, 576] {
        let (data, dense) = weight(&mut random, 50, columns);
        let ids = Array::from_slice(&[49, 0, 17, 17], &[4]);
        let ours = embed(&pack(&data), &ids).unwrap();
        assert_close(&ours, &dense.take_axis(&ids, 0).unwrap(), 1e-6, "rows");
    }
}

#[test]
fn an_id_out_of_range_gives_nan() {
    let (data, _) = dense(&mut Random(3), 5, 8);
    let rows = embed(&pack(&data), &Array::from_slice(&[5, -1, i32::MAX, 4], &[4])).unwrap();
    let nan: Vec<bool> = rows.as_slice::<f32>().chunks(8).map(|row| row.iter().all(|v| v.is_nan())).collect();
    assert_eq!(nan, [true, true, true, false]);
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    let mut random = Random(5);
    let (a, b) = (pack(&dense(&mut random, 4, 8).0), pack(&dense(&mut random, 5, 8).0));
    let wide = pack(&dense(&mut random, 4, 9).0);
    let x = random.array(&[2, 8]);
    assert!(project(&x, None, &[], None, Epilogue::None).is_err());
    assert!(project(&x, None, &[&wide], None, Epilogue::None).is_err());
    assert!(project(&x, None, &[&a, &b], None, Epilogue::SiluGate).is_err());
    assert!(project(&x, Some((&random.array(&[9]), 1e-5)), &[&a], None, Epilogue::None).is_err());
    assert!(project(&x, None, &[&a], Some(&random.array(&[5])), Epilogue::None).is_err());
    assert!(project(&x, None, &[&a], None, Epilogue::Residual(&random.array(&[2, 5]))).is_err());
    assert!(project(&Array::from_slice(&[1_i32; 16], &[2, 8]), None, &[&a], None, Epilogue::None).is_err());
    assert!(project(&random.array(&[8]), None, &[&a], None, Epilogue::None).is_err());
}
