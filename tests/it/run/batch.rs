//! Many prompts in one run: each answer is the one that its prompt has alone.

use std::io::{BufRead, BufReader};

use serde_json::json;

use super::*;

/// Prompts of different lengths, with answers of different lengths.
const PROMPTS: [(&str, usize); 5] = [
    ("the cat is in the rain. the cat is in", 12),
    ("a", 30),
    ("Once upon a time there was a village by the sea, and in the village", 5),
    ("one two three", 1),
    ("the rain in the village", 21),
];

fn fixture(name: &str) -> String {
    tiny().replace("llama_tied", name)
}

/// A file with these lines.
fn file(home: &Sandbox, lines: &[Value]) -> String {
    let path = home.home().join("prompts.jsonl");
    let lines: Vec<String> = lines.iter().map(ToString::to_string).collect();
    std::fs::write(&path, lines.join("\n")).expect("written");
    path.to_str().expect("UTF-8").to_owned()
}

fn lines() -> Vec<Value> {
    PROMPTS.iter().map(|(prompt, most)| json!({"prompt": prompt, "max_tokens": most})).collect()
}

fn results(stdout: &[u8]) -> Vec<Value> {
    let results = text(stdout).lines().map(|line| serde_json::from_str(line).expect(line));
    results.inspect(|result| sandbox::assert_valid(result, "run-batch-result")).collect()
}

fn batch(home: &Sandbox, model: &str, file: &str, args: &[&str]) -> Vec<Value> {
    let output = run(home, &[&[model, "--batch", file], args].concat());
    assert!(output.status.success(), "{output:?}");
    results(&output.stdout)
}

#[test]
fn answers_are_those_of_each_prompt_alone_whatever_the_batch_size() {
    let home = Sandbox::new();
    let file = file(&home, &lines());
    let models = ["llama_tied", "mistral_window", "quant_mixed"].map(fixture);
    for model in models {
        for sampling in [
            &["--temp", "0"][..],
            &["--temp", "1", "--seed", "4"],
            &["--temp", "0", "--kv-bits", "16"],
            &["--temp", "0", "--kv-bits", "8", "--kv-group-size", "32"],
        ] {
            if sampling.contains(&"8") && !model.ends_with("quant_mixed") {
                continue;
            }
            let args = [&["--raw", "--batch-size"][..], &["5"], sampling].concat();
            let together = batch(&home, &model, &file, &args);
            let by_two = [&["--raw", "--batch-size"][..], &["2"], sampling].concat();
            assert_eq!(
                texts(&batch(&home, &model, &file, &by_two)),
                texts(&together),
                "{model} {sampling:?}"
            );
            for (result, (prompt, most)) in together.iter().zip(PROMPTS) {
                let (seed, most) = (result["seed"].to_string(), most.to_string());
                let alone =
                    [&[&*model, prompt, "--raw", "--json", "-n", &most][..], sampling, &["--seed", &seed]];
                let mut alone = alone.concat();
                if sampling.contains(&"--seed") {
                    alone.drain(alone.len() - 4..alone.len() - 2);
                }
                let alone = data(&run(&home, &alone));
                assert_eq!(result["text"], alone["text"], "{model} {sampling:?} {prompt}");
                assert_eq!(result["finish_reason"], alone["finish_reason"]);
                assert_eq!(result["usage"], alone["usage"]);
            }
        }
    }
}

fn texts(results: &[Value]) -> Vec<&Value> {
    results.iter().map(|result| &result["text"]).collect()
}

#[test]
fn results_come_in_the_order_of_the_lines_with_their_names() {
    let home = Sandbox::new();
    let file = file(
        &home,
        &[
            json!({"id": "long", "prompt": "a", "max_tokens": 40}),
            json!({"id": 7, "prompt": "b", "max_tokens": 1}),
            json!({"messages": [{"role": "user", "content": "c"}], "max_tokens": 2, "seed": 99}),
        ],
    );
    let args = ["--temp", "0", "--seed", "1"];
    let found = batch(&home, &tiny(), &file, &args);
    let names: Vec<_> =
        found.iter().map(|it| (it["line"].clone(), it["id"].clone(), it["seed"].clone())).collect();
    assert_eq!(
        names,
        [
            (json!(1), json!("long"), json!(1)),
            (json!(2), json!(7), json!(2)),
            (json!(3), Value::Null, json!(99))
        ]
    );
    let unordered = batch(&home, &tiny(), &file, &[&args[..], &["--unordered"]].concat());
    assert_eq!(unordered.last().expect("three")["id"], "long", "it ends last");
    let mut sorted = unordered;
    sorted.sort_by_key(|result| result["line"].as_u64());
    assert_eq!(sorted, found);

    let report = data(&run(&home, &[&tiny(), "--batch", &file, "--json", "--temp", "0", "--seed", "1"]));
    assert_eq!((&report["results"], &report["count"]), (&Value::Array(found), &json!(3)));
    assert_eq!(report["generated_tokens"], 43);
    assert!(report["total_s"].as_f64() > Some(0.0) && report["memory"]["peak_bytes"].as_u64() > Some(0));
}

