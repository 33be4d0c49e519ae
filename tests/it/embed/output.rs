//! Vectors in every format, whole or not at all.

use mlx_rs::Array;
use serde_json::Value;

use super::{difference, embed, names, pipe, refused, rows, vectors};
use crate::sandbox::Sandbox;

const TEXTS: [&str; 3] = ["the cat", "a dog and a cat", "night"];

/// The file that `embed` writes in this format.
fn written(sandbox: &Sandbox, name: &str, args: &[&str]) -> Vec<u8> {
    let all: Vec<&str> = TEXTS.iter().chain(&["--output", name]).chain(args).copied().collect();
    let outcome = embed(sandbox, &all);
    assert_eq!(outcome.status, 0, "{name}: {}", outcome.stderr);
    std::fs::read(sandbox.home().join(name)).expect("a file")
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

#[test]
fn every_format_holds_the_same_numbers() {
    let sandbox = Sandbox::new();
    let expected: Vec<f32> = vectors(&sandbox, &TEXTS).concat();
    let json: Value = serde_json::from_slice(&written(&sandbox, "a.json", &[])).expect("JSON");
    assert_eq!(rows(&json).concat(), expected);
    let csv = String::from_utf8(written(&sandbox, "a.csv", &[])).expect("UTF-8");
    let numbers: Vec<f32> =
        csv.lines().flat_map(|line| line.split(',')).map(|n| n.parse().expect("a number")).collect();
    assert_eq!(numbers, expected);
    assert_eq!(floats(&written(&sandbox, "a.f32", &[])), expected);
    let jsonl = written(&sandbox, "a.jsonl", &[]);
    let last: Value =
        serde_json::from_slice(jsonl.split(|&b| b == b'\n').nth(2).expect("a line")).expect("JSON");
    assert_eq!(rows(&Value::from(vec![last["embedding"].clone()])).concat(), expected[64..]);

    let npy = written(&sandbox, "a.npy", &[]);
    let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 32), }";
    assert_eq!((&npy[..8], &npy[10..10 + header.len()]), (&b"\x93NUMPY\x01\x00"[..], header.as_bytes()));
    assert_eq!(floats(&npy[128..]), expected);
    let piped =
        sandbox.cmd(&["embed", &super::model()]).args(TEXTS).args(["-f", "npy"]).output().expect("a run");
    assert_eq!(piped.stdout, npy);

    written(&sandbox, "a.safetensors", &[]);
    let tensors = Array::load_safetensors(sandbox.home().join("a.safetensors")).expect("safetensors");
    assert_eq!(tensors["embeddings"].shape(), [3, 32]);
    assert_eq!(tensors["embeddings"].to_vec_exact::<f32>().expect("float32"), expected);

    // One stored entry: its header, the .npy file, and a directory that repeats size and checksum.
    let npz = written(&sandbox, "a.npz", &[]);
    let start = 30 + "embeddings.npy".len() + 20;
    assert_eq!(&npz[start..][..npy.len()], npy);
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(&npy);
    let checksum = checksum.finalize().to_le_bytes();
    let directory = &npz[start + npy.len()..];
    assert_eq!((&npz[14..18], &directory[16..20]), (&checksum[..], &checksum[..]));
    assert_eq!((&npz[..4], &directory[..4]), (&b"PK\x03\x04"[..], &b"PK\x01\x02"[..]));
    assert_eq!(&npz[npz.len() - 22..][..4], b"PK\x05\x06");
}

