//! Texts as they come, and those that cannot be taken.

use super::{embed, pipe, refused, rows, vectors};
use crate::sandbox::{Sandbox, finish, minilm};
use serde_json::Value;

fn lines(stdout: &str) -> Vec<Value> {
    stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn texts_are_the_same_wherever_they_come_from() {
    let sandbox = Sandbox::new();
    let expected = vectors(&sandbox, &["the cat", "a dog"]);
    let json = |stdout: &str| rows(&serde_json::from_str(stdout).expect("JSON"));
    assert_eq!(json(&embed(&sandbox, &["the cat", "a dog"]).stdout), expected);
    assert_eq!(json(&pipe(&sandbox, &[], b"the cat\r\na dog").stdout), expected);
    assert_eq!(json(&pipe(&sandbox, &["-"], b"the cat\na dog\n").stdout), expected);
    assert_eq!(json(&pipe(&sandbox, &["-0"], b"the cat\0a dog").stdout), expected);
    for (name, content, args) in [
        ("a.txt", "\u{feff}the cat\na dog\n", &[][..]),
        ("a.jsonl", "{\"text\":\"the cat\"}\n\n\"a dog\"\n", &[]),
        ("b.ndjson", "{\"a\":{\"b\":[1,\"the cat\"]}}\n{\"a\":{\"b\":[1,\"a dog\"]}}", &["--field", "a.b.1"]),
        ("a.csv", "id,text\n1,the cat\n2,\"a dog\"\n", &[]),
        ("a.tsv", "body\tid\nthe cat\t1\na dog\t2\n", &["--column", "body"]),
    ] {
        std::fs::write(sandbox.home().join(name), content).expect("input");
        let args: Vec<&str> = ["--input", name].iter().chain(args).copied().collect();
        assert_eq!(vectors(&sandbox, &args), expected, "{name}");
    }
    let piped = pipe(&sandbox, &["--input-format", "csv"], b"text\nthe cat\na dog\n");
    assert_eq!(json(&piped.stdout), expected);
}

#[test]
fn json_lines_repeat_what_came_with_the_text() {
    let sandbox = Sandbox::new();
    let input = br#"{"id":12345678901234567890123,"text":"the cat"}"#;
    let outcome = pipe(&sandbox, &["--input-format", "jsonl", "--format", "jsonl"], input);
    assert!(outcome.stdout.starts_with(r#"{"id":12345678901234567890123,"text":"the cat","embedding":["#));
    let input = b"id,text\n7,the cat\n";
    let found = lines(
        &pipe(&sandbox, &["--input-format", "csv", "-f", "jsonl", "--output-field", "v"], input).stdout,
    );
    assert_eq!((&found[0]["id"], &found[0]["text"]), (&Value::from("7"), &Value::from("the cat")));
    assert_eq!(rows(&Value::from(vec![found[0]["v"].clone()])), vectors(&sandbox, &["the cat"]));
    let plain = lines(&embed(&sandbox, &["the cat", "--format", "jsonl"]).stdout);
    assert_eq!(plain[0]["text"], "the cat");
}

#[test]
fn empty_texts_are_kept_or_left_out() {
    let sandbox = Sandbox::new();
    let all = pipe(&sandbox, &["--format", "csv"], b"the cat\n\n \na dog\n").stdout;
    assert_eq!(all.lines().count(), 4);
    let some = pipe(&sandbox, &["--format", "csv", "--empty", "skip"], b"the cat\n\n \na dog\n").stdout;
    let kept: Vec<&str> =
        all.lines().enumerate().filter(|row| row.0 == 0 || row.0 == 3).map(|row| row.1).collect();
    assert_eq!(some.lines().collect::<Vec<_>>(), kept);
    assert_eq!(pipe(&sandbox, &[], b"").stdout, "[]\n", "no text has no vectors");
}

#[test]
fn a_text_that_cannot_be_taken_is_named_by_its_line() {
    let sandbox = Sandbox::new();
    let failed = "EMBEDDING_FAILED";
    let error = refused(&sandbox, &[], b"fine\nbro\xffken\n", failed, "line 2 is not UTF-8");
    assert_eq!(error["details"]["line"], 2);
    let long = format!("fine\n{}\n", "cat ".repeat(100));
    let error = refused(
        &sandbox,
        &["--truncate", "none"],
        long.as_bytes(),
        failed,
        "line 2: the text has 102 tokens",
    );
    assert_eq!((&error["details"]["tokens"], &error["details"]["max_tokens"]), (&102.into(), &48.into()));
    let jsonl = ["--input-format", "jsonl"];
    refused(&sandbox, &jsonl, b"{\"text\":\"a\"}\n{\"text\":", failed, "line 2 is not JSON");
    refused(&sandbox, &jsonl, b"{\"text\":[]}", failed, "line 1 has a list in the field text");
    refused(&sandbox, &jsonl, b"{\"body\":\"a\"}", failed, "line 1 has no field text");
    let csv = ["--input-format", "csv"];
    refused(&sandbox, &csv, b"id,text\n1,a\n2\n", failed, "line 3 has 1 values for 2 columns");
    refused(&sandbox, &csv, b"id,body\n1,a\n", "INVALID_REQUEST", "no column 'text'");
    let run = format!("fine\n{}\n", "x".repeat(200_001));
    refused(&sandbox, &[], run.as_bytes(), "INVALID_REQUEST", "line 2: the text has more than");
    std::fs::write(sandbox.home().join("a.txt"), b"\xff").expect("input");
    refused(&sandbox, &["--input", "a.txt"], b"", failed, "a.txt: line 1 is not UTF-8");
    refused(&sandbox, &["--input", "absent.txt"], b"", "FILE_NOT_FOUND", "absent.txt");
    refused(&sandbox, &["--input", "."], b"", "INVALID_REQUEST", "folder");

    let replaced = pipe(&sandbox, &["--invalid", "replace", "-f", "jsonl"], b"bro\xffken\n");
    assert_eq!(lines(&replaced.stdout)[0]["text"], "bro\u{fffd}ken");
}

#[test]
fn texts_that_are_too_long_keep_the_part_that_is_wanted() {
    let sandbox = Sandbox::new();
    let (head, tail) = ("the cat ".repeat(30), "a dog ".repeat(30));
    let both = format!("{head}{tail}");
    let cut = |part: &str, text: &str| vectors(&sandbox, &["--truncate", part, "--max-length", "22", text]);
    assert_eq!(cut("head", &both), cut("head", &head));
    assert_eq!(cut("tail", &both), cut("tail", &tail));
    let (_, envelope) = sandbox.json(&["embed", &super::model(), "--max-length", "22", &both, "cat"]);
    assert_eq!(envelope["data"]["usage"]["truncated"], 1);
    assert_eq!(envelope["data"]["usage"]["tokens"], 22 + 3);
}

#[test]
fn flags_that_contradict_each_other_are_refused() {
    let sandbox = Sandbox::new();
    let wrong = "INVALID_REQUEST";
    for (args, what) in [
        (&["-", "a"][..], "beside other texts"),
        (&["a", "--null"], "for files and standard input"),
        (&["--field", "a"], "--field is for JSON lines"),
        (&["--input-format", "jsonl", "--column", "a"], "--column is for CSV"),
        (&["a", "--format", "npy"], "--json prints vectors"),
        (&["a", "--similarity", "--output", "x.npy"], "comparing"),
        (&["a", "--format", "f32", "--dtype", "int8", "--output", "x"], "nothing but float32"),
        (&["a", "--dimensions", "0"], "0 dimensions"),
        (&["a", "--dimensions", "33"], "more than the 32"),
        (&["a", "--max-length", "2"], "no room"),
        (&["a", "--max-length", "99"], "more than the 72"),
        (&["a", "--batch-size", "0"], "batches of 0"),
        (&["a", "--prompt", "nonsense"], "no prompt called 'nonsense'"),
        (&["a", "--similarity=pairs"], "1 texts do not make pairs"),
    ] {
        refused(&sandbox, args, b"", wrong, what);
    }
    assert_eq!(embed(&sandbox, &["a", "--pooling", "median"]).status, 2);
    let warned = finish(sandbox.cmd(&["embed"]).arg(minilm()).args(["a", "--prompt", "query"]));
    assert!(warned.status == 0 && warned.stderr.contains("no prompt for query"), "{}", warned.stderr);
}
