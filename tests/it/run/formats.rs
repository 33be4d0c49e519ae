//! Answers that are held to a format.

use std::fs;

use super::*;

/// A schema in a file; its path.
fn schema(home: &Sandbox, name: &str, content: &str) -> String {
    let path = home.home().join(name);
    fs::write(&path, content).expect("written");
    path.to_str().expect("UTF-8").to_owned()
}

const PERSON: &str = r##"{
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "age": {"type": "integer", "minimum": 0, "maximum": 130},
        "tags": {"type": "array", "items": {"enum": ["a", "b\"é", 3, null]}, "minItems": 1, "maxItems": 3},
        "shape": {"anyOf": [{"type": "boolean"}, {"$ref": "#/$defs/point"}]}
    },
    "required": ["name", "age", "tags", "shape"],
    "additionalProperties": false,
    "$defs": {"point": {"type": "array", "items": {"type": "number", "minimum": 0, "maximum": 9.5, "multipleOf": 0.5}, "minItems": 2, "maxItems": 2}}
}"##;

fn validator(schema: &str) -> jsonschema::Validator {
    jsonschema::validator_for(&serde_json::from_str(schema).expect("JSON")).expect("a schema")
}

#[test]
fn two_hundred_answers_at_a_high_temperature_are_all_valid() {
    let home = Sandbox::new();
    let (model, file, is_valid) = (tiny(), schema(&home, "person.json", PERSON), validator(PERSON));
    let uncut = ["--top-k", "0", "--top-p", "1", "--min-p", "0", "--temp", "1.5"];
    let args = [&model, "x", "--raw", "--format", &file, "--json", "--samples", "200", "--seed", "1"];
    let report = data(&run(&home, &[&args[..], &uncut].concat()));
    let others = report["others"].as_array().expect("answers");
    assert_eq!(others.len(), 199);
    let mut different = std::collections::BTreeSet::new();
    for answer in others.iter().chain([&report]) {
        let text = answer["text"].as_str().expect("a text");
        let value: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        assert!(is_valid.is_valid(&value), "{text}");
        assert_eq!(answer["finish_reason"], "stop");
        different.insert(text.to_owned());
    }
    assert!(different.len() > 190, "{}", different.len());
}

