//! The program's own parts, one by one: `cargo bench --bench micro [NAME]`.
//!
//! Ratios against other programs are in the Python scripts beside this; this shows which part of ours a
//! change made faster or slower. Criterion keeps the last run and tells the difference.

use std::fs;
use std::hint::black_box;
use std::path::Path;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mlx_cache::cancel::Cancel;
use mlx_cache::engine::request::SamplingOptions;
use mlx_cache::engine::sample::Sampler;
use mlx_cache::engine::text::{Detokenizer, Tokenizer};
use mlx_cache::fs::{FileStamp, hash_file};
use mlx_cache::ids::Digest;
use mlx_cache::registry::{Registry, Remembered};
use mlx_cache::sources;

/// Files of the folder that is looked through, and rows of the registry.
const FILES: usize = 10_000;
const VOCABULARY: usize = 49_152;

fn hash(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("content");
    fs::write(&path, vec![7; 16 << 20]).expect("a file");
    let mut group = criterion.benchmark_group("hash");
    group.throughput(Throughput::Bytes(16 << 20)).sample_size(20);
    group.bench_function("a file of 16 MiB in the page cache", |bencher| {
        bencher.iter(|| hash_file(&path, &|_| Ok(())).expect("hashed"));
    });
    group.finish();
}

fn scan(criterion: &mut Criterion) {
    let (folder, store) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    for at in 0..FILES {
        let below = folder.path().join(format!("{:03}", at / 500));
        fs::create_dir_all(&below).expect("a folder");
        fs::write(below.join(format!("{at}.safetensors")), b"x").expect("a file");
    }
    let source = sources::folder(folder.path(), store.path());
    let cancel = Cancel::default();
    let mut group = criterion.benchmark_group("scan");
    group.throughput(Throughput::Elements(FILES as u64)).sample_size(10);
    group.bench_function("files of a folder", |bencher| {
        bencher.iter(|| black_box(source.files(&cancel).expect("a scan").payloads.len()));
    });
    group.bench_function("models of a folder", |bencher| {
        bencher.iter(|| black_box(source.scan(&cancel).expect("a scan").models.len()));
    });
    group.finish();
}

fn registry(criterion: &mut Criterion) {
    let home = tempfile::tempdir().expect("a folder");
    let mut registry = Registry::create(home.path()).expect("a registry");
    let stamp = |at: usize| FileStamp {
        device: 1,
        inode: at as u64,
        bytes: 1000 + at as u64,
        modified_ns: 5,
        changed_ns: 6,
    };
    let known = Remembered { ends: Some(7), digest: Some(Digest::from_bytes([9; 32])) };
    let rows: Vec<(FileStamp, Remembered)> = (0..FILES).map(|at| (stamp(at), known)).collect();
    let stamps: Vec<FileStamp> = (0..FILES).map(stamp).collect();
    let mut group = criterion.benchmark_group("registry");
    group.throughput(Throughput::Elements(FILES as u64)).sample_size(10);
    group.bench_function("remember", |bencher| bencher.iter(|| registry.remember(&rows).expect("written")));
    group.bench_function("recall", |bencher| {
        bencher.iter(|| black_box(registry.remembered(&stamps).expect("read").len()));
    });
    group.finish();
}

fn sampler(criterion: &mut Criterion) {
    let mut random = fastrand::Rng::with_seed(1);
    let logits: Vec<f32> = (0..VOCABULARY).map(|_| random.f32() * 20.0 - 10.0).collect();
    let mut group = criterion.benchmark_group("sampler");
    for (name, options) in [
        ("temperature", SamplingOptions { temperature: 1.0, ..SamplingOptions::default() }),
        (
            "top-k and top-p",
            SamplingOptions { temperature: 0.8, top_k: 40, top_p: 0.95, ..SamplingOptions::default() },
        ),
    ] {
        let mut sampler = Sampler::new(options, Vec::new()).expect("options");
        let mut own = logits.clone();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                own.copy_from_slice(&logits);
                sampler.sample(&mut own, &[], 3).expect("a token")
            });
        });
    }
    group.finish();
}

fn detokenizer(criterion: &mut Criterion) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/tiny/llama_gqa");
    let tokenizer = Tokenizer::from_directory(&folder).expect("a tokenizer");
    let text = "The quick brown fox jumps over the lazy dog. ".repeat(20);
    let tokens = tokenizer.encode(&text, false).expect("tokens");
    let mut group = criterion.benchmark_group("detokenizer");
    group.throughput(Throughput::Elements(tokens.len() as u64));
    group.bench_function("token by token", |bencher| {
        bencher.iter(|| {
            let mut detokenizer = Detokenizer::new(&tokenizer, true);
            tokens
                .iter()
                .filter_map(|id| detokenizer.push(*id).expect("text"))
                .map(|text| text.len())
                .sum::<usize>()
        });
    });
    group.finish();
}

