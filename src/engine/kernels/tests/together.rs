use mlx_rs::{Array, Dtype, ops};

use super::{Random, dense};
use crate::engine::ffi::{Operand, Tensor};
use crate::engine::kernels::pool::forced;
use crate::engine::kernels::{Epilogue, Norm, PackedMatrix, norm_onto, project, together};

/// A product and a norm of it, as in a layer.
fn layer(x: &Tensor, matrix: &PackedMatrix, weight: &Array) -> Tensor {
    let norm = Norm { centred: true, weight, bias: None, epsilon: 1e-6 };
    let product = project(x, None, &[matrix], None, Epilogue::Residual(x, 1.0)).unwrap();
    norm_onto(&product, &norm, None).unwrap()
}

#[test]
fn parts_that_threads_make_by_themselves_are_those_that_they_make_together() {
    let mut random = Random(61);
    let (weight, _) = dense(&mut random, 40, 40);
    let matrix = PackedMatrix::pack(&weight).unwrap();
    let weight = random.array(&[40]);
    forced::each(&[1, 2, 3], |_| {
        let rows = [1, 30, 9, 200, 17].map(|rows| random.array(&[rows, 40]));
        let parts =
            || rows.iter().map(|x| layer(&layer(&x.clone().into(), &matrix, &weight), &matrix, &weight));
        let found = together(&parts().collect::<Vec<_>>()).unwrap();
        let expected: Vec<Array> = parts().map(|part| part.array().unwrap()).collect();
        let expected = ops::concatenate(&expected, 0).unwrap();
        assert_eq!(found.shape(), [257, 40]);
        assert_eq!(found.as_slice::<f32>(), expected.as_slice::<f32>());
    });
}

#[test]
fn parts_that_do_not_fit_each_other_are_refused() {
    let mut random = Random(62);
    let (weight, _) = dense(&mut random, 16, 16);
    let matrix = PackedMatrix::pack(&weight).unwrap();
    let scale = random.array(&[16]);
    let part = |x: Array| layer(&x.into(), &matrix, &scale);
    let plain: Tensor = random.array(&[3, 16]).into();
    let (narrow, _) = dense(&mut random, 8, 16);
    let narrow = PackedMatrix::pack(&narrow).unwrap();
    let narrow: Tensor =
        project(&Tensor::from(random.array(&[2, 16])), None, &[&narrow], None, Epilogue::None).unwrap();
    let pending = ops::add(random.array(&[2, 16]), random.array(&[2, 16])).unwrap();
    assert!(together(&[]).is_err());
    assert!(together(&[plain]).is_err(), "there is nothing to compute");
    assert!(together(&[part(random.array(&[2, 16])), narrow]).is_err());
    assert!(together(&[part(pending)]).is_err(), "an array that is still to be computed");
    let made = together(&[part(random.array(&[2, 16])), part(random.array(&[20, 16]))]).unwrap();
    assert_eq!((made.shape(), made.dtype()), (&[22, 16][..], Dtype::Float32));
}
