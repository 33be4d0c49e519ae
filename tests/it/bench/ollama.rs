//! `bench --against ollama:NAME`: a server of Ollama's API on this machine, measured in turn.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

use super::with_tiny;
use crate::sandbox::{self, Sandbox, envelope, finish};

/// Ollama's API as far as it is used: it "reads" 1000 and "generates" 100 tokens per second, a word is a token
/// and a half, and it took 2.5 s to load.
struct Double {
    address: String,
    /// The requests to generate.
    asked: Arc<Mutex<Vec<Value>>>,
}

#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Sound,
    /// Goes away when asked to generate for this time.
    Stops(usize),
    /// Says what another server might.
    Answers(&'static str),
    /// Tells no counters, from this time on.
    Silent(usize),
    /// Ends every answer after so many tokens at most.
    Brief(u64),
}

impl Double {
    fn new(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let known = Arc::clone(&asked);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if !serve(stream.expect("a client"), manner, &known) {
                    break;
                }
            }
        });
        Self { address, asked }
    }

    fn asked(&self) -> Vec<Value> {
        self.asked.lock().expect("not poisoned").clone()
    }

    fn cmd(&self, sandbox: &Sandbox, args: &[&str]) -> Command {
        let mut command = sandbox.cmd(&[&["bench", "tiny", "--json"], args].concat());
        command.env("OLLAMA_HOST", &self.address);
        command
    }
}

/// Answers one request; false when the server is gone.
fn serve(stream: TcpStream, manner: Manner, asked: &Mutex<Vec<Value>>) -> bool {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).expect("a request");
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).expect("a header");
        if header.trim().is_empty() {
            break;
        }
        if let Some(value) = header.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("a number");
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("the body");
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let (status, answer) = match line.split(' ').take(2).collect::<Vec<_>>()[..] {
        ["GET", "/api/version"] => ("200 OK", json!({ "version": "9.8.7" })),
        ["GET", "/api/ps"] => ("200 OK", json!({ "models": [] })),
        ["POST", "/api/show"] if body["model"] == "small:1b" => {
            ("200 OK", json!({ "details": { "quantization_level": "Q4_K_M" }, "more": 1 }))
        }
        ["POST", "/api/generate"] => {
            let mut asked = asked.lock().expect("not poisoned");
            asked.push(body.clone());
            if manner == Manner::Stops(asked.len()) {
                return false;
            }
            let words = body["prompt"].as_str().expect("a prompt").split(' ').count() as u64;
            let (read, wanted) = (words * 3 / 2, body["options"]["num_predict"].as_u64().expect("a number"));
            let made = if let Manner::Brief(most) = manner { wanted.min(most) } else { wanted };
            let load = if asked.len() == 1 { 2_500_000_000_u64 } else { 1_000_000 };
            let counted = json!({
                "response": "…", "done": true, "load_duration": load,
                "prompt_eval_count": read, "prompt_eval_duration": read * 1_000_000,
                "eval_count": made, "eval_duration": made * 10_000_000,
            });
            let is_silent = matches!(manner, Manner::Silent(from) if asked.len() >= from);
            ("200 OK", if is_silent { json!({ "done": true }) } else { counted })
        }
        _ => ("404 Not Found", json!({ "error": "model '\u{1b}[31m' not found" })),
    };
    let answer = match manner {
        Manner::Answers(text) => text.to_owned(),
        _ => answer.to_string(),
    };
    let mut stream = reader.into_inner();
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", answer.len());
    stream.write_all(format!("{head}{answer}").as_bytes()).expect("answered");
    true
}

fn result<'a>(data: &'a Value, model: &str, test: &str) -> &'a Value {
    let results = data.as_array().expect("results");
    let found = results.iter().find(|it| it["model"] == model && it["test"] == test);
    found.unwrap_or_else(|| panic!("no {test} of {model}: {data}"))
}

#[test]
fn it_is_measured_in_turn_by_its_own_counters() {
    let sandbox = with_tiny();
    let double = Double::new(Manner::Sound);
    let args = [
        "-p",
        "96",
        "-g",
        "4",
        "--depth",
        "0,7",
        "-r",
        "3",
        "--threads",
        "1",
        "--against",
        "ollama:small:1b",
    ];
    let outcome = finish(&mut double.cmd(&sandbox, &args));
    assert_eq!(outcome.status, 0, "{}{}", outcome.stdout, outcome.stderr);
    let data = &envelope(&outcome.stdout)["data"];
    let peer = "ollama:small:1b";
    for (test, speed) in [("pp96", 1000.0), ("tg4", 100.0), ("tg4@d7", 100.0)] {
        let theirs = result(&data["results"], peer, test);
        assert_eq!(theirs["samples"], json!([speed, speed, speed]), "{test}");
        let ours = result(&data["results"], "some/tiny", test)["median"].as_f64().expect("a median");
        let ratio = data["peers"].as_array().expect("ratios").iter().find(|it| it["test"] == test);
        let ratio = ratio.expect("a ratio");
        assert!((ratio["ratio"].as_f64().expect("a ratio") * speed / ours - 1.0).abs() < 1e-9, "{ratio}");
        assert!(
            ratio["min"].as_f64() <= ratio["ratio"].as_f64()
                && ratio["ratio"].as_f64() <= ratio["max"].as_f64()
        );
        assert_eq!((&ratio["peer"], &ratio["about"]), (&peer.into(), &"Ollama 9.8.7, Q4_K_M".into()));
    }
    // It has no counter for that, and says so.
    assert_eq!(data["peers"].as_array().map(Vec::len), Some(3));
    assert!(outcome.stderr.contains("pp96@d7 is not held against it"), "{}", outcome.stderr);
    assert_eq!(result(&data["results"], peer, "load")["samples"], json!([2.5]));

    let asked = double.asked();
    assert_eq!(asked.len(), 1 + 4 * 3, "to load, then three rounds and one to warm up");
    let mut beginnings = HashSet::new();
    for request in &asked {
        assert_eq!(
            (&request["model"], &request["raw"], &request["stream"]),
            (&"small:1b".into(), &true.into(), &false.into())
        );
        let options = &request["options"];
        assert_eq!((&options["temperature"], &options["num_thread"]), (&0.into(), &1.into()));
        assert_eq!(options["num_ctx"], asked[0]["options"]["num_ctx"], "another one would load it anew");
        let words: Vec<&str> = request["prompt"].as_str().expect("a prompt").split(' ').collect();
        assert!(beginnings.insert(words[0].to_owned()), "a beginning that it knows is not read again");
        if options["num_predict"] == 1 && request != &asked[0] {
            // A token and a half a word: 64 words give 96.
            assert!((60..=68).contains(&words.len()), "{}", words.len());
        }
    }
}