#[test]
fn a_line_that_is_no_prompt_ends_a_file_before_and_a_pipe_behind_the_others() {
    let home = Sandbox::new();
    let content =
        "{\"prompt\": \"a\", \"max_tokens\": 2}\n\n{\"prompt\": \"b\", \"tempo\": 2}\n{\"prompt\": \"c\"}\n";
    let path = home.home().join("prompts.jsonl");
    std::fs::write(&path, content).expect("written");
    let output = run(&home, &[&tiny(), "--batch", "prompts.jsonl"]);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(2), ""), "{output:?}");
    assert!(
        text(&output.stderr).contains("prompts.jsonl: line 3: there is no parameter 'tempo'"),
        "{output:?}"
    );
    let error = error(&run(&home, &[&tiny(), "--batch", "prompts.jsonl", "--json"]), 2);
    assert_eq!((&error["code"], &error["details"]["line"]), (&json!("INVALID_REQUEST"), &json!(3)));

    let output = run_with_input(&home, &[&tiny(), "--batch", "-"], content.as_bytes());
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(results(&output.stdout).len(), 1, "{output:?}");
    assert!(text(&output.stderr).contains("standard input: line 3"), "{output:?}");
    for (input, told) in [("", "no prompt in -"), ("\n \n", "no prompt in -"), ("\u{0}", "line 1 is no JSON")]
    {
        let output = run_with_input(&home, &[&tiny(), "--batch", "-"], input.as_bytes());
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).contains(told), "{output:?}");
    }
}

#[test]
fn a_prompt_that_cannot_be_answered_leaves_the_others() {
    let home = Sandbox::new();
    let long = "word ".repeat(400);
    let file = file(
        &home,
        &[
            json!({"prompt": "a", "max_tokens": 3}),
            json!({"id": "long", "prompt": long}),
            json!({"prompt": "b", "max_tokens": 3}),
        ],
    );
    let output = run(&home, &[&tiny(), "--batch", &file, "--temp", "0"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let found = results(&output.stdout);
    assert!(found[0]["text"].is_string() && found[2]["text"].is_string() && found[1]["text"].is_null());
    let error = &found[1]["error"];
    assert_eq!((&found[1]["id"], &error["code"]), (&json!("long"), &json!("INVALID_REQUEST")));
    assert!(error["message"].as_str().expect("a text").contains("leaves no room"), "{error}");
    assert!(text(&output.stderr).contains("1 of 3 prompts were not answered"), "{output:?}");
}

#[test]
fn answers_have_their_format_and_end_before_stop_texts() {
    let home = Sandbox::new();
    let path = home.home().join("schema.json");
    let schema = r#"{"type": "array", "items": {"enum": ["red", "blue"]}, "minItems": 2, "maxItems": 9}"#;
    std::fs::write(&path, schema).expect("written");
    let prompts: Vec<Value> = (0..6).map(|number| json!({"prompt": format!("colours {number}")})).collect();
    let input = file(&home, &prompts);
    let args =
        ["--format", path.to_str().expect("UTF-8"), "--temp", "1.5", "--seed", "3", "--batch-size", "4"];
    for result in batch(&home, &tiny(), &input, &args) {
        let colours: Vec<String> =
            serde_json::from_str(result["text"].as_str().expect("a text")).expect("valid JSON");
        assert!((2..=9).contains(&colours.len()), "{result}");
    }
    let plain = batch(&home, &tiny(), &file(&home, &lines()), &["--raw", "--temp", "0"]);
    let answer = plain[1]["text"].as_str().expect("a text").to_owned();
    let stop: String = answer.chars().skip(5).take(2).collect();
    let input = file(&home, &[json!({"prompt": PROMPTS[1].0, "stop": [stop], "max_tokens": 30})]);
    let stopped = batch(&home, &tiny(), &input, &["--raw", "--temp", "0"]);
    assert_eq!(stopped[0]["finish_reason"], "stop");
    assert_eq!(stopped[0]["text"].as_str(), answer.split(&stop).next());
}

#[test]
fn a_pipe_that_stays_open_has_its_answers_meanwhile() {
    let home = Sandbox::new();
    let mut command = command(&home, &[&tiny(), "--batch", "-", "-n", "3"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut input = child.stdin.take().expect("a pipe");
    let mut output = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    // More than are ever held at once.
    for number in 0..300 {
        writeln!(input, "{{\"id\": {number}, \"prompt\": \"a\"}}").expect("it reads");
        if number % 50 == 0 {
            let line = output.next().expect("a line").expect("a result");
            let result: Value = serde_json::from_str(&line).expect("JSON");
            assert_eq!(result["id"], number / 50);
        }
    }
    drop(input);
    assert_eq!(output.count(), 294);
    assert!(child.wait().expect("it ends").success());
}

#[test]
fn ctrl_c_ends_a_batch_that_waits_for_its_input_with_130() {
    let home = Sandbox::new();
    let mut command = command(&home, &[&tiny(), "--batch", "-", "-n", "3"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut input = child.stdin.take().expect("a pipe");
    let mut output = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    writeln!(input, "{}", json!({"prompt": "a"})).expect("it reads");
    assert!(output.next().expect("a line").expect("a result").contains("\"line\":1"));
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT)
        .expect("a signal");
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
    assert_eq!(output.count(), 0);
}

#[test]
fn what_makes_no_sense_with_a_batch_is_refused() {
    let home = Sandbox::new();
    let file = file(&home, &lines());
    let model = tiny();
    for args in [
        &["Hi", "--batch", &file][..],
        &["--batch", &file, "--stream-json"],
        &["--batch", &file, "--prompt-cache", "x"],
        &["--batch", &file, "--draft", "lookup"],
        &["--batch", &file, "--draft-model", "x"],
        &["--batch", &file, "--samples", "2"],
        &["--batch", &file, "--batch-size", "0"],
        &["--batch-size", "2", "Hi"],
        &["--unordered", "Hi"],
        &["--batch", "."],
    ] {
        let output = run(&home, &[&[&*model], args, &["--json"]].concat());
        assert_eq!(error(&output, 2)["code"], "INVALID_REQUEST", "{args:?}");
    }
    let missing = error(&run(&home, &[&model, "--batch", "nothing.jsonl", "--json"]), 3);
    assert_eq!(missing["code"], "FILE_NOT_FOUND");
}
