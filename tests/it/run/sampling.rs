//! Sampling, as flags and figures show it.

use super::*;

const STORY: [&str; 4] = ["Tell me about a village.", "--raw", "-n", "12"];

fn greedy(home: &Sandbox, args: &[&str]) -> Value {
    let model = tiny();
    data(&run(home, &[&[model.as_str()], &STORY[..], &["--temp", "0", "--json"], args].concat()))
}

fn answer(home: &Sandbox, args: &[&str]) -> Value {
    let model = tiny();
    data(&run(home, &[&[model.as_str()], &STORY[..], &["--temp", "1.2", "--json"], args].concat()))
}

#[test]
fn every_sampler_changes_the_text_and_none_of_them_the_repeatability() {
    let home = Sandbox::new();
    let uncut = ["--seed", "3", "--top-p", "1", "--min-p", "0"];
    let plain = answer(&home, &[&uncut[..], &["--top-k", "0"]].concat());
    for flags in [
        &["--top-k", "2"][..],
        &["--top-k", "0", "--typical-p", "0.2"],
        &["--top-k", "0", "--xtc-probability", "1", "--xtc-threshold", "0.001"],
        &["--top-k", "0", "--mirostat-tau", "1.5"],
        &["--top-k", "0", "--presence-penalty", "40"],
        &["--top-k", "0", "--frequency-penalty", "-60"],
        &["--top-k", "0", "--repetition-penalty", "8"],
    ] {
        let all = [&uncut[..], flags].concat();
        let first = answer(&home, &all);
        assert_ne!(first["text"], plain["text"], "{flags:?}");
        assert_eq!(first["text"], answer(&home, &all)["text"], "{flags:?}");
    }
}

#[test]
fn a_bias_forces_forbids_and_names_tokens_by_id_or_text() {
    let home = Sandbox::new();
    let x = answer(&home, &["--logit-bias", "x=1000", "--logprobs"]);
    assert_eq!(x["text"], "x".repeat(12));
    assert_eq!(x["sampling"]["logit_bias"][0]["token"], "x");
    let id = x["logprobs"][0]["id"].as_u64().expect("an id");
    let by_id = answer(&home, &["--logit-bias", &format!("{id}=1000")]);
    assert_eq!(by_id["text"], x["text"]);
    let likeliest = greedy(&home, &["--logprobs"]);
    let first = likeliest["logprobs"][0]["id"].as_u64().expect("an id");
    let other = greedy(&home, &["--logit-bias", &format!("{first}=never"), "--logprobs"]);
    let ids = other["logprobs"].as_array().expect("tokens").iter().map(|token| token["id"].as_u64());
    assert!(ids.into_iter().all(|id| id != Some(first)), "{other}");

    for (bias, told) in [("several words=1", "tokens"), ("99999=1", "99999"), ("x=high", "logit bias")] {
        let model = tiny();
        let error = error(&run(&home, &[&model, "Hi", "--json", "--logit-bias", bias]), 2);
        assert_eq!(error["code"], "INVALID_REQUEST");
        assert!(error["message"].as_str().expect("a text").contains(told), "{error}");
        assert!(error["hint"].is_string(), "{error}");
    }
}

#[test]
fn log_probabilities_are_told_for_every_token_and_do_not_change_the_answer() {
    let home = Sandbox::new();
    let model = smollm2();
    let args = [&model, "The capital of France is", "--raw", "--temp", "0", "-n", "4"];
    let plain = data(&run(&home, &[&args[..], &["--json"]].concat()));
    let told = data(&run(&home, &[&args[..], &["--json", "--logprobs=3"]].concat()));
    assert_eq!(told["text"], plain["text"]);
    assert_eq!(plain["logprobs"].as_array().map(Vec::len), Some(0));
    let tokens = told["logprobs"].as_array().expect("tokens");
    assert_eq!(tokens.len() as u64, told["usage"]["generated_tokens"].as_u64().expect("a count"));
    let texts: String = tokens.iter().filter_map(|token| token["text"].as_str()).collect();
    assert_eq!(texts, told["text"].as_str().expect("a text"));
    for token in tokens {
        let alternatives = token["alternatives"].as_array().expect("alternatives");
        assert_eq!(alternatives.len(), 3);
        // At temperature 0 the token is the likeliest one.
        assert_eq!(alternatives[0]["id"], token["id"]);
        assert_eq!(alternatives[0]["logprob"], token["logprob"]);
        let shares: Vec<f64> =
            alternatives.iter().map(|it| it["logprob"].as_f64().expect("a number").exp()).collect();
        assert!(shares[0] >= shares[1] && shares[1] >= shares[2] && shares.iter().sum::<f64>() <= 1.0);
    }
    let table = run(&home, &[&args[..], &["--logprobs=2"]].concat());
    assert!(text(&table.stdout).contains("LOGPROB"), "{}", text(&table.stdout));
}

#[test]
fn several_samples_share_the_prompt_and_are_those_of_their_seeds() {
    let home = Sandbox::new();
    let three = answer(&home, &["--seed", "7", "--samples", "3"]);
    let others = three["others"].as_array().expect("answers");
    assert_eq!(others.len(), 2);
    assert_eq!(three["text"], answer(&home, &["--seed", "7"])["text"]);
    for (other, seed) in others.iter().zip([8, 9]) {
        assert_eq!(other["seed"], seed);
        // Nothing of the prompt is computed again.
        assert_eq!(other["usage"]["cached_tokens"], other["usage"]["prompt_tokens"]);
        assert_eq!(other["text"], answer(&home, &["--seed", &seed.to_string()])["text"]);
    }
    assert_ne!(others[0]["text"], others[1]["text"]);

    let model = tiny();
    let plain = run(
        &home,
        &[&[model.as_str()], &STORY[..], &["--temp", "1.2", "--seed", "7", "--samples", "2"]].concat(),
    );
    let shown = text(&plain.stdout);
    assert!(shown.starts_with("[1 of 2, seed 7]\n") && shown.contains("\n[2 of 2, seed 8]\n"), "{shown}");
    let events = run(
        &home,
        &[
            &[model.as_str()],
            &STORY[..],
            &["--temp", "1.2", "--seed", "7", "--samples", "2", "--stream-json"],
        ]
        .concat(),
    );
    let lines: Vec<Value> =
        text(&events.stdout).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let (last, lines) = lines.split_last().expect("lines");
    sandbox::assert_valid(last, "run");
    let begun: Vec<_> = lines.iter().filter(|event| event["event"] == "sample").collect();
    assert_eq!(begun.len(), 2);
    for event in lines {
        sandbox::assert_valid(event, "run-event");
    }
    assert_eq!(begun[1]["seed"], 8);
}

#[test]
fn several_samples_need_a_prompt() {
    let home = Sandbox::new();
    for count in ["0", "-1", "1001", "two"] {
        let error = error(&run(&home, &[&tiny(), "Hi", "--json", "--samples", count]), 2);
        assert_eq!(error["code"], "INVALID_REQUEST", "{count}");
    }
}
