//! Against the files that public tools made (fixtures/).

use std::path::{Path, PathBuf};

use super::unpack::{same, unpack, values};
use crate::engine::format::checkpoint::Checkpoint;
use crate::engine::format::file::ModelFile;
use crate::engine::format::ggml_type::GgmlType;
use crate::engine::format::inventory::Needed;
use crate::engine::format::safetensors::Header;
use crate::engine::format::weight::{FloatType, Floats, WeightData};
use crate::engine::probe::{Kind, probe};

#[test]
fn blocks_have_the_values_of_the_gguf_package() {
    check_blocks("blocks.safetensors");
}

#[test]
fn blocks_at_their_edges_have_them_too() {
    check_blocks("edges.safetensors");
}

fn check_blocks(file: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/tiny/gguf").join(file);
    let file = ModelFile::open(&path).unwrap();
    let header = Header::read(&file).unwrap();
    let read = |name: String| {
        let info = &header.tensors[&name];
        let mut bytes = vec![0; info.bytes as usize];
        file.read_at(&mut bytes, info.offset).unwrap();
        bytes
    };
    for kind in [
        GgmlType::Q4_0,
        GgmlType::Q4_1,
        GgmlType::Q5_0,
        GgmlType::Q5_1,
        GgmlType::Q8_0,
        GgmlType::Q2_K,
        GgmlType::Q3_K,
        GgmlType::Q4_K,
        GgmlType::Q5_K,
        GgmlType::Q6_K,
        GgmlType::IQ4_NL,
        GgmlType::IQ4_XS,
        GgmlType::MXFP4,
    ] {
        let name = kind.name();
        let expected = Floats { dtype: FloatType::F32, bytes: read(format!("{name}.f32")) }.to_f32();
        let raw = read(format!("{name}.raw"));
        let check = |what: &str, values: Vec<f32>| {
            assert_eq!(values.len(), expected.len(), "{name}");
            for (i, (value, expected)) in values.into_iter().zip(&expected).enumerate() {
                assert!(same(value, *expected), "{name} {what}, element {i}: {value}, not {expected}");
            }
        };
        let unpacked = unpack(kind, &raw).ok().unwrap();
        check("unpacked", values(&unpacked));
        #[cfg(target_os = "linux")]
        check("in the kernels", in_kernels(&unpacked));
    }
}

/// The values that the kernels read, by looking up the row of a table.
#[cfg(target_os = "linux")]
fn in_kernels(weight: &WeightData) -> Vec<f32> {
    use crate::engine::kernels::{PackedMatrix, embed};

    let ids = mlx_rs::Array::from_slice(&[0], &[1]);
    let row: mlx_rs::Array = embed(&PackedMatrix::pack(weight).unwrap(), &ids, 1.0).unwrap();
    row.eval().unwrap();
    row.as_slice::<f32>().to_vec()
}

/// Folders and files with a model under fixtures/tiny.
fn models() -> Vec<PathBuf> {
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/tiny");
    let entries = |folder: &Path| -> Vec<PathBuf> {
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
    };
    let mut models = entries(&tiny.join("gguf"));
    models.retain(|path| path.extension().is_some_and(|extension| extension == "gguf"));
    models.extend(entries(&tiny).into_iter().filter(|path| path.join("config.json").exists()));
    models
}

#[test]
fn every_tiny_model_is_read_whole() {
    let models = models();
    assert!(models.len() > 30, "only {} fixtures", models.len());
    for path in models {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let probe = probe(&path).unwrap();
        assert_eq!(probe.kind, Kind::Generation, "{name}");
        if let Some(scheme) = ["mxfp4", "mxfp8", "nvfp4"].iter().find(|scheme| name.contains(*scheme)) {
            assert_eq!(probe.quantization.as_deref(), Some(*scheme), "{name}");
        }
        let checkpoint = Checkpoint::open(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut packed = 0;
        for needed in checkpoint.needed() {
            match needed {
                Needed::Matrix { module, rows, columns, .. } => match checkpoint.weight(&module).unwrap() {
                    WeightData::Dense { shape, values } => {
                        assert_eq!(shape, [rows, columns], "{name} {module}");
                        assert_eq!(values.bytes.len(), rows * columns * values.dtype.size());
                    }
                    WeightData::Affine { group, bits, packed: words, scales, biases, .. } => {
                        assert_eq!(words.len() * 32, rows * columns * bits, "{name} {module}");
                        assert_eq!(scales.bytes.len(), rows * columns / group * scales.dtype.size());
                        assert_eq!(biases.bytes.len(), scales.bytes.len());
                        packed += 1;
                    }
                    other => {
                        assert_eq!(other.matrix_shape(), Some((rows, columns)), "{name} {module}");
                        packed += 1;
                    }
                },
                Needed::Vector { name: vector, size, .. } => {
                    assert_eq!(checkpoint.vector(&vector).unwrap().len(), size, "{name} {vector}");
                }
                Needed::Conv { name: taps, channels, width } => {
                    assert_eq!(checkpoint.vector(&taps).unwrap().len(), channels * width, "{name} {taps}");
                }
            }
        }
        let is_packed = ["quant_", "_Q", "mixed_"].iter().any(|part| name.contains(part));
        assert_eq!(packed > 0, is_packed, "{name}: {packed} packed matrices");
    }
}