#[test]
fn what_the_schema_leaves_no_choice_about_is_written_without_asking_the_model() {
    let home = Sandbox::new();
    let model = tiny();
    let file = schema(&home, "fixed.json", r#"{"const": {"the cat": "is not on", "n": [1, 2.5, null]}}"#);
    let args = [&model, "x", "--raw", "--format", &file, "--json", "--logprobs"];
    let report = data(&run(&home, &args));
    assert_eq!(report["text"], r#"{"the cat": "is not on", "n": [1, 2.5, null]}"#);
    let tokens = report["logprobs"].as_array().expect("tokens");
    assert_eq!(tokens.len() as u64, report["usage"]["generated_tokens"].as_u64().expect("a count"));
    let given = tokens.iter().filter(|token| token["logprob"] == 0.0).count();
    assert!(given * 10 >= tokens.len() * 9, "{given} of {}", tokens.len());
    // And as the tokenizer would write it: " is" is one token of the vocabulary.
    assert!(tokens.iter().any(|token| token["text"] == " not" || token["text"] == "not"), "{report}");
}

#[test]
fn json_is_an_object_or_an_array() {
    let home = Sandbox::new();
    let model = tiny();
    let mut whole = 0;
    for seed in ["1", "2", "3", "4", "5", "6"] {
        let args = [
            &*model,
            "x",
            "--raw",
            "--format",
            "json",
            "--json",
            "--seed",
            seed,
            "--temp",
            "1.5",
            "--logit-bias",
            "]=3",
            "--logit-bias",
            "}=3",
            "--logit-bias",
            "\"\\\"\"=3",
        ];
        let output = run(&home, &args);
        if output.status.success() {
            let text = data(&output)["text"].as_str().expect("a text").to_owned();
            let value: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
            assert!(value.is_object() || value.is_array(), "{text}");
            whole += 1;
        } else {
            assert!(error(&output, 2)["message"].as_str().expect("a text").contains("not whole"));
        }
    }
    assert!(whole >= 3, "{whole} of 6");
}

#[test]
fn an_answer_that_could_not_be_ended_is_an_error_with_what_there_is() {
    let home = Sandbox::new();
    let file = schema(&home, "person.json", PERSON);
    let error = error(&run(&home, &[&tiny(), "Hi", "--format", &file, "--json", "-n", "7"]), 2);
    assert_eq!(error["code"], "INVALID_REQUEST");
    assert!(error["message"].as_str().expect("a text").contains("not whole"), "{error}");
    assert!(error["details"]["text"].as_str().expect("a text").starts_with("{\"name\""), "{error}");
    assert!(error["hint"].as_str().expect("a hint").contains("--max-tokens"));
}

#[test]
fn the_same_seed_gives_the_same_text_and_the_format_ends_the_turn() {
    let home = Sandbox::new();
    let file =
        schema(&home, "list.json", r#"{"type": "array", "items": {"enum": ["red", "blue"]}, "maxItems": 2}"#);
    let model = tiny();
    let answer = |seed: &str| data(&run(&home, &[&model, "Hi", "--format", &file, "--seed", seed, "--json"]));
    let first = answer("5");
    assert_eq!(first["text"], answer("5")["text"]);
    assert_eq!(first["finish_reason"], "stop");
    let plain = run(&home, &[&model, "Hi", "--format", &file, "--seed", "5"]);
    assert_eq!(text(&plain.stdout).trim_end(), first["text"].as_str().expect("a text"));
}

#[test]
fn a_real_model_fills_a_schema_in() {
    let home = Sandbox::new();
    let source = r#"{"type": "object", "properties": {"capital": {"type": "string", "maxLength": 20}},
                     "required": ["capital"], "additionalProperties": false}"#;
    let file = schema(&home, "capital.json", source);
    let model = smollm2();
    let args = [&model, "What is the capital of France?", "--format", &file, "--temp", "0", "--json"];
    let report = data(&run(&home, &args));
    let value: Value = serde_json::from_str(report["text"].as_str().expect("a text")).expect("JSON");
    assert!(validator(source).is_valid(&value), "{value}");
    assert!(value["capital"].as_str().expect("a text").contains("Paris"), "{value}");
}

#[test]
fn hostile_schemas_are_coded_errors_with_their_path() {
    let home = Sandbox::new();
    let model = tiny();
    let deep = format!("{}{{}}{}", r#"{"not": "#.repeat(500), "}".repeat(500));
    let nested = (0..100).fold("{}".to_owned(), |inner, _| {
        format!(r#"{{"type": "array", "items": {inner}, "minItems": 100}}"#)
    });
    let cases: Vec<(&str, String)> = vec![
        ("no JSON", "{".to_owned()),
        ("nothing", String::new()),
        ("an array", "[]".to_owned()),
        ("nothing is valid", "false".to_owned()),
        ("no type", r#"{"type": "colour"}"#.to_owned()),
        ("a contradiction", r#"{"type": "integer", "minimum": 5, "maximum": 1}"#.to_owned()),
        ("what is not supported", r#"{"not": {"type": "string"}}"#.to_owned()),
        ("one of two", r#"{"oneOf": [{"type": "string"}, {"maxLength": 3}]}"#.to_owned()),
        ("a reference to elsewhere", r#"{"$ref": "http://example.invalid/schema.json"}"#.to_owned()),
        ("a reference to nothing", r##"{"$ref": "#/$defs/none"}"##.to_owned()),
        ("a bad pattern", r#"{"type": "string", "pattern": "(["}"#.to_owned()),
        ("a huge pattern", r#"{"type": "string", "pattern": "^((((a{999}){999}){999}){999})$"}"#.to_owned()),
        ("depth", deep),
        ("size", format!("{{\"description\": \"{}\"}}", "x".repeat(2 << 20))),
        ("options of the library", r#"{"x-guidance": {"lenient": true}, "not": {}}"#.to_owned()),
        ("a nest of long arrays", nested),
    ];
    for (name, content) in cases {
        let file = schema(&home, "bad.json", &content);
        let error = error(&run(&home, &[&model, "x", "--raw", "-n", "40", "--format", &file, "--json"]), 2);
        assert_eq!(error["code"], "INVALID_REQUEST", "{name}");
        let message = error["message"].as_str().expect("a text");
        let unfinished = name == "a nest of long arrays" && message.contains("not whole");
        assert!(message.contains("bad.json") || unfinished, "{name}: {message}");
        assert!(message.len() < 600 && !message.contains('\n'), "{name}: {message}");
    }
    let error = error(&run(&home, &[&model, "x", "--format", "none.json", "--json"]), 3);
    assert_eq!(error["code"], "FILE_NOT_FOUND");
}

#[test]
fn a_schema_that_refers_to_itself_is_followed() {
    let home = Sandbox::new();
    let source = r##"{"type": "array", "items": {"$ref": "#"}, "maxItems": 2}"##;
    let file = schema(&home, "tree.json", source);
    let args = [&tiny(), "x", "--raw", "--format", &file, "--json", "--logit-bias", "]=3", "--seed", "2"];
    let report = data(&run(&home, &args));
    let value: Value = serde_json::from_str(report["text"].as_str().expect("a text")).expect("JSON");
    assert!(validator(source).is_valid(&value), "{value}");
}

#[test]
fn a_stop_text_and_a_format_exclude_each_other() {
    let home = Sandbox::new();
    let error = error(&run(&home, &[&tiny(), "x", "--format", "json", "--stop", "}", "--json"]), 2);
    assert_eq!(error["code"], "INVALID_REQUEST");
}