#[test]
fn when_it_stops_in_the_middle_what_was_measured_is_kept() {
    let sandbox = with_tiny();
    // To load, to warm up, twice; then no more.
    for manner in [Manner::Stops(5), Manner::Silent(5)] {
        let double = Double::new(manner);
        let args = ["-p", "0", "-g", "4", "-r", "5", "--against", "ollama:small:1b", "--export", "kept.json"];
        let (status, envelope) = sandbox::json(&mut double.cmd(&sandbox, &args));
        let error = &envelope["error"];
        assert_eq!((status, &error["code"]), (1, &"SERVER_CRASHED".into()), "{error}");
        let measured = &error["details"]["measured"];
        assert_eq!(result(measured, "ollama:small:1b", "tg4")["samples"], json!([100.0, 100.0]));
        assert_eq!(result(measured, "some/tiny", "tg4")["samples"].as_array().map(Vec::len), Some(3));
        let kept = std::fs::read_to_string(sandbox.home().join("kept.json")).expect("exported");
        let kept: Value = serde_json::from_str(&kept).expect("JSON");
        assert_eq!(&kept["data"]["results"], measured);
        assert_eq!(kept["data"]["peers"].as_array().map(Vec::len), Some(1));
    }
    let (_, history) = sandbox.json(&["bench", "--history", "tiny"]);
    let history = history["data"]["history"].as_array().expect("a list").clone();
    assert_eq!(history.len(), 2);
    assert_eq!(
        result(&history[0]["results"], "some/tiny", "tg4")["samples"].as_array().map(Vec::len),
        Some(3)
    );
}

#[test]
fn answers_that_end_soon_count_together() {
    let sandbox = with_tiny();
    let measured = |brief: u64, args: &[&str]| {
        let double = Double::new(Manner::Brief(brief));
        let args = [&["-p", "0", "-r", "1", "--warmup", "0", "--against", "ollama:small:1b"], args].concat();
        let outcome = finish(&mut double.cmd(&sandbox, &args));
        assert_eq!(outcome.status, 0, "{}{}", outcome.stdout, outcome.stderr);
        let data = envelope(&outcome.stdout)["data"].clone();
        let test = if args.contains(&"--depth") { "tg40@d9" } else { "tg40" };
        assert_eq!(result(&data["results"], "ollama:small:1b", test)["samples"], json!([100.0]));
        let asked = double.asked();
        let wanted = asked.iter().skip(1).map(|it| it["options"]["num_predict"].as_u64().expect("a number"));
        (wanted.collect::<Vec<_>>(), outcome.stderr.contains("its speed is that of fewer"))
    };
    assert_eq!(measured(15, &["-g", "40"]), (vec![40, 25, 10], false));
    assert_eq!(measured(1, &["-g", "40"]), ((25..=40).rev().collect(), true), "not without an end");
    // A filled cache is filled once.
    assert_eq!(measured(15, &["-g", "40", "--depth", "9"]), (vec![40], true));
}

#[test]
fn a_server_that_is_not_there_or_not_ollama_is_refused() {
    let sandbox = with_tiny();
    let refused = |host: &str, peer: &str| {
        let mut command = sandbox.cmd(&["bench", "tiny", "--json", "-p", "8", "-r", "1", "--against", peer]);
        let (status, envelope) = sandbox::json(command.env("OLLAMA_HOST", host));
        let error = envelope["error"].clone();
        let code = error["code"].as_str().expect("a code").to_owned();
        (status, code, error["message"].as_str().expect("a message").to_owned())
    };
    let free =
        TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").to_string();
    let (status, code, message) = refused(&free, "ollama:small:1b");
    assert_eq!((status, code.as_str()), (2, "INVALID_REQUEST"), "{message}");
    assert!(message.contains(&free), "{message}");

    let sound = Double::new(Manner::Sound);
    let (status, code, message) = refused(&sound.address, "ollama:other");
    assert_eq!((status, code.as_str()), (3, "MODEL_NOT_FOUND"));
    assert!(!message.contains('\u{1b}'), "{message}");
    assert!(sound.asked().is_empty(), "nothing was measured");

    for text in ["", "null", "<html>", "{\"version\": 7}", "[1]"] {
        let double = Double::new(Manner::Answers(text));
        assert_eq!(refused(&double.address, "ollama:small:1b").1, "INVALID_REQUEST", "{text}");
    }
    assert_eq!(refused("ftp://x", "ollama:small:1b").1, "INVALID_REQUEST");
    assert_eq!(refused("example.org", "ollama:small:1b").1, "OFFLINE");
}
