//! Reasoning models, template variables and tools.

use std::fs;
use std::path::Path;

use super::*;

/// The tiny model with another template, two of its tokens being the tags of reasoning.
fn thinker(home: &Sandbox, template: &str) -> String {
    let (from, to) = (PathBuf::from(tiny()), home.home().join("thinker"));
    fs::create_dir_all(&to).expect("a folder");
    for file in ["config.json", "model.safetensors"] {
        fs::copy(from.join(file), to.join(file)).expect("a copy");
    }
    let tokens = fs::read_to_string(from.join("tokenizer.json")).expect("a tokenizer");
    let tokens = tokens.replace("<|reserved_0|>", "<think>").replace("<|reserved_1|>", "</think>");
    fs::write(to.join("tokenizer.json"), tokens).expect("written");
    fs::write(to.join("chat_template.jinja"), template).expect("written");
    to.to_str().expect("UTF-8").to_owned()
}

const SWITCHED: &str = "{{ messages[-1].content }}|{% if enable_thinking is defined and not enable_thinking %}\
                        <think>\n\n</think>\n\n{% else %}<think>\n{% endif %}{{ effort }}";

/// The answer is x, the end of the reasoning, x: each comes once, then is too unlikely.
const X_END_X: [&str; 10] = [
    "-n",
    "3",
    "--temp",
    "0",
    "--logit-bias",
    "x=600",
    "--logit-bias",
    "</think>=500",
    "--frequency-penalty",
    "200",
];

fn ask(home: &Sandbox, model: &str, args: &[&str]) -> Output {
    run(home, &[&[model, "Hi"], &X_END_X[..], args].concat())
}

#[test]
fn reasoning_is_on_stderr_and_the_answer_on_stdout() {
    let home = Sandbox::new();
    let model = thinker(&home, SWITCHED);
    let shown = ask(&home, &model, &[]);
    assert_eq!((text(&shown.stdout), text(&shown.stderr)), ("x\n", "x\n\n"), "{shown:?}");
    let hidden = ask(&home, &model, &["--hide-thinking"]);
    assert_eq!((text(&hidden.stdout), text(&hidden.stderr)), ("x\n", ""));

    let report = data(&ask(&home, &model, &["--json"]));
    assert_eq!((report["text"].as_str(), report["reasoning"].as_str()), (Some("x"), Some("x")));
    let report = data(&ask(&home, &model, &["--json", "--hide-thinking"]));
    assert_eq!((report["text"].as_str(), report["reasoning"].as_str()), (Some("x"), None));

    let events = ask(&home, &model, &["--stream-json"]);
    let events: Vec<Value> =
        text(&events.stdout).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let texts = |name: &str| -> String {
        let of = events.iter().filter(|event| event["event"] == name);
        of.inspect(|event| sandbox::assert_valid(event, "run-event"))
            .filter_map(|event| event["text"].as_str())
            .collect()
    };
    assert_eq!((texts("reasoning"), texts("text")), ("x".to_owned(), "x".to_owned()));
}

#[test]
fn a_raw_prompt_has_an_answer_as_it_comes() {
    let home = Sandbox::new();
    let model = thinker(&home, SWITCHED);
    let report = data(&run(&home, &[&[model.as_str(), "<think>", "--raw", "--json"], &X_END_X[..]].concat()));
    // The tag is a special token, which is not shown.
    assert_eq!((report["text"].as_str(), report["reasoning"].as_str()), (Some("xx"), None));
}

#[test]
fn switches_and_variables_reach_the_template() {
    let home = Sandbox::new();
    let model = thinker(&home, SWITCHED);
    let rendered = |args: &[&str]| {
        let report = data(&ask(&home, &model, &[args, &["--json"]].concat()));
        report["rendered_prompt"].as_str().expect("a text").to_owned()
    };
    assert_eq!(rendered(&["--think"]), "Hi|<think>\n");
    assert_eq!(rendered(&["--no-think"]), "Hi|<think>\n\n</think>\n\n");
    assert_eq!(rendered(&["--template-arg", "effort=low"]), "Hi|<think>\nlow");
    assert_eq!(rendered(&["--template-arg", "effort=[1, \"a\"]"]), "Hi|<think>\n[1, 'a']");
    assert_eq!(rendered(&["--template-arg", "enable_thinking=false"]), "Hi|<think>\n\n</think>\n\n");
}

#[test]
fn tools_reach_the_template_and_what_it_lacks_is_told() {
    let home = Sandbox::new();
    let file = home.home().join("tools.json");
    fs::write(&file, r#"[{"type": "function", "function": {"name": "now", "parameters": {}}}]"#)
        .expect("written");
    let file = file.to_str().expect("UTF-8");
    let knows =
        thinker(&home, "{% for tool in tools %}{{ tool.function.name }}: {{ tool | tojson }}{% endfor %}");
    let report = data(&run(&home, &[&knows, "Hi", "--tools", file, "-n", "1", "--json"]));
    assert_eq!(
        report["rendered_prompt"],
        r#"now: {"type": "function", "function": {"name": "now", "parameters": {}}}"#
    );

    let model = tiny();
    for flags in [&["--tools", file][..], &["--think"], &["--no-think"], &["--template-arg", "effort=1"]] {
        let error = error(&run(&home, &[&[model.as_str(), "Hi", "--json"], flags].concat()), 7);
        assert_eq!(error["code"], "CAPABILITY_MISSING", "{flags:?}");
    }
    for flags in [
        &["--template-arg", "effort"][..],
        &["--template-arg", "=1"],
        &["--template-arg", "messages=[]"],
        &["--think", "--no-think"],
        &["--think", "--raw"],
    ] {
        let error = error(&run(&home, &[&[model.as_str(), "Hi", "--json"], flags].concat()), 2);
        assert_eq!(error["code"], "INVALID_REQUEST", "{flags:?}");
    }
    for (content, status) in [("{}", 2), ("[1]", 2), ("[", 2), ("", 2)] {
        let bad = home.home().join("bad.json");
        fs::write(&bad, content).expect("written");
        let bad = bad.to_str().expect("UTF-8");
        let error = error(&run(&home, &[&knows, "Hi", "--tools", bad, "--json"]), status);
        assert!(error["message"].as_str().expect("a text").contains("bad.json"), "{error}");
    }
    let missing = error(&run(&home, &[&knows, "Hi", "--tools", "none.json", "--json"]), 3);
    assert_eq!(missing["code"], "FILE_NOT_FOUND");
    assert!(!Path::new("none.json").exists());
}
