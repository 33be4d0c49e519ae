//! GGUF models in several files.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::fails;
use super::samples::{Gguf, llama_gguf, write};
use crate::engine::format::checkpoint::Checkpoint;
use crate::engine::format::ggml_type::GgmlType;
use crate::engine::format::metadata::Value;
use crate::error::Code;

const COUNT: usize = 3;

type Change = fn(&mut [Gguf]);

/// The plain model in three parts; the first one has its metadata.
fn split() -> Vec<Gguf> {
    let whole = llama_gguf(GgmlType::F32);
    let total = whole.tensors.len();
    (0..COUNT)
        .map(|number| {
            let mut part = if number == 0 { whole.clone() } else { Gguf::new() };
            let share = whole.tensors.chunks(total.div_ceil(COUNT)).nth(number).unwrap_or_default();
            part.tensors = share.to_vec();
            part.with("split.no", Value::Unsigned(number as u64))
                .with("split.count", Value::Unsigned(COUNT as u64))
                .with("split.tensors.count", Value::Signed(total as i64))
        })
        .collect()
}

fn name(folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("m-{number:05}-of-{COUNT:05}.gguf"))
}

fn placed(parts: &[Gguf]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (index, part) in parts.iter().enumerate() {
        write(&name(folder.path(), index + 1), &part.bytes());
    }
    folder
}

fn set(part: &mut Gguf, key: &str, value: u64) {
    part.metadata.retain(|(name, _)| name != key);
    part.metadata.push((key.to_owned(), Value::Unsigned(value)));
}

#[test]
fn the_first_part_and_the_folder_open_all_parts() {
    let folder = placed(&split());
    let whole = tempfile::tempdir().unwrap();
    let one = whole.path().join("m.gguf");
    write(&one, &llama_gguf(GgmlType::F32).bytes());
    let expected = Checkpoint::open(&one).unwrap();
    for path in [name(folder.path(), 1), folder.path().to_owned()] {
        let found = Checkpoint::open(&path).unwrap();
        assert_eq!(found.config, expected.config);
        assert_eq!(found.path(), name(folder.path(), 1));
        for tensor in ["model.norm.weight", "model.layers.0.mlp.up_proj.weight"] {
            assert_eq!(found.vector(tensor).unwrap(), expected.vector(tensor).unwrap());
        }
    }
}

#[test]
fn parts_that_are_missing_or_of_another_model_are_named() {
    for number in 1..=COUNT {
        let folder = placed(&split());
        std::fs::remove_file(name(folder.path(), number)).unwrap();
        let words = [&*format!("m-0000{number}-of-00003.gguf is missing"), &*format!("part {number} of 3")];
        fails(Checkpoint::open(folder.path()), Code::IntegrityFailed, &words);
        // A path that leads nowhere is that first of all.
        let code = if number == 1 { Code::FileNotFound } else { Code::IntegrityFailed };
        let words = if number == 1 { &["m-00001"][..] } else { &words };
        fails(Checkpoint::open(&name(folder.path(), 1)), code, words);
    }
    let cases: [(Change, &str, &str); 9] = [
        (|parts| set(&mut parts[1], "split.no", 2), "m-00002", "part 3 of its model"),
        (|parts| set(&mut parts[1], "split.no", u64::MAX), "m-00002", "does not say which part"),
        (|parts| set(&mut parts[2], "split.count", 2), "m-00003", "a part of another model"),
        (|parts| set(&mut parts[2], "split.tensors.count", 7), "m-00003", "a part of another model"),
        (|parts| parts[2] = llama_gguf(GgmlType::F32), "m-00003", "a part of another model"),
        (
            |parts| parts[0].metadata.retain(|(key, _)| key != "split.tensors.count"),
            "m-00001",
            "how many tensors",
        ),
        (|parts| parts[0].metadata.retain(|(key, _)| key != "split.no"), "m-00001", "which part"),
        (|parts| drop(parts[2].tensors.pop()), "m-00001", "of a model of 11 tensors, but its parts have 10"),
        (|parts| parts[2].tensors[0] = parts[0].tensors[0].clone(), "m-00003", "that another part has too"),
    ];
    for (change, file, reason) in cases {
        let mut parts = split();
        change(&mut parts);
        let folder = placed(&parts);
        fails(Checkpoint::open(folder.path()), Code::IntegrityFailed, &[file, reason]);
    }
    let mut parts = split();
    for part in &mut parts {
        set(part, "split.tensors.count", 5);
    }
    fails(Checkpoint::open(placed(&parts).path()), Code::IntegrityFailed, &["m-00002", "of 5 tensors"]);
}

#[test]
fn a_part_alone_leads_to_the_first() {
    let folder = placed(&split());
    let error = Checkpoint::open(&name(folder.path(), 2)).unwrap_err();
    assert_eq!(error.code(), Code::ModelUnsupported);
    assert!(error.message().contains("is part 2 of 3"), "{error}");
    assert!(error.hint_text().unwrap().contains("m-00001-of-00003.gguf"));

    // By other names the parts do not find one another.
    let renamed = folder.path().join("first.gguf");
    std::fs::copy(name(folder.path(), 1), &renamed).unwrap();
    fails(Checkpoint::open(&renamed), Code::ModelUnsupported, &["one of the 3 parts", "not named as one"]);
    // Two models in a folder are a question.
    fails(Checkpoint::open(folder.path()), Code::ModelAmbiguous, &["4 GGUF files"]);
}
