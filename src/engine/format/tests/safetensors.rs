use std::path::Path;

use proptest::prelude::*;

use super::fails;
use super::samples::{Sample, safetensors, safetensors_of, write};
use crate::engine::format::file::ModelFile;
use crate::engine::format::safetensors::Header;
use crate::error::{Code, Result};

fn read(bytes: &[u8]) -> Result<Header> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    write(&path, bytes);
    Header::read(&ModelFile::open(&path)?)
}

#[test]
fn a_written_header_is_read_back() {
    let samples = [
        Sample::counting("b", &[2, 3]),
        Sample::new("a", "BF16", &[4], vec![0; 8]),
        Sample::new("empty", "I64", &[0, 7], vec![]),
        Sample::new("scalar", "F8_E4M3", &[], vec![1]),
        Sample::new("half a byte each", "F4", &[2, 2], vec![0; 2]),
    ];
    let header = read(&safetensors(&samples)).unwrap();
    assert_eq!(header.tensors.len(), 5);
    let b = &header.tensors["b"];
    assert_eq!((b.dtype.name(), b.shape.as_slice(), b.bytes), ("F32", &[2, 3][..], 24));
    assert_eq!(header.tensors["a"].offset, b.offset + 24);
}

#[test]
fn metadata_and_padding_are_accepted() {
    let header =
        r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}    "#;
    let header = read(&safetensors_of(header, &[7])).unwrap();
    assert_eq!(header.metadata["format"], "pt");
    assert_eq!(header.tensors["a"].bytes, 1);
}

