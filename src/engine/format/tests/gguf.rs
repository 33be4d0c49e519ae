use std::path::Path;

use proptest::prelude::*;

use super::fails;
use super::samples::{Gguf, put_text};
use crate::engine::format::ggml_type::GgmlType;
use crate::engine::format::gguf::Header;
use crate::engine::format::metadata::Value;
use crate::error::{Code, Result};

fn read(bytes: &[u8]) -> Result<Header> {
    Header::parse(bytes, bytes.len() as u64, Path::new("model.gguf"))
}

fn text(value: &str) -> Value {
    Value::Text(value.to_owned())
}

fn sample() -> Gguf {
    Gguf::new()
        .with("general.architecture", text("llama"))
        .with("tokens", Value::Texts(vec!["a".to_owned(), "é".to_owned(), String::new()]))
        .tensor("first", GgmlType::Q4_1, &[3, 64], vec![1; 120])
        .tensor("second", GgmlType::F32, &[5], vec![2; 20])
}

#[test]
fn a_written_header_is_read_back_with_shapes_outermost_first() {
    for version in [2, 3] {
        let file = Gguf { version, ..sample() }.bytes();
        let header = read(&file).unwrap();
        assert_eq!(header.metadata.text("general.architecture"), Some("llama"));
        assert_eq!(header.metadata.texts("tokens").unwrap(), ["a", "é", ""]);
        let first = &header.tensors["first"];
        assert_eq!((first.kind, first.shape.as_slice(), first.bytes), (GgmlType::Q4_1, &[3, 64][..], 120));
        let second = &header.tensors["second"];
        assert_eq!(file[second.offset as usize..], [2; 20]);
        assert_eq!(file[first.offset as usize..][..120], [1; 120]);
    }
}

#[test]
fn the_alignment_of_the_file_is_honoured() {
    let gguf =
        Gguf::new().with("general.alignment", Value::Unsigned(8)).tensor("a", GgmlType::I8, &[1], vec![9]);
    let unaligned = gguf.bytes();
    let header = read(&unaligned).unwrap();
    assert_eq!(header.tensors["a"].offset % 8, 0);
    for alignment in [0, 3, 1 << 40] {
        let gguf = Gguf::new().with("general.alignment", Value::Unsigned(alignment));
        fails(read(&gguf.bytes()), Code::IntegrityFailed, &["alignment"]);
    }
}

/// A header with one metadata key "k" followed by these bytes (a type number and a value).
fn with_value(bytes: &[u8]) -> Vec<u8> {
    let mut file = b"GGUF\x03\0\0\0".to_vec();
    file.extend(0u64.to_le_bytes());
    file.extend(1u64.to_le_bytes());
    put_text(&mut file, "k");
    file.extend(bytes);
    file.resize(file.len() + 64, 0);
    file
}

/// A header with one tensor of these dimensions (innermost first), type and offset, and `body` bytes.
fn with_tensor(dimensions: &[u64], kind: u32, offset: u64, body: usize) -> Vec<u8> {
    let mut file = b"GGUF\x03\0\0\0".to_vec();
    file.extend(1u64.to_le_bytes());
    file.extend(0u64.to_le_bytes());
    put_text(&mut file, "t");
    file.extend((dimensions.len() as u32).to_le_bytes());
    file.extend(dimensions.iter().flat_map(|d| d.to_le_bytes()));
    file.extend(kind.to_le_bytes());
    file.extend(offset.to_le_bytes());
    file.resize(file.len().next_multiple_of(32) + body, 0);
    file
}

fn array(kind: u32, count: u64) -> Vec<u8> {
    [&9u32.to_le_bytes()[..], &kind.to_le_bytes(), &count.to_le_bytes()].concat()
}