/// What a layer of a small model is made of: a matrix of 4 bits in groups of 64, attention of three query heads
/// a key, a norm, and the choice of the likeliest token.
#[cfg(target_os = "linux")]
fn kernels(criterion: &mut Criterion) {
    use mlx_cache::engine::ffi::Tensor;
    use mlx_cache::engine::format::weight::{FloatType, Floats, WeightData};
    use mlx_cache::engine::kernels::{
        Attention, Epilogue, Norm, PackedMatrix, argmax, attention, norm_onto, project,
    };
    use mlx_rs::Array;

    const ROWS: usize = 1536;
    const COLUMNS: usize = 576;
    let mut random = fastrand::Rng::with_seed(2);
    let groups = ROWS * COLUMNS / 64;
    let mut floats = |count: usize| Floats {
        dtype: FloatType::F32,
        bytes: (0..count).flat_map(|_| (random.f32() - 0.5).to_le_bytes()).collect(),
    };
    let (scales, biases) = (floats(groups), floats(groups));
    let packed = (0..ROWS * COLUMNS / 8).map(|_| random.u32(..)).collect();
    let weight =
        WeightData::Affine { rows: ROWS, columns: COLUMNS, group: 64, bits: 4, packed, scales, biases };
    let matrix = PackedMatrix::pack(&weight).expect("packed");
    let mut array = |shape: &[usize]| {
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| random.f32() - 0.5).collect();
        Array::from_slice(&values, &shape.iter().map(|&size| size as i32).collect::<Vec<_>>())
    };

    let mut group = criterion.benchmark_group("project");
    for tokens in [1, 128] {
        let x = array(&[tokens, COLUMNS]);
        group.throughput(Throughput::Elements((tokens * ROWS * COLUMNS) as u64));
        group.bench_function(format!("{tokens} × {COLUMNS} by {ROWS}"), |bencher| {
            bencher.iter(|| {
                let product = project(&x, None, &[&matrix], None, Epilogue::None).expect("a product");
                product.eval().expect("computed");
            });
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("attention");
    let (heads, kv_heads, width) = (9, 3, 64);
    for (tokens, held) in [(1, 512), (1, 4096), (128, 512)] {
        let layer = Attention {
            heads,
            kv_heads,
            head_dim: width,
            value_dim: width,
            appends: true,
            values_in_keys: false,
            rotary_dims: width,
            traditional: false,
            rope_scale: 1.0,
            scale: 0.125,
            soft_cap: None,
            growth: None,
            weighs_queries: false,
            has_sinks: false,
            offset: held,
            held,
            window: None,
            keep: 0,
            packing: None,
        };
        let qkv = array(&[tokens, (heads + 2 * kv_heads) * width]);
        let caches = [(); 2].map(|()| Tensor::from(array(&[kv_heads, held + tokens, width])));
        let frequencies = array(&[width / 2]);
        group.throughput(Throughput::Elements((tokens * held) as u64));
        group.bench_function(format!("{tokens} behind {held}"), |bencher| {
            bencher.iter(|| {
                let seen = attention(&qkv, &caches, Some(&frequencies), &layer).expect("attention");
                seen.output.eval().expect("computed");
            });
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("norm");
    let weight = array(&[COLUMNS]);
    let norm = Norm { centred: false, weight: &weight, bias: None, epsilon: 1e-5 };
    for tokens in [1, 128] {
        let x = array(&[tokens, COLUMNS]);
        group.throughput(Throughput::Elements((tokens * COLUMNS) as u64));
        group.bench_function(format!("{tokens} × {COLUMNS}"), |bencher| {
            bencher.iter(|| norm_onto(&x, &norm, None).expect("a norm").eval().expect("computed"));
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("select");
    let logits = array(&[1, VOCABULARY]);
    group.throughput(Throughput::Elements(VOCABULARY as u64));
    group.bench_function("the likeliest token", |bencher| {
        bencher.iter(|| argmax(&logits).expect("a token").eval().expect("computed"));
    });
    group.finish();
}

#[cfg(not(target_os = "linux"))]
fn kernels(_: &mut Criterion) {}

criterion_group!(benches, hash, scan, registry, sampler, detokenizer, kernels);
criterion_main!(benches);