#[test]
fn damaged_headers_are_integrity_failures_that_say_why() {
    let one = |shape: &str, offsets: &str| {
        format!(r#"{{"a":{{"dtype":"F32","shape":{shape},"data_offsets":{offsets}}}}}"#)
    };
    let two = |first: &str, second: &str| {
        format!(
            r#"{{"a":{{"dtype":"U8","shape":[4],"data_offsets":{first}}},"b":{{"dtype":"U8","shape":[4],"data_offsets":{second}}}}}"#
        )
    };
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (vec![], "too short"),
        (vec![1, 2, 3], "too short"),
        (u64::MAX.to_le_bytes().to_vec(), "not a safetensors file"),
        (200_000_000u64.to_le_bytes().to_vec(), "not a safetensors file"),
        (1000u64.to_le_bytes().to_vec(), "truncated"),
        (safetensors_of("", &[]), "broken safetensors header"),
        (safetensors_of("{", &[]), "broken safetensors header"),
        (safetensors_of("[1]", &[]), "broken safetensors header"),
        (safetensors_of("{}x", &[]), "broken safetensors header"),
        (safetensors_of(&"[".repeat(10_000), &[]), "broken safetensors header"),
        (safetensors_of(r#"{"a":{"dtype":"F32"}}"#, &[]), "shape"),
        (safetensors_of(&one("[-1]", "[0,4]"), &[0; 4]), "invalid value"),
        (safetensors_of(&one("[1.5]", "[0,4]"), &[0; 4]), "broken safetensors header"),
        (safetensors_of(&one("[1]", "[4,0]"), &[0; 4]), "leave"),
        (safetensors_of(&one("[1]", "[0,8]"), &[0; 4]), "leave"),
        (safetensors_of(&one("[2]", "[0,4]"), &[0; 4]), "needs 8 bytes"),
        (safetensors_of(&one("[18446744073709551615,4]", "[0,4]"), &[0; 4]), "too large"),
        (safetensors_of(&one("[4611686018427387904]", "[0,0]"), &[]), "too large"),
        (safetensors_of(&one(&format!("[{}1]", "1,".repeat(40)), "[0,4]"), &[0; 4]), "at most 32 sizes"),
        (safetensors_of(&one("[1]", "[0,4]"), &[0; 5]), "belong to no tensor"),
        (safetensors_of(&two("[0,4]", "[2,6]"), &[0; 6]), "overlapping"),
        (safetensors_of(&two("[0,4]", "[0,4]"), &[0; 4]), "overlapping"),
        (safetensors_of(&two("[0,4]", "[5,9]"), &[0; 9]), "unclaimed"),
        (
            safetensors_of(
                r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#,
                &[0],
            ),
            "twice",
        ),
        (safetensors_of(r#"{"__metadata__":{},"__metadata__":{}}"#, &[]), "twice"),
        (safetensors_of(r#"{"a":{"dtype":"F4","shape":[3],"data_offsets":[0,2]}}"#, &[0; 2]), "whole number"),
    ];
    for (bytes, reason) in cases {
        fails(read(&bytes), Code::IntegrityFailed, &["model.safetensors", reason]);
    }
}

#[test]
fn an_unknown_element_type_is_unsupported_and_named() {
    let header = r#"{"a":{"dtype":"F3","shape":[8],"data_offsets":[0,3]}}"#;
    fails(read(&safetensors_of(header, &[0; 3])), Code::ModelUnsupported, &["\"a\"", "F3"]);
}

#[test]
fn what_is_no_file_is_refused_without_waiting() {
    let folder = tempfile::tempdir().unwrap();
    fails(ModelFile::open(folder.path()), Code::IntegrityFailed, &["not a regular file"]);
    fails(ModelFile::open(&folder.path().join("none")), Code::FileNotFound, &["none"]);
}

#[test]
fn a_file_that_became_shorter_is_an_integrity_failure() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    write(&path, &safetensors(&[Sample::counting("a", &[8])]));
    let file = ModelFile::open(&path).unwrap();
    let info = Header::read(&file).unwrap().tensors["a"].clone();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(info.offset + 4).unwrap();
    fails(file.read_at(&mut [0; 32], info.offset), Code::IntegrityFailed, &["ends before byte"]);
}

prop_compose! {
    fn sample()(
        dtype in prop::sample::select(vec![("F32", 4), ("BF16", 2), ("U8", 1), ("I64", 8)]),
        shape in prop::collection::vec(0usize..5, 0..4),
    ) -> (&'static str, Vec<usize>, usize) {
        let bytes = shape.iter().product::<usize>() * dtype.1;
        (dtype.0, shape, bytes)
    }
}

proptest! {
    #[test]
    fn every_written_header_is_read_back(
        tensors in prop::collection::btree_map("[a-z.\\\\\"é]{0,12}", sample(), 0..8),
    ) {
        let samples: Vec<Sample> = tensors
            .iter()
            .map(|(name, (dtype, shape, bytes))| Sample::new(name, dtype, shape, vec![0; *bytes]))
            .collect();
        let file = safetensors(&samples);
        let header = read(&file).unwrap();
        prop_assert_eq!(header.tensors.len(), tensors.len());
        for (name, (dtype, shape, bytes)) in &tensors {
            let info = &header.tensors[name];
            prop_assert_eq!((info.dtype.name(), &info.shape, info.bytes), (*dtype, shape, *bytes as u64));
            prop_assert!(info.offset + info.bytes <= file.len() as u64);
        }
    }

    #[test]
    fn no_bytes_make_it_panic(json in prop::collection::vec(any::<u8>(), 0..200), body in any::<u64>()) {
        let _ = Header::parse(&json, body, Path::new("fuzz"));
    }

    #[test]
    fn a_changed_byte_is_read_or_refused_but_never_leaves_the_file(at in any::<prop::sample::Index>(), value in any::<u8>()) {
        let mut file = safetensors(&[Sample::counting("a", &[2, 3]), Sample::counting("b", &[5])]);
        let at = at.index(file.len());
        file[at] = value;
        if let Ok(header) = read(&file) {
            for info in header.tensors.values() {
                prop_assert!(info.offset + info.bytes <= file.len() as u64);
            }
        }
    }

    #[test]
    fn a_truncated_file_is_refused(keep in any::<prop::sample::Index>()) {
        let file = safetensors(&[Sample::counting("a", &[2, 3]), Sample::counting("b", &[5])]);
        prop_assert!(read(&file[..keep.index(file.len())]).is_err());
    }
}
