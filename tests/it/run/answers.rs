//! Answers and how they are printed.

use super::*;

#[test]
fn a_real_model_answers_on_stdout_and_nothing_else() {
    let home = Sandbox::new();
    let output = run(&home, &[&smollm2(), "What is the capital of France?", "--temp", "0"]);
    assert!(output.status.success(), "{output:?}");
    assert!(text(&output.stdout).contains("Paris"), "{}", text(&output.stdout));
    assert!(text(&output.stdout).ends_with('\n'));
    assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
}

#[test]
fn the_report_holds_the_same_answer_with_its_figures() {
    let home = Sandbox::new();
    let model = smollm2();
    let args = [&model, "What is the capital of France?", "--temp", "0"];
    let plain = run(&home, &args);
    let report = data(&run(&home, &[&args[..], &["--json"]].concat()));
    assert_eq!(report["text"].as_str().expect("a text").trim_end(), text(&plain.stdout).trim_end());
    assert_eq!(report["finish_reason"], "stop");
    assert_eq!(report["usage"]["cached_tokens"], 0);
    assert!(report["usage"]["prompt_tokens"].as_u64() > Some(10));
    assert!(report["usage"]["generated_tokens"].as_u64() > Some(3));
    for figure in ["load_s", "ttft_s", "prompt_tokens_per_s", "generation_tokens_per_s", "total_s"] {
        assert!(report["timings"][figure].as_f64() > Some(0.0), "{figure}: {report}");
    }
    assert!(report["timings"]["total_s"].as_f64() >= report["timings"]["ttft_s"].as_f64());
    assert!(report["memory"]["peak_bytes"].as_u64() > Some(50_000_000));
    assert!(report["sampling"]["seed"].is_u64());
}

#[test]
fn verbose_figures_are_on_stderr() {
    let home = Sandbox::new();
    let output = run(&home, &[&tiny(), "Hi", "--verbose", "-n", "4", "--seed", "7"]);
    let stderr = text(&output.stderr);
    for name in ["load", "prompt", "first token", "generation", "total", "peak memory", "seed"] {
        assert!(stderr.lines().any(|line| line.starts_with(name)), "{name} in {stderr}");
    }
    let silent = run(&home, &[&tiny(), "Hi", "-n", "4", "--seed", "7"]);
    assert_eq!(silent.stdout, output.stdout);
    assert!(silent.stderr.is_empty());
}

#[test]
fn events_come_line_by_line_and_the_envelope_last() {
    let home = Sandbox::new();
    let output = run(&home, &[&smollm2(), "Say hello.", "--stream-json", "--temp", "0", "-n", "12"]);
    assert!(output.status.success(), "{output:?}");
    let lines: Vec<Value> =
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let (last, events) = lines.split_last().expect("lines");
    for event in events {
        sandbox::assert_valid(event, "run-event");
    }
    sandbox::assert_valid(last, "run");
    let names: Vec<_> = events.iter().map(|event| event["event"].as_str().expect("a name")).collect();
    let place = |name: &str| names.iter().position(|found| *found == name).expect(name);
    assert!(place("load") < place("prompt"));
    assert!(place("prompt") < place("prefill"));
    assert!(place("prefill") < place("text"));
    assert_eq!(last["command"], "run");
    let pieces: String = events
        .iter()
        .filter(|event| event["event"] == "text")
        .filter_map(|event| event["text"].as_str())
        .collect();
    assert_eq!(last["data"]["text"], pieces);
    let prompt = &events[place("prompt")];
    assert_eq!(last["data"]["rendered_prompt"], prompt["text"]);
    assert_eq!(last["data"]["usage"]["prompt_tokens"], prompt["tokens"]);
}

#[test]
fn a_failure_after_events_is_the_last_line() {
    let home = Sandbox::new();
    let long = "word ".repeat(200);
    let output = run(&home, &[&tiny(), &long, "--stream-json"]);
    assert!(!output.status.success());
    let last = text(&output.stdout).lines().last().expect("a line");
    let last: Value = serde_json::from_str(last).expect("JSON");
    assert_eq!(last["status"], "error");
}

#[test]
fn greedy_answers_are_always_the_same() {
    let home = Sandbox::new();
    let model = smollm2();
    let answer = || data(&run(&home, &[&model, "Tell me a story.", "--temp", "0", "-n", "24", "--json"]));
    let first = answer();
    assert_eq!(first["text"], answer()["text"]);
    assert_eq!(first["finish_reason"], "length");
    assert_eq!(first["usage"]["generated_tokens"], 24);
}

#[test]
fn the_same_seed_gives_the_same_text_and_another_one_another() {
    let home = Sandbox::new();
    let model = smollm2();
    let answer = |seed: Option<u64>| {
        let seed = seed.map(|seed| seed.to_string());
        let mut args = vec![&*model, "Invent a name for a village.", "--temp", "1.5", "-n", "24", "--json"];
        if let Some(seed) = &seed {
            args.extend(["--seed", seed]);
        }
        data(&run(&home, &args))
    };
    let first = answer(Some(7));
    assert_eq!(first["text"], answer(Some(7))["text"]);
    assert_eq!(first["sampling"]["seed"], 7);
    assert_ne!(first["text"], answer(Some(8))["text"]);
    // A drawn seed is reported, and gives the same text again.
    let drawn = answer(None);
    assert_eq!(answer(drawn["sampling"]["seed"].as_u64())["text"], drawn["text"]);
}