#[test]
fn smaller_numbers_stay_near_the_vectors() {
    let sandbox = Sandbox::new();
    let expected: Vec<f32> = vectors(&sandbox, &TEXTS).concat();
    written(&sandbox, "h.safetensors", &["--dtype", "f16"]);
    let half = Array::load_safetensors(sandbox.home().join("h.safetensors")).expect("safetensors");
    let half = half["embeddings"]
        .as_dtype(mlx_rs::Dtype::Float32)
        .expect("float32")
        .to_vec_exact::<f32>()
        .expect("numbers");
    assert!(difference(&half, &expected) < 5e-4);
    let bytes = written(&sandbox, "i.npy", &["--dtype", "int8"]);
    for (row, vector) in bytes[128..].chunks_exact(32).zip(expected.chunks_exact(32)) {
        let largest = vector.iter().fold(0f32, |largest, value| largest.max(value.abs()));
        let back: Vec<f32> = row.iter().map(|b| f32::from(b.cast_signed()) * largest / 127.0).collect();
        assert!(difference(&back, vector) <= largest / 250.0);
    }
    let bits = written(&sandbox, "b.npy", &["--dtype", "binary"]);
    assert_eq!(bits.len(), 128 + 3 * 4);
    for (place, value) in expected.iter().enumerate() {
        assert_eq!(bits[128 + place / 8] >> (7 - place % 8) & 1 == 1, *value > 0.0);
    }
}

#[test]
fn the_report_tells_of_the_file() {
    let sandbox = Sandbox::new();
    let (status, envelope) =
        sandbox.json(&["embed", &super::model(), "the cat", "dog", "-o", "v.npy", "--dtype", "f16"]);
    let data = &envelope["data"];
    assert_eq!((status, &data["count"], &data["dimensions"]), (0, &2.into(), &32.into()), "{envelope}");
    assert!(data["embeddings"].is_null());
    let output = &data["output"];
    assert_eq!(
        (&output["format"], &output["dtype"], &output["resumed"]),
        (&"npy".into(), &"f16".into(), &0.into())
    );
    assert_eq!(output["bytes"], 128 + 2 * 32 * 2);
    assert_eq!((&data["pooling"], &data["normalized"]), (&"mean".into(), &true.into()));
    assert!(data["usage"]["tokens"].as_u64() == Some(7), "{data}");
}

#[test]
fn a_failed_run_leaves_nothing_under_the_name_and_the_old_file_stays() {
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.home().join("v.npy"), "old").expect("a file");
    let folder = sandbox.home();
    refused(&sandbox, &["-o", "v.npy"], b"one\ntwo\n\xff\n", "EMBEDDING_FAILED", "line 3");
    assert_eq!(std::fs::read(folder.join("v.npy")).expect("a file"), b"old");
    assert_eq!(names(folder), ["v.npy"], "nothing was done yet that is worth keeping");
    refused(&sandbox, &["a", "-o", "absent/v.npy"], b"", "FILE_NOT_FOUND", "absent");
    refused(&sandbox, &["a", "-o", "."], b"", "INVALID_REQUEST", "not a file");
    refused(
        &sandbox,
        &["--input-format", "jsonl", "-f", "jsonl", "-o", "x"],
        br#"{"text":"a","embedding":1}"#,
        "EMBEDDING_FAILED",
        "has a field embedding already",
    );
    assert_eq!(names(folder), ["v.npy"]);
}

#[test]
fn a_reader_that_goes_away_ends_the_run_quietly() {
    let sandbox = Sandbox::new();
    let many = "the cat\n".repeat(5000);
    std::fs::write(sandbox.home().join("many.txt"), many).expect("input");
    let mut child = sandbox
        .cmd(&["embed", &super::model(), "-i", "many.txt", "-f", "csv"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the program starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(141), &b""[..]));
}

#[test]
fn standard_output_takes_many_lines_in_their_order() {
    let sandbox = Sandbox::new();
    let words = ["the cat", "dog", "a river of light and stone", "", "night night"];
    let expected: Vec<String> =
        embed(&sandbox, &[&words[..], &["-f", "csv"]].concat()).stdout.lines().map(str::to_owned).collect();
    let input: Vec<&str> = (0..3000).map(|index| words[index * 7 % 5]).collect();
    let found = pipe(&sandbox, &["-f", "csv"], (input.join("\n") + "\n").as_bytes()).stdout;
    let numbers =
        |line: &str| -> Vec<f32> { line.split(',').map(|n| n.parse().expect("a number")).collect() };
    assert_eq!(found.lines().count(), 3000);
    for (index, line) in found.lines().enumerate() {
        assert!(difference(&numbers(line), &numbers(&expected[index * 7 % 5])) < 1e-5, "line {index}");
    }
}
