//! Tokens guessed in advance: the answer is the one without them.

use super::*;

const LISTED: &str = "the cat is in the rain. the cat is in the rain. the cat is";

fn fixture(name: &str) -> String {
    tiny().replace("llama_tied", name)
}

fn answer(home: &Sandbox, model: &str, args: &[&str]) -> Value {
    data(&run(home, &[&[model, LISTED, "--raw", "-n", "40", "--json"], args].concat()))
}

#[test]
fn drafts_change_no_answer_at_any_temperature() {
    let home = Sandbox::new();
    let (lookup, other) = (["--draft", "lookup"], fixture("llama_untied"));
    let by_model = ["--draft-model", other.as_str(), "--draft-tokens", "3"];
    for model in [tiny(), fixture("mistral_window"), fixture("quant_mixed")] {
        for sampling in [
            &["--temp", "0"][..],
            &["--temp", "1", "--seed", "4"],
            &["--temp", "0", "--kv-bits", "16", "--logprobs=2"],
        ] {
            let plain = answer(&home, &model, sampling);
            for draft in [&lookup[..], &by_model] {
                let drafted = answer(&home, &model, &[sampling, draft].concat());
                assert_eq!(drafted["text"], plain["text"], "{model} {sampling:?} {draft:?}");
                assert_eq!(drafted["finish_reason"], plain["finish_reason"]);
                assert_eq!(
                    drafted["logprobs"].as_array().map(Vec::len),
                    plain["logprobs"].as_array().map(Vec::len)
                );
            }
        }
    }
}

#[test]
fn a_model_accepts_all_that_it_drafts_itself() {
    let home = Sandbox::new();
    let model = tiny();
    let report = answer(&home, &model, &["--temp", "0", "--draft-model", &model, "--draft-tokens", "5"]);
    assert_eq!(report["text"], answer(&home, &model, &["--temp", "0"])["text"]);
    let count = |name: &str| report["usage"][name].as_u64().expect("a count");
    assert!(count("drafted_tokens") > 20, "{report}");
    assert_eq!(count("accepted_tokens"), count("drafted_tokens"));

    let shown =
        run(&home, &[&model, LISTED, "--raw", "-n", "8", "--temp", "0", "--draft-model", &model, "-v"]);
    assert!(text(&shown.stderr).contains("drafts") && text(&shown.stderr).contains("accepted (100 %)"));
}

#[test]
fn drafts_go_with_formats_and_limits() {
    let home = Sandbox::new();
    let model = tiny();
    let path = home.home().join("schema.json");
    let schema = r#"{"type": "array", "items": {"enum": ["red", "blue"]}, "minItems": 6, "maxItems": 9}"#;
    std::fs::write(&path, schema).expect("written");
    let format = ["--format", path.to_str().expect("UTF-8"), "--temp", "1", "--seed", "9"];
    let plain = answer(&home, &model, &format);
    let drafted = answer(&home, &model, &[&format[..], &["--draft", "lookup"]].concat());
    assert_eq!(drafted["text"], plain["text"]);
    for limit in ["1", "2", "3", "5"] {
        let args = [&model, LISTED, "--raw", "--temp", "0", "--json", "-n", limit, "--draft", "lookup"];
        let report = data(&run(&home, &args));
        assert_eq!(report["usage"]["generated_tokens"].to_string(), limit);
    }
}

#[test]
fn samples_and_prompts_after_a_draft_are_right() {
    let home = Sandbox::new();
    let model = tiny();
    let plain = answer(&home, &model, &["--temp", "1", "--seed", "2", "--samples", "3"]);
    let drafted =
        answer(&home, &model, &["--temp", "1", "--seed", "2", "--samples", "3", "--draft", "lookup"]);
    for place in 0..2 {
        assert_eq!(drafted["others"][place]["text"], plain["others"][place]["text"]);
    }
}

#[test]
fn a_draft_model_with_other_tokens_is_refused() {
    let home = Sandbox::new();
    let model = tiny();
    let error = error(&run(&home, &[&model, "Hi", "--json", "--draft-model", &smollm2()]), 2);
    assert_eq!(error["code"], "INVALID_REQUEST");
    assert!(error["message"].as_str().expect("a text").contains("other tokens"), "{error}");
}
