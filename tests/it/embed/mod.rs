//! `embed`: vectors of texts, through the program.

mod compare;
mod input;
mod models;
mod output;
mod resume;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use mlx_rs::Array;
use serde_json::Value;

use crate::sandbox::{Outcome, Sandbox, envelope, finish};

/// The model of most tests.
const MODEL: &str = "bert_mean_normalized";

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/embed").join(name)
}

fn model() -> String {
    fixture(MODEL).display().to_string()
}

/// The texts whose vectors the fixtures hold.
fn texts() -> Vec<String> {
    let json = std::fs::read_to_string(fixture("texts.json")).expect("texts");
    serde_json::from_str(&json).expect("a list of texts")
}

/// Vectors that sentence-transformers computed.
fn golden(name: &str, key: &str) -> Vec<f32> {
    let tensors = Array::load_safetensors(fixture(name).join("golden.safetensors")).expect("golden vectors");
    tensors[key].to_vec_exact::<f32>().expect("float32")
}

/// Runs `embed MODEL ARGS`.
fn embed(sandbox: &Sandbox, args: &[&str]) -> Outcome {
    let model = model();
    let all: Vec<&str> = ["embed", &model].into_iter().chain(args.iter().copied()).collect();
    sandbox.run(&all)
}

/// Runs `embed MODEL ARGS` with this on standard input.
fn pipe(sandbox: &Sandbox, args: &[&str], input: &[u8]) -> Outcome {
    let model = model();
    let all: Vec<&str> = ["embed", &model].into_iter().chain(args.iter().copied()).collect();
    let mut child = sandbox
        .cmd(&all)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    // The program may end before it has read everything.
    let _ = child.stdin.take().expect("a pipe").write_all(input);
    let output = child.wait_with_output().expect("the program ends");
    Outcome {
        status: output.status.code().expect("a status"),
        stdout: String::from_utf8(output.stdout).expect("UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}

/// The error of `embed MODEL ARGS --json` with this on standard input: its code, message and hint.
fn refused(sandbox: &Sandbox, args: &[&str], input: &[u8], code: &str, what: &str) -> Value {
    let args: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
    let outcome = pipe(sandbox, &args, input);
    let error = envelope(&outcome.stdout)["error"].clone();
    assert_eq!(error["code"], code, "{args:?}: {error}");
    assert!(outcome.status != 0);
    let message = error["message"].as_str().expect("a message");
    assert!(message.contains(what), "{args:?}: {message}");
    error
}

/// The vectors in the report of `embed MODEL ARGS --json`.
fn vectors(sandbox: &Sandbox, args: &[&str]) -> Vec<Vec<f32>> {
    let model = model();
    let all: Vec<&str> = ["embed", &model].into_iter().chain(args.iter().copied()).collect();
    let (status, envelope) = sandbox.json(&all);
    assert_eq!(status, 0, "{envelope}");
    rows(&envelope["data"]["embeddings"])
}

/// A list of lists of numbers.
fn rows(value: &Value) -> Vec<Vec<f32>> {
    let numbers = |row: &Value| -> Vec<f32> {
        row.as_array().expect("a list").iter().map(|n| n.as_f64().expect("a number") as f32).collect()
    };
    value.as_array().expect("a list").iter().map(numbers).collect()
}

/// The largest difference between numbers of two rows of vectors.
fn difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    // A NaN is a difference, too.
    a.iter().zip(b).fold(0.0, |worst, (a, b)| if (a - b).abs() <= worst { worst } else { (a - b).abs() })
}

/// Names of the files in a folder.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn a_model_that_writes_makes_no_vectors_and_one_that_makes_vectors_does_not_write() {
    let sandbox = Sandbox::new();
    let writer = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/tiny/llama_tied").display().to_string();
    let (status, error) = sandbox.error(&["embed", &writer, "a text"]);
    assert_eq!((status, error["code"].as_str()), (7, Some("CAPABILITY_MISSING")), "{error}");
    assert!(error["hint"].as_str().expect("a hint").contains("--pooling"), "{error}");
    // An encoder, and decoders whose weights would run, but write nonsense.
    let others = ["qwen3_last", "gemma3_mean", "gguf/qwen3_last_F32.gguf"];
    for model in others.map(|name| fixture(name).display().to_string()).iter().chain([&model()]) {
        let (status, error) = sandbox.error(&["run", model, "a text"]);
        assert_eq!((status, error["code"].as_str()), (7, Some("CAPABILITY_MISSING")), "{error}");
        assert!(error["hint"].as_str().expect("a hint").contains("embed"), "{error}");
    }
}

#[test]
fn a_model_that_writes_makes_vectors_if_it_is_told_how() {
    let sandbox = Sandbox::new();
    // The weights and the tokenizer of an embedding model, without its pipeline.
    let (from, folder) = (fixture("llama_weighted"), sandbox.home().join("llama"));
    std::fs::create_dir(&folder).expect("a folder");
    for name in names(&from).iter().filter(|name| from.join(name).is_file() && *name != "modules.json") {
        std::fs::copy(from.join(name), folder.join(name)).expect("a copy");
    }
    let (status, error) = sandbox.error(&["embed", "./llama", "a text"]);
    assert_eq!((status, error["code"].as_str()), (7, Some("CAPABILITY_MISSING")), "{error}");
    let texts = texts();
    let args = ["embed", "./llama", "--pooling", "weighted-mean"].into_iter();
    let args: Vec<&str> = args.chain(texts.iter().map(String::as_str)).collect();
    let (status, envelope) = sandbox.json(&args);
    assert_eq!(status, 0, "{envelope}");
    let found = rows(&envelope["data"]["embeddings"]).concat();
    assert!(difference(&found, &golden("llama_weighted", "embeddings")) < 2e-5);
}

#[test]
fn a_model_that_embeds_is_shown_as_such_and_its_uses_are_written_down() {
    let sandbox = Sandbox::new();
    let added = finish(&mut sandbox.cmd(&["add", &model(), "--copy", "--name", "me/bert"]));
    assert_eq!(added.status, 0, "{}", added.stderr);
    let (_, shown) = sandbox.json(&["show", "me/bert"]);
    assert_eq!(shown["data"]["runnable"], true, "{shown}");
    assert!(shown["data"]["memory_estimate_bytes"].as_u64().is_some_and(|bytes| bytes > 10_000), "{shown}");
    let (status, envelope) = sandbox.json(&["embed", "bert", "a text"]);
    assert_eq!((status, envelope["data"]["model"].as_str()), (0, Some("me/bert")));
    let (_, listed) = sandbox.json(&["list"]);
    assert!(listed["data"]["models"][0]["last_used"].is_string(), "{listed}");
}
