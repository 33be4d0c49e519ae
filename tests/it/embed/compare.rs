//! How similar texts are.

use serde_json::Value;

use super::{difference, embed, model, refused, rows};
use crate::sandbox::Sandbox;

#[test]
fn texts_are_compared_each_to_each_or_in_pairs() {
    let sandbox = Sandbox::new();
    let model = model();
    let texts = ["the cat", "a dog", "the cat", "night"];
    let data = |how: &str| -> Value {
        let all: Vec<&str> = ["embed", &model].into_iter().chain(texts).chain([how]).collect();
        sandbox.json(&all).1["data"].clone()
    };
    let matrix = data("--similarity");
    assert!(matrix["embeddings"].is_null());
    let matrix = rows(&matrix["similarity"]);
    let vectors = super::vectors(&sandbox, &texts);
    for (i, row) in matrix.iter().enumerate() {
        for (j, cosine) in row.iter().enumerate() {
            let expected: f32 = vectors[i].iter().zip(&vectors[j]).map(|(a, b)| a * b).sum();
            assert!((cosine - expected).abs() < 1e-5, "{i} and {j}: {cosine} for {expected}");
        }
    }
    let pairs = rows(&data("--similarity=pairs")["similarity"]);
    assert!(difference(&pairs[0], &[matrix[0][1], matrix[2][3]]) < 1e-6);
    let shown = embed(&sandbox, &["the cat", "the cat", "--similarity"]).stdout;
    assert_eq!(shown, "1.0000\t1.0000\n1.0000\t1.0000\n");
}

#[test]
fn the_nearest_vectors_of_a_file_are_found() {
    let sandbox = Sandbox::new();
    let texts = ["a river", "the cat", "music of the night", "dog"];
    for (name, dtype) in [("f.npy", "f32"), ("h.npy", "f16"), ("i.npy", "int8")] {
        let all: Vec<&str> = texts.into_iter().chain(["-o", name, "--dtype", dtype]).collect();
        assert_eq!(embed(&sandbox, &all).status, 0);
        let found =
            sandbox.json(&["embed", &model(), "the cat", "dog", "--nearest", "2", "--against", name]).1;
        let nearest = &found["data"]["nearest"];
        assert_eq!(
            (&nearest[0][0]["row"], &nearest[1][0]["row"]),
            (&1.into(), &3.into()),
            "{dtype}: {nearest}"
        );
        assert!(nearest[0][0]["score"].as_f64().is_some_and(|score| score > 0.999));
        assert_eq!(nearest[0].as_array().map(Vec::len), Some(2));
    }
    let shown = embed(&sandbox, &["the cat", "--nearest", "1", "--against", "f.npy"]).stdout;
    assert_eq!(shown, "1\t1\t1\t1.0000\n");

    let near = ["the cat", "--nearest", "2", "--against"];
    let other = [&near[..], &["f.npy", "--dimensions", "8"]].concat();
    refused(&sandbox, &other, b"", "INVALID_REQUEST", "vectors of 32 numbers");
    refused(&sandbox, &[&near[..], &["absent.npy"]].concat(), b"", "FILE_NOT_FOUND", "absent.npy");
    std::fs::write(sandbox.home().join("bad.npy"), "not an array").expect("a file");
    refused(&sandbox, &[&near[..], &["bad.npy"]].concat(), b"", "INTEGRITY_FAILED", "is not a .npy file");
    assert_eq!(embed(&sandbox, &["a", "--nearest", "2"]).status, 2, "--against is needed");
}
