//! Against blocks that the gguf package dequantized (fixtures/tiny/gguf/blocks.safetensors).

use std::path::Path;

use super::unpack::{same, unpack, values};
use crate::engine::format::file::ModelFile;
use crate::engine::format::ggml_type::GgmlType;
use crate::engine::format::safetensors::Header;
use crate::engine::format::weight::{FloatType, Floats};

#[test]
fn blocks_have_the_values_of_the_gguf_package() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/tiny/gguf/blocks.safetensors");
    let file = ModelFile::open(&path).unwrap();
    let header = Header::read(&file).unwrap();
    let read = |name: String| {
        let info = &header.tensors[&name];
        let mut bytes = vec![0; info.bytes as usize];
        file.read_at(&mut bytes, info.offset).unwrap();
        bytes
    };
    for kind in [GgmlType::Q4_0, GgmlType::Q4_1, GgmlType::Q8_0] {
        let name = kind.name();
        let expected = Floats { dtype: FloatType::F32, bytes: read(format!("{name}.f32")) }.to_f32();
        let unpacked = unpack(kind, &read(format!("{name}.raw"))).ok().unwrap();
        let values = values(&unpacked);
        assert_eq!(values.len(), expected.len(), "{name}");
        for (i, (value, expected)) in values.into_iter().zip(expected).enumerate() {
            assert!(same(value, expected), "{name}, element {i}: {value}, not {expected}");
        }
    }
}