#[test]
fn a_raw_prompt_is_given_to_the_model_as_it_is() {
    let home = Sandbox::new();
    let report = data(&run(
        &home,
        &[&smollm2(), "The capital of France is", "--raw", "--temp", "0", "-n", "4", "--json"],
    ));
    assert_eq!(report["rendered_prompt"], "The capital of France is");
    assert!(report["text"].as_str().expect("a text").contains("Paris"), "{report}");
}

#[test]
fn a_system_message_is_in_the_prompt() {
    let home = Sandbox::new();
    let report = data(&run(&home, &[&tiny(), "Hi", "--system", "Be brief.", "-n", "2", "--json"]));
    let rendered = report["rendered_prompt"].as_str().expect("a text");
    assert!(rendered.starts_with("<|im_start|>system\nBe brief.<|im_end|>"), "{rendered}");
    assert_eq!(report["prompt"], "Hi");
}

#[test]
fn a_stop_text_ends_the_answer_even_if_it_spans_tokens() {
    let home = Sandbox::new();
    let model = smollm2();
    let answer = |stops: &[&str]| {
        let mut args = vec![&*model, "1 2 3 4 5 6", "--raw", "--temp", "0", "-n", "48", "--json"];
        args.extend(stops.iter().flat_map(|stop| ["--stop", stop]));
        data(&run(&home, &args))
    };
    let whole = answer(&[])["text"].as_str().expect("a text").to_owned();
    assert!(whole.contains(" 9 10 11"), "{whole}");
    let stopped = answer(&["nothing", " 9 10 11"]);
    assert_eq!(stopped["text"].as_str().expect("a text"), &whole[..whole.find(" 9 10 11").expect("there")]);
    assert_eq!(stopped["finish_reason"], "stop");
    // The first character that a token holds need not be the first of the stop text.
    let stopped = answer(&["0 1"]);
    assert_eq!(stopped["text"].as_str().expect("a text"), &whole[..whole.find("0 1").expect("there")]);
}

#[test]
fn the_context_ends_an_answer_and_refuses_a_prompt_that_does_not_fit() {
    let home = Sandbox::new();
    let model = tiny();
    let report = data(&run(&home, &[&model, "Hi", "--json", "--temp", "0", "--context", "40"]));
    assert_eq!(report["finish_reason"], "length");
    let count = |name: &str| report["usage"][name].as_u64().expect("a number");
    assert_eq!(count("prompt_tokens") + count("generated_tokens"), 40);

    let long = "word ".repeat(200);
    let error = error(&run(&home, &[&model, &long, "--json"]), 2);
    assert_eq!(error["code"], "INVALID_REQUEST");
    assert!(error["message"].as_str().expect("a text").contains("256"), "{error}");
}

#[test]
fn a_prompt_of_megabytes_is_an_error_in_seconds() {
    let home = Sandbox::new();
    let long = "all work and no play makes jack a dull boy\n".repeat(50_000);
    let error = error(&run_with_input(&home, &[&tiny(), "--json"], long.as_bytes()), 2);
    assert_eq!(error["code"], "INVALID_REQUEST");
}

#[test]
fn a_use_is_written_down_with_the_model() {
    let home = Sandbox::new();
    add(&home, &tiny(), "test/model");
    let last_used = |home: &Sandbox| home.json(&["list"]).1["data"]["models"][0]["last_used"].clone();
    assert!(last_used(&home).is_null());
    data(&run(&home, &["test/model", "Hi", "-n", "2", "--json"]));
    assert!(last_used(&home).is_string());
}

#[test]
fn a_model_with_nothing_but_a_tiktoken_file_answers() {
    let home = Sandbox::new();
    let (from, to) = (PathBuf::from(tiny()), home.home().join("model"));
    std::fs::create_dir(&to).expect("a folder");
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(from.join(file), to.join(file)).expect("a copy");
    }
    // The single bytes, "the", and the rest as special tokens, as many as the model has.
    let ranks = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/tiktoken/ranks.tiktoken");
    let ranks = std::fs::read_to_string(ranks).expect("text");
    let mut lines: Vec<&str> = ranks.lines().take(256).collect();
    lines.push("dGhl 256");
    std::fs::write(to.join("tiktoken.model"), lines.join("\n")).expect("written");
    let config = r#"{"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": true, "bos_token": "<s>",
        "added_tokens_decoder": {"257": {"content": "<s>"}, "287": {"content": "</s>"}}}"#;
    std::fs::write(to.join("tokenizer_config.json"), config).expect("written");

    let model = to.to_str().expect("UTF-8");
    let (_, shown) = home.json(&["show", model]);
    assert_eq!(shown["data"]["runnable"], true, "{shown}");
    let report = data(&run(&home, &[model, "the the", "--raw", "-n", "3", "--temp", "0", "--json"]));
    // BOS, "the", and a space, t, h, e.
    assert_eq!(report["usage"]["prompt_tokens"], 6, "{report}");
    assert_eq!(report["usage"]["generated_tokens"], 3, "{report}");
}
