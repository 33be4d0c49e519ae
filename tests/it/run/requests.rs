//! What is asked for, and what is refused.

use std::fs::File;
use std::process::Stdio;

use super::*;

#[test]
fn the_argument_and_the_piped_text_make_the_prompt_together() {
    let home = Sandbox::new();
    let output =
        run_with_input(&home, &[&tiny(), "Summarize:", "--json", "--max-tokens", "4"], b"some text\n");
    let data = data(&output);
    assert_eq!(data["prompt"], "Summarize:\n\nsome text");
    let rendered = data["rendered_prompt"].as_str().expect("a text");
    assert!(rendered.contains("Summarize:\n\nsome text<|im_end|>"), "{rendered}");
    assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
}

#[test]
fn a_model_that_was_made_for_images_too_says_that_its_text_part_runs() {
    let home = Sandbox::new();
    let (from, model) = (PathBuf::from(tiny()), home.home().join("sees"));
    std::fs::create_dir(&model).expect("a folder");
    for file in ["model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(from.join(file), model.join(file)).expect("a copy");
    }
    let text_config = std::fs::read_to_string(from.join("config.json")).expect("a configuration");
    let config = format!(r#"{{"model_type": "llava", "vision_config": {{}}, "text_config": {text_config}}}"#);
    std::fs::write(model.join("config.json"), config).expect("written");
    let model = model.to_str().expect("UTF-8");
    let alone = run(&home, &[model, "Hi", "-n", "2", "--temp", "0"]);
    assert!(text(&alone.stderr).starts_with("warning: the text part of the model runs alone"), "{alone:?}");
    assert_eq!(alone.stdout, run(&home, &[&tiny(), "Hi", "-n", "2", "--temp", "0"]).stdout);

    let image = r#"{"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}"#;
    let output = run_with_input(&home, &[model, "--batch", "-", "--json"], image.as_bytes());
    assert_eq!(error(&output, 7)["code"], "CAPABILITY_MISSING");
}

#[test]
fn piped_text_alone_is_the_prompt_with_and_without_a_dash() {
    let home = Sandbox::new();
    for args in [vec![], vec!["-"]] {
        let args = [vec![tiny()], args.into_iter().map(str::to_owned).collect()].concat();
        let mut args: Vec<_> = args.iter().map(String::as_str).collect();
        args.extend(["--json", "-n", "2"]);
        assert_eq!(data(&run_with_input(&home, &args, b"Hello\n"))["prompt"], "Hello");
    }
}

#[test]
fn a_closed_or_empty_standard_input_leaves_the_argument_alone() {
    let home = Sandbox::new();
    let model = tiny();
    let args = [&model, "Hello", "--json", "-n", "2"];
    assert_eq!(data(&run(&home, &args))["prompt"], "Hello");
    assert_eq!(data(&run_with_input(&home, &args, b""))["prompt"], "Hello");
    let mut closed = shell(&home, "exec \"$0\" run \"$1\" Hello --json -n 2 <&-", &model);
    let closed = closed.output().expect("a shell");
    assert_eq!(data(&closed)["prompt"], "Hello");
}

#[test]
fn a_standard_input_that_stays_open_is_waited_for_not_in_silence() {
    use std::io::{BufRead, BufReader};
    let home = Sandbox::new();
    let model = tiny();
    let mut child = home
        .cmd(&["run", &model, "Hello", "--json", "-n", "2"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("mlx-cache runs");
    let stdin = child.stdin.take().expect("a pipe");
    let mut told = String::new();
    BufReader::new(child.stderr.take().expect("a pipe")).read_line(&mut told).expect("a line");
    assert!(told.contains("waiting for the end of standard input"), "{told}");
    drop(stdin);
    assert_eq!(data(&child.wait_with_output().expect("the end"))["prompt"], "Hello");
}

#[test]
fn what_is_no_prompt_is_refused() {
    let home = Sandbox::new();
    let model = tiny();
    let cases: [(&str, &[&str], &[u8], &str); 7] = [
        ("nothing", &[], b"", "the prompt is empty"),
        ("blanks", &[], b" \n\n", "the prompt is empty"),
        ("an empty argument", &[""], b"", "the prompt is empty"),
        ("a dash and nothing", &["-"], b"", "the prompt is empty"),
        ("bytes that are not UTF-8", &["Read:"], b"caf\xe9", "not UTF-8"),
        ("a NUL byte", &[], b"binary\0data", "NUL byte at offset 6"),
        ("a NUL byte after a prompt", &["Read:"], b"\0", "NUL byte at offset 0"),
    ];
    for (name, args, input, told) in cases {
        let args = [&[model.as_str()], args, &["--json"]].concat();
        let error = error(&run_with_input(&home, &args, input), 2);
        assert_eq!(error["code"], "INVALID_REQUEST", "{name}");
        assert!(error["message"].as_str().expect("a text").contains(told), "{name}: {error}");
        assert!(error["hint"].is_string(), "{name}: {error}");
    }
}

#[test]
fn a_folder_as_standard_input_is_an_error_and_an_endless_one_is_cut_off() {
    let home = Sandbox::new();
    let model = tiny();
    let from = |path: &str| {
        command(&home, &[&model, "--json"])
            .stdin(Stdio::from(File::open(path).expect("a file to read")))
            .output()
            .expect("mlx-cache runs")
    };
    assert_eq!(error(&from("/"), 1)["code"], "IO_ERROR");
    let endless = error(&from("/dev/zero"), 2);
    assert_eq!(endless["code"], "INVALID_REQUEST");
}

#[test]
fn values_out_of_range_are_refused_by_name() {
    let home = Sandbox::new();
    let model = tiny();
    for (flag, value) in [
        ("--temp", "-1"),
        ("--temp", "nan"),
        ("--temp", "inf"),
        ("--top-p", "0"),
        ("--top-p", "1.1"),
        ("--min-p", "-0.1"),
        ("--typical-p", "0"),
        ("--xtc-probability", "1.5"),
        ("--xtc-threshold", "0"),
        ("--mirostat-tau", "-1"),
        ("--mirostat-eta", "2"),
        ("--repetition-penalty", "0"),
        ("--presence-penalty", "nan"),
        ("--frequency-penalty", "inf"),
        ("--max-tokens", "0"),
        ("--stop", ""),
        ("--temp", "warm"),
        ("--top-k", "-1"),
        ("--seed", "1.5"),
        ("--context", "0"),
        ("--context", "99999999999999999999"),
        ("--threads", "0"),
        ("--device", "tpu"),
        ("--memory-limit", "lots"),
    ] {
        let error = error(&run(&home, &[&model, "Hi", "--json", flag, value]), 2);
        assert_eq!(error["code"], "INVALID_REQUEST", "{flag} {value}");
        let message = error["message"].as_str().expect("a text");
        let name = flag.trim_start_matches("--");
        assert!(message.contains(name) || message.contains("stop text"), "{flag} {value}: {message}");
    }
}

#[test]
fn an_unknown_flag_is_an_envelope_too() {
    let home = Sandbox::new();
    for json in ["--json", "--stream-json"] {
        let error = error(&run(&home, &[&tiny(), "Hi", "--tempo", "1", json]), 2);
        assert_eq!(error["code"], "INVALID_REQUEST");
        assert!(error["message"].as_str().expect("a text").contains("--tempo"));
    }
}

#[test]
fn a_system_message_and_a_raw_prompt_exclude_each_other() {
    let home = Sandbox::new();
    let error = error(&run(&home, &[&tiny(), "Hi", "--raw", "--system", "Be brief.", "--json"]), 2);
    assert_eq!(error["code"], "INVALID_REQUEST");
}

#[test]
fn a_missing_model_is_told_by_name_before_standard_input_is_read() {
    let home = Sandbox::new();
    // Standard input stays open: reading it first would wait for ever.
    let mut child = command(&home, &["no-such-model", "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("mlx-cache runs");
    let stdin = child.stdin.take();
    let output = child.wait_with_output().expect("mlx-cache ends");
    drop(stdin);
    let error = error(&output, 3);
    assert_eq!(error["code"], "MODEL_NOT_FOUND");
    assert!(error["message"].as_str().expect("a text").contains("no-such-model"));
}

#[test]
fn a_prompt_in_the_place_of_the_model_is_told_apart() {
    let home = Sandbox::new();
    let error = error(&run(&home, &["What is the capital of France?", "--json"]), 3);
    assert_eq!(error["code"], "MODEL_NOT_FOUND");
    assert!(error["hint"].as_str().expect("a hint").contains("the first argument"), "{error}");
}

#[test]
fn without_a_model_the_only_one_runs_and_several_are_listed() {
    let home = Sandbox::new();
    let none = error(&run_with_input(&home, &["--json"], b"Hi"), 3);
    assert_eq!(none["code"], "MODEL_NOT_FOUND");

    add(&home, &tiny(), "test/first");
    let only = data(&run_with_input(&home, &["--json", "-n", "2"], b"Hi"));
    assert!(only["model"].as_str().expect("a name").contains("test/first"), "{only}");

    add(&home, &tiny().replace("llama_tied", "llama_untied"), "test/second");
    let several = error(&run_with_input(&home, &["--json"], b"Hi"), 3);
    assert_eq!(several["code"], "MODEL_NOT_FOUND");
    let told = several.to_string();
    assert!(told.contains("test/first") && told.contains("test/second"), "{told}");

    let output = command(&home, &["--json", "-n", "2", "--", "test/first", "-not-a-flag"])
        .stdin(Stdio::null())
        .output()
        .expect("mlx-cache runs");
    assert_eq!(data(&output)["prompt"], "-not-a-flag");

    let ambiguous = error(&run(&home, &["test", "Hi", "--json"]), 3);
    assert_eq!(ambiguous["code"], "MODEL_AMBIGUOUS");
}

#[test]
fn the_default_model_of_the_environment_runs() {
    let home = Sandbox::new();
    add(&home, &tiny(), "test/first");
    add(&home, &tiny().replace("llama_tied", "llama_untied"), "test/second");
    let mut child = command(&home, &["--json", "-n", "2"])
        .env("MLX_CACHE_MODEL", "test/second")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("mlx-cache runs");
    child.stdin.take().expect("a pipe").write_all(b"Hi").expect("written");
    let data = data(&child.wait_with_output().expect("mlx-cache ends"));
    assert!(data["model"].as_str().expect("a name").contains("test/second"), "{data}");
}

#[test]
fn help_tells_the_defaults_that_hold() {
    let home = Sandbox::new();
    let help = run(&home, &["--help"]);
    let report = data(&run(&home, &[&tiny(), "Hi", "--json", "-n", "1"]));
    let sampling = &report["sampling"];
    for (flag, field) in [
        ("--temp", "temperature"),
        ("--top-k", "top_k"),
        ("--top-p", "top_p"),
        ("--min-p", "min_p"),
        ("--typical-p", "typical_p"),
        ("--xtc-probability", "xtc_probability"),
        ("--xtc-threshold", "xtc_threshold"),
        ("--mirostat-tau", "mirostat_tau"),
        ("--mirostat-eta", "mirostat_eta"),
        ("--repetition-window", "repetition_window"),
    ] {
        let help = text(&help.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
        let (_, after) = help.split_once(&format!("{flag} <")).expect(flag);
        let (_, default) = after.split_once("[default: ").expect(flag);
        let (default, _) = default.split_once(']').expect(flag);
        let held = sampling[field].as_f64().expect("a number");
        assert_eq!(default.parse::<f64>().ok(), Some(held), "{flag}");
    }
}