#[test]
fn damaged_headers_are_integrity_failures_that_say_why() {
    let whole = sample().bytes();
    let counts = |tensors: u64, keys: u64| {
        [b"GGUF\x03\0\0\0".as_slice(), &tensors.to_le_bytes(), &keys.to_le_bytes(), &[0; 64]].concat()
    };
    let twice = sample().with("general.architecture", text("again")).bytes();
    let same_tensor = sample().tensor("first", GgmlType::F32, &[1], vec![0; 4]).bytes();
    let mut overlapping = sample().bytes();
    let at = overlapping.windows(6).position(|w| w == b"second").unwrap() + 6 + 4 + 8 + 4;
    overlapping[at..at + 8].copy_from_slice(&0u64.to_le_bytes());
    let text_of = |length: u64| [&8u32.to_le_bytes()[..], &length.to_le_bytes()].concat();
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (vec![], "ends inside the header"),
        (b"GGU".to_vec(), "ends inside the header"),
        (b"GGML\x03\0\0\0".to_vec(), "not a GGUF file"),
        (b"GGUF\x03".to_vec(), "ends inside the header"),
        (whole[..whole.len() - 1].to_vec(), "truncated"),
        (whole[..110].to_vec(), "left in the file"),
        (counts(u64::MAX, 0), "claims 18446744073709551615 tensors"),
        (counts(1 << 19, 0), "claims 524288 tensors"),
        (counts(0, 1 << 40), "metadata keys"),
        (twice, "twice"),
        (same_tensor, "twice"),
        (overlapping, "overlapping"),
        (with_value(&text_of(u64::MAX)), "metadata text of"),
        (with_value(&text_of(1 << 20)), "metadata text of"),
        (with_value(&[&8u32.to_le_bytes()[..], &2u64.to_le_bytes(), &[0xff, 0xfe]].concat()), "not UTF-8"),
        (with_value(&99u32.to_le_bytes()), "unknown type 99"),
        (with_value(&array(8, u64::MAX)), "array elements"),
        (with_value(&array(0, 1 << 30)), "array elements"),
        (with_value(&array(77, 1)), "unknown type 77"),
        (with_value(&[7, 0, 0, 0, 2]), "truth value 2"),
        (with_value(&[array(10, 1), vec![0xff; 8]].concat()), "absurd number"),
        (with_tensor(&[1; 5], 0, 0, 4), "5 dimensions"),
        (with_tensor(&[33], 2, 0, 64), "whole blocks of 32"),
        (with_tensor(&[1 << 40, 1 << 40], 0, 0, 4), "too large"),
        (with_tensor(&[u64::MAX], 0, 0, 4), "too large"),
        (with_tensor(&[1], 0, 1, 64), "not a multiple of 32"),
        (with_tensor(&[1], 0, u64::MAX - 31, 64), "truncated"),
        (with_tensor(&[1], 0, 1 << 40, 64), "truncated"),
        (with_tensor(&[1 << 30], 0, 0, 64), "truncated"),
    ];
    for (bytes, reason) in cases {
        fails(read(&bytes), Code::IntegrityFailed, &["model.gguf", reason]);
    }
}

#[test]
fn what_we_lack_is_unsupported_and_named() {
    let version = |bytes: [u8; 4]| [b"GGUF".as_slice(), &bytes, &[0; 32]].concat();
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (version([0, 0, 0, 3]), "big-endian"),
        (version([1, 0, 0, 0]), "version 1"),
        (version([4, 0, 0, 0]), "version 4"),
        (with_value(&array(9, 1)), "nested arrays"),
        (with_tensor(&[32], 1000, 0, 64), "unknown type number 1000"),
    ];
    for (bytes, reason) in cases {
        fails(read(&bytes), Code::ModelUnsupported, &["model.gguf", reason]);
    }
}

#[test]
fn every_known_type_has_a_size() {
    for number in 0..42 {
        let kind = GgmlType::from_number(number).expect("no gaps");
        assert!(kind.block_elements() > 0 && kind.block_bytes() > 0, "{}", kind.name());
    }
    // 4.5, 5 and 8.5 bits an element.
    for (kind, eighths) in [(GgmlType::Q4_0, 36), (GgmlType::Q4_1, 40), (GgmlType::Q8_0, 68)] {
        assert_eq!(kind.block_bytes() * 64 / kind.block_elements(), eighths, "{}", kind.name());
    }
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<u64>().prop_map(Value::Unsigned),
        any::<i64>().prop_map(Value::Signed),
        (-1e9..1e9).prop_map(Value::Float),
        any::<bool>().prop_map(Value::Bool),
        ".{0,20}".prop_map(Value::Text),
        prop::collection::vec(any::<i64>(), 0..9).prop_map(Value::Integers),
        prop::collection::vec(-1e9f32..1e9, 0..9).prop_map(Value::Floats),
        prop::collection::vec(any::<bool>(), 0..9).prop_map(Value::Bools),
        prop::collection::vec(".{0,9}", 0..9).prop_map(Value::Texts),
    ]
}

proptest! {
    #[test]
    fn every_written_header_is_read_back(
        metadata in prop::collection::btree_map("k[a-z.]{0,12}", value(), 0..8),
        shapes in prop::collection::btree_map("[a-z.é]{0,12}", (1usize..4, 0usize..4), 0..6),
    ) {
        let mut gguf = Gguf::new();
        gguf.metadata.extend(metadata.clone());
        for (name, (blocks, rows)) in &shapes {
            let bytes = vec![7; blocks * rows * 34];
            gguf = gguf.tensor(name, GgmlType::Q8_0, &[*rows, blocks * 32], bytes);
        }
        let file = gguf.bytes();
        let header = read(&file).unwrap();
        prop_assert_eq!(header.metadata.0, metadata);
        prop_assert_eq!(header.tensors.len(), shapes.len());
        for (name, (blocks, rows)) in &shapes {
            let info = &header.tensors[name];
            prop_assert_eq!(&info.shape, &vec![*rows, blocks * 32]);
            let bytes = &file[info.offset as usize..][..info.bytes as usize];
            prop_assert!(bytes.iter().all(|&byte| byte == 7));
        }
    }

    #[test]
    fn no_bytes_make_it_panic(rest in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = read(&[b"GGUF\x03\0\0\0".as_slice(), &rest].concat());
    }

    #[test]
    fn a_changed_byte_is_read_or_refused_but_never_leaves_the_file(at in any::<prop::sample::Index>(), value in any::<u8>()) {
        let mut file = sample().bytes();
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
        let file = sample().bytes();
        prop_assert!(read(&file[..keep.index(file.len())]).is_err());
    }
}
