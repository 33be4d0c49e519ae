//! Vectors against those of sentence-transformers.

use std::path::Path;

use mlx_cache::engine::embed::StateFiles;
use mlx_cache::engine::format::weight::FloatType;
use mlx_cache::engine::layers::Backend;
use mlx_cache::engine::layers::sequences::Batch;
use mlx_rs::Array;

use super::{difference, fixture, golden, names, texts};
use crate::sandbox::{Sandbox, finish, minilm};

/// The vectors of texts as the program writes them to a .npy file, without its header.
fn embedded(model: &Path, texts: &[String], args: &[&str]) -> Vec<f32> {
    let sandbox = Sandbox::new();
    let input: Vec<u8> = texts.iter().flat_map(|text| text.bytes().chain([0])).collect();
    std::fs::write(sandbox.home().join("texts"), input).expect("texts");
    let outcome = finish(
        sandbox.cmd(&["embed", "--input", "texts", "--null", "--output", "out.npy"]).arg(model).args(args),
    );
    assert_eq!(outcome.status, 0, "{}: {}", model.display(), outcome.stderr);
    let bytes = std::fs::read(sandbox.home().join("out.npy")).expect("vectors");
    assert!(bytes.starts_with(b"\x93NUMPY"));
    bytes[128..].as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

/// Every architecture and kind of pooling, from texts to the end of the pipeline.
#[test]
fn tiny_models_make_the_vectors_of_sentence_transformers() {
    let folders: Vec<String> =
        names(&fixture("")).into_iter().filter(|name| fixture(name).join("modules.json").exists()).collect();
    assert!(folders.len() >= 26, "only {} models found", folders.len());
    let texts = texts();
    for name in folders {
        let expected = golden(&name, "embeddings");
        let found = embedded(&fixture(&name), &texts, &[]);
        let worst = difference(&found, &expected);
        assert!(worst < 2e-5, "{name}: differs by {worst:e}");
    }
}

/// The same weights as llama.cpp's converter writes them. Packed ones are unpacked to the values that were
/// compared with.
#[test]
fn gguf_files_make_the_vectors_of_sentence_transformers() {
    let files: Vec<String> = names(&fixture("gguf"))
        .iter()
        .filter_map(|name| Some(name.strip_suffix(".gguf")?.to_owned()))
        .collect();
    assert!(files.len() >= 6, "only {files:?} found");
    for name in files {
        let golden = Array::load_safetensors(fixture(&format!("gguf/{name}.safetensors"))).expect("vectors");
        let expected = golden["embeddings"].to_vec_exact::<f32>().expect("float32");
        let found = embedded(&fixture(&format!("gguf/{name}.gguf")), &texts(), &[]);
        let worst = difference(&found, &expected);
        assert!(worst < 2e-5, "{name}: differs by {worst:e}");
    }
}

#[test]
fn prompts_stand_before_every_text() {
    for name in ["bert_dense", "bert_prompt_excluded", "xlm_roberta_cls", "qwen3_last", "gemma3_mean"] {
        let expected = golden(name, "embeddings_query");
        let found = embedded(&fixture(name), &texts(), &["--prompt", "query"]);
        let worst = difference(&found, &expected);
        assert!(worst < 2e-5, "{name}: differs by {worst:e}");
        assert!(difference(&expected, &golden(name, "embeddings")) > 1e-2, "{name}: the prompt does nothing");
    }
}

/// MLX's own operations, which compute on a GPU, against the kernels of the Linux CPU, whose threads share a few
/// texts and compute groups of their own of many.
#[test]
fn both_backends_give_the_same_hidden_states() {
    if !cfg!(target_os = "linux") {
        return;
    }
    let lengths = [5u32, 1, 40, 17, 2, 33];
    let tokens: Vec<Vec<u32>> =
        lengths.iter().map(|&length| (0..length).map(|i| (i * 7 + length) % 90 + 5).collect()).collect();
    let few: Vec<&[u32]> = tokens.iter().map(Vec::as_slice).collect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let many: Vec<&[u32]> = few.iter().copied().cycle().take(few.len() * 4 * threads).collect();
    for name in [
        "bert_cls",
        "roberta_mean",
        "distilbert_mean",
        "mpnet_mean",
        "nomic_bert_mean",
        "modernbert_cls",
        "bert_4bit",
        "qwen3_last",
        "qwen3_last_4bit",
        "gemma3_mean",
        "gemma3_causal",
        "mistral_last",
        "llama_weighted",
    ] {
        let states = |backend: Backend, texts: &[&[u32]]| -> Vec<f32> {
            let files = StateFiles::open(&fixture(name)).expect("a model");
            let mut encoder = files.load(backend, FloatType::F32, &mut |_, _| {}).expect("weights");
            let batch = Batch::new(texts, backend).expect("a batch");
            encoder.forward(&batch).expect("forward").to_vec_exact::<f32>().expect("states")
        };
        let stock = states(Backend::Stock, &few);
        let worst = difference(&stock, &states(Backend::Kernels, &few));
        assert!(worst < 1e-4, "{name}: differs by {worst:e}");
        let worst = difference(&stock.repeat(4 * threads), &states(Backend::Kernels, &many));
        assert!(worst < 1e-4, "{name}: of many texts, differs by {worst:e}");
    }
}

/// As in fixtures/minilm_golden.py.
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

fn mixed_text(index: usize, pieces: &[String]) -> String {
    const SIZES: [(usize, usize); 10] =
        [(0, 1), (1, 4), (2, 12), (2, 12), (5, 20), (5, 20), (10, 40), (10, 40), (40, 90), (150, 350)];
    const BETWEEN: [&str; 10] = [" ", " ", " ", " ", " ", ", ", ". ", "", "\n", "  "];
    let mut random = SplitMix64(index as u64);
    let (low, high) = SIZES[index % 10];
    let mut text = String::new();
    for number in 0..low + random.below(high - low + 1) {
        if number > 0 {
            text += BETWEEN[random.below(10)];
        }
        text += &pieces[random.below(pieces.len())];
    }
    text
}

const WIDTH: usize = 384;
const PROJECTED: usize = 16;
/// Texts that are compared, and the longest of them in tokens: without optimisation all would take minutes.
const COMPARED: (usize, i32) = if cfg!(debug_assertions) { (120, 8) } else { (1000, i32::MAX) };

#[test]
fn all_minilm_makes_the_vectors_of_sentence_transformers() {
    let pieces = std::fs::read_to_string(fixture("pieces.json")).expect("pieces");
    let pieces: Vec<String> = serde_json::from_str(&pieces).expect("a list");
    let golden = Array::load_safetensors(fixture("minilm.safetensors")).expect("golden vectors");
    let floats = |name: &str| golden[name].to_vec_exact::<f32>().expect("float32");
    let tokens = golden["tokens"].to_vec_exact::<i32>().expect("int32");
    let compared: Vec<usize> = (0..COMPARED.0).filter(|&index| tokens[index] <= COMPARED.1).collect();
    assert!(compared.len() >= 20, "only {} texts", compared.len());
    let texts: Vec<String> = compared.iter().map(|&index| mixed_text(index, &pieces)).collect();
    let (whole, projected) = (floats("whole"), floats("projected"));
    let mut random = SplitMix64(1 << 32);
    let signs: Vec<f64> =
        (0..WIDTH * PROJECTED).map(|_| if random.next() & 1 == 1 { 1.0 } else { -1.0 }).collect();

    let found = embedded(&minilm(), &texts, &[]);
    for (&index, vector) in compared.iter().zip(found.chunks_exact(WIDTH)) {
        for (column, expected) in projected[index * PROJECTED..][..PROJECTED].iter().enumerate() {
            let signed = vector.iter().enumerate();
            let sum: f64 = signed.map(|(i, value)| f64::from(*value) * signs[i * PROJECTED + column]).sum();
            let difference = (sum - f64::from(*expected)).abs();
            assert!(difference < 2e-4, "text {index}: projected {sum} for {expected}");
        }
        if index % 5 == 0 {
            let expected = &whole[index / 5 * WIDTH..][..WIDTH];
            assert!(difference(vector, expected) <= 1e-4, "text {index}");
            // Both have the length 1.
            let cosine: f64 = vector.iter().zip(expected).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            assert!(cosine >= 0.99999, "text {index}: {cosine}");
        }
    }
}

#[test]
fn all_minilm_cuts_texts_to_the_tokens_that_sentence_transformers_keeps() {
    let pieces = std::fs::read_to_string(fixture("pieces.json")).expect("pieces");
    let pieces: Vec<String> = serde_json::from_str(&pieces).expect("a list");
    let tokens = Array::load_safetensors(fixture("minilm.safetensors")).expect("golden vectors");
    let tokens = tokens["tokens"].to_vec_exact::<i32>().expect("int32");
    let options = mlx_cache::engine::embed::EmbedOptions::default();
    let load = mlx_cache::engine::request::LoadOptions::default();
    let embedder = mlx_cache::engine::embed::Embedder::load(&minilm(), &load, &options, &mut |_, _| {});
    let text = embedder.expect("the model").text();
    let mut shortened = 0;
    for (index, expected) in tokens.iter().enumerate() {
        let found = text.encode(&mixed_text(index, &pieces)).expect("tokens");
        assert_eq!(found.ids.len(), *expected as usize, "text {index}");
        shortened += usize::from(found.truncated);
    }
    assert!(shortened > 50, "only {shortened} texts are too long");
}

/// What is computed together, and in which order, changes nothing.
#[test]
fn any_batch_makes_the_same_vectors() {
    let mut texts = texts();
    let model = fixture("mpnet_mean");
    let expected = embedded(&model, &texts, &[]);
    for size in ["1", "2", "5"] {
        assert!(difference(&embedded(&model, &texts, &["--batch-size", size]), &expected) < 1e-5);
    }
    texts.reverse();
    let width = expected.len() / texts.len();
    let reversed: Vec<f32> = expected.chunks_exact(width).rev().flatten().copied().collect();
    assert!(difference(&embedded(&model, &texts, &[]), &reversed) < 1e-5);
}

#[test]
fn what_the_model_does_can_be_done_otherwise() {
    let texts = texts();
    let cls = fixture("bert_cls");
    // The same weights pooled in another way are another model's vectors.
    let found = embedded(&cls, &texts, &["--pooling", "max"]);
    assert!(difference(&found, &golden("bert_cls", "embeddings")) > 1e-2);
    let normalized = embedded(&cls, &texts, &["--normalize"]);
    let plain = golden("bert_cls", "embeddings");
    let width = plain.len() / texts.len();
    let unit = |vector: &[f32]| -> Vec<f32> {
        let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
        vector.iter().map(|value| value / length).collect()
    };
    let expected: Vec<f32> = plain.chunks_exact(width).flat_map(unit).collect();
    assert!(difference(&normalized, &expected) < 1e-5);
    // The first numbers of a vector, with the length 1 where the model gives it.
    let expected: Vec<f32> = golden("bert_mean_normalized", "embeddings")
        .chunks_exact(width)
        .flat_map(|vector| unit(&vector[..8]))
        .collect();
    let found = embedded(&fixture("bert_mean_normalized"), &texts, &["--dimensions", "8"]);
    assert!(difference(&found, &expected) < 1e-5);
    let longer = embedded(&fixture("bert_mean_normalized"), &texts, &["--no-normalize"]);
    assert!(longer.chunks_exact(width).any(|vector| vector.iter().map(|x| x * x).sum::<f32>() > 2.0));
}
