//! `bench`: what is measured, kept and compared.

mod files;
mod ollama;
mod store;

use std::path::Path;

use serde_json::Value;

use crate::sandbox::Sandbox;

/// A small model that generates text.
fn tiny_folder() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/tiny/llama_mha");
    folder.to_str().expect("UTF-8").to_owned()
}

/// The same in the store of the sandbox.
fn with_tiny() -> Sandbox {
    let sandbox = Sandbox::new();
    let outcome = sandbox.run(&["add", &tiny_folder(), "--name", "some/tiny"]);
    assert_eq!(outcome.status, 0, "{}", outcome.stderr);
    sandbox
}

/// A copy of it in a folder of the sandbox, with something else in its configuration.
fn configured(sandbox: &Sandbox, folder: &str, from: &str, to: &str) {
    let folder = sandbox.home().join(folder);
    std::fs::create_dir(&folder).expect("a folder");
    for file in
        std::fs::read_dir(tiny_folder()).expect("the model").map(|entry| entry.expect("a file").path())
    {
        std::fs::copy(&file, folder.join(file.file_name().expect("a name"))).expect("copied");
    }
    let config = std::fs::read_to_string(folder.join("config.json")).expect("its configuration");
    assert!(config.contains(from), "{config}");
    std::fs::write(folder.join("config.json"), config.replace(from, to)).expect("written");
}

fn bench(sandbox: &Sandbox, args: &[&str]) -> Value {
    let (status, envelope) = sandbox.json(&[&["bench"], args].concat());
    assert_eq!(status, 0, "{envelope}");
    envelope["data"].clone()
}

fn tests(data: &Value) -> Vec<&str> {
    data["results"]
        .as_array()
        .expect("results")
        .iter()
        .map(|it| it["test"].as_str().expect("a name"))
        .collect()
}

#[test]
fn each_test_is_measured_as_often_as_asked() {
    let sandbox = with_tiny();
    let data = bench(&sandbox, &["tiny", "-p", "16,5", "-g", "4", "--depth", "0,7", "-r", "3"]);
    let names = tests(&data);
    for test in [
        "pp16",
        "pp5",
        "tg4",
        "pp16@d7",
        "pp5@d7",
        "tg4@d7",
        "ttft16",
        "ttft5@d7",
        "load",
        "kv_cache",
        "peak_memory",
    ] {
        assert!(names.contains(&test), "{test}: {names:?}");
    }
    for result in data["results"].as_array().expect("results") {
        assert_eq!(result["model"], "some/tiny");
        let samples: Vec<f64> = result["samples"]
            .as_array()
            .expect("samples")
            .iter()
            .map(|it| it.as_f64().expect("a number"))
            .collect();
        let once = ["kv_cache", "peak_memory"].iter().any(|name| result["test"] == **name);
        assert_eq!(samples.len(), if once { 1 } else { 3 }, "{result}");
        assert!(samples.iter().all(|sample| *sample > 0.0), "{result}");
        let mean = result["mean"].as_f64().expect("a number");
        let (min, max) =
            (result["min"].as_f64().expect("a number"), result["max"].as_f64().expect("a number"));
        assert!(min <= mean * 1.000_001 && mean <= max * 1.000_001, "{result}");
    }
    let model = &data["models"][0];
    assert_eq!(
        (model["reference"].as_str(), model["digest"].as_str().map(str::len)),
        (Some("some/tiny"), Some(64))
    );
    assert!(
        data["environment"]["mlx"].is_string()
            && data["environment"]["memory_bytes"].as_u64() > Some(1 << 20)
    );
}

/// A tiny model that makes vectors.
fn embedder() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/embed/bert_mean_normalized");
    folder.to_str().expect("UTF-8").to_owned()
}

fn mean(data: &Value, test: &str, unit: &str) -> f64 {
    let results = data["results"].as_array().expect("results");
    let found = results.iter().find(|it| it["test"] == test && it["unit"] == unit);
    found.unwrap_or_else(|| panic!("{test} in {unit}: {data}"))["mean"].as_f64().expect("a number")
}

#[test]
fn an_embedding_model_is_measured_by_lengths_of_texts() {
    let sandbox = with_tiny();
    let model = embedder();
    let data = bench(&sandbox, &[&model, "-p", "4,16,0", "-r", "2"]);
    for (tokens, length) in [("emb4", 4.0), ("emb16", 16.0)] {
        let texts = tokens.replace("emb", "texts");
        let (tokens, texts) = (mean(&data, tokens, "tokens/s"), mean(&data, &texts, "texts/s"));
        assert!((tokens / texts / length - 1.0).abs() < 0.5 && texts > 0.0, "{tokens} {texts}");
    }
    let names = tests(&data);
    assert!(names.contains(&"load") && names.contains(&"peak_memory"), "{names:?}");
    assert!(!names.iter().any(|test| test.starts_with("ttft") || *test == "kv_cache"), "{names:?}");
    // As long as the model takes them, beside a model that writes; and as many at once as is asked for.
    let data = bench(&sandbox, &[&model, "tiny", "-r", "1", "-p", "8", "--batch", "1,3", "--no-save"]);
    for (test, unit) in [("emb8@b1", "tokens/s"), ("texts8@b3", "texts/s"), ("pp8", "tokens/s")] {
        mean(&data, test, unit);
    }
    let data = bench(&sandbox, &[&model, "-r", "1", "--warmup", "0"]);
    let lengths: Vec<_> = tests(&data).into_iter().filter(|test| test.starts_with("emb")).collect();
    assert_eq!(lengths, ["emb8", "emb32"]);
}

#[test]
fn results_are_kept_and_shown_again() {
    let sandbox = with_tiny();
    for _ in 0..2 {
        bench(&sandbox, &["tiny", "-p", "8", "-g", "0", "-r", "2"]);
    }
    bench(&sandbox, &["tiny", "-p", "8", "-g", "0", "-r", "2", "--no-save"]);
    let data = bench(&sandbox, &["--history", "tiny"]);
    let history = data["history"].as_array().expect("a list");
    assert_eq!(history.iter().map(|kept| kept["number"].as_i64()).collect::<Vec<_>>(), [Some(2), Some(1)]);
    assert_eq!(history[0]["results"][0]["model"], "some/tiny");
    // They outlive the model.
    assert_eq!(sandbox.run(&["rm", "tiny", "--yes"]).status, 0);
    assert_eq!(bench(&sandbox, &["--history", "some/tiny"])["history"].as_array().map(Vec::len), Some(2));
    assert_eq!(sandbox.error(&["bench", "--history", "other"]).1["code"], "FILE_NOT_FOUND");
}

#[test]
fn a_regression_beyond_tolerance_ends_with_status_1() {
    let sandbox = with_tiny();
    let args = ["bench", "tiny", "-p", "8", "-g", "4", "-r", "2"];
    let (_, mut envelope) = sandbox.json(&args);
    let baseline = sandbox.home().join("base.json");
    // As if all had been a thousand times as much before: speeds are worse now, times and sizes better.
    for result in envelope["data"]["results"].as_array_mut().expect("results") {
        result["mean"] = (result["mean"].as_f64().expect("a number") * 1000.0).into();
    }
    std::fs::write(&baseline, envelope.to_string()).expect("written");
    let (status, envelope) = sandbox.json(&[&args[..], &["--compare", "base.json"]].concat());
    assert_eq!((status, &envelope["data"]["baseline"]["regression"]), (0, &Value::Bool(false)), "{envelope}");
    let against = ["--compare", "base.json", "--fail-on-regression", "5%"];
    let (status, envelope) = sandbox.json(&[&args[..], &against].concat());
    assert_eq!((status, &envelope["data"]["baseline"]["regression"]), (1, &Value::Bool(true)), "{envelope}");
    let changes = envelope["data"]["baseline"]["changes"].as_array().expect("changes");
    let worse: Vec<_> = changes.iter().filter(|it| it["regression"] == true).map(|it| &it["test"]).collect();
    assert_eq!(worse, ["pp8", "tg4"]);
    // With what was kept, by name and by number.
    for baseline in ["last", "1"] {
        let data = bench(&sandbox, &["tiny", "-p", "8", "-g", "4", "-r", "2", "--compare", baseline]);
        assert!(data["baseline"]["changes"].as_array().is_some_and(|changes| changes.len() >= 5), "{data}");
    }
}

#[test]
fn another_program_is_measured_in_turn() {
    let sandbox = with_tiny();
    let command = "echo x >> rounds; echo 'prompt 1 tok/s'; echo 'generation: 12.5 tok/s' >&2";
    let data = bench(&sandbox, &["tiny", "-p", "0", "-g", "4", "-r", "3", "--against-command", command]);
    let rounds = std::fs::read_to_string(sandbox.home().join("rounds")).expect("it ran");
    assert_eq!(rounds.lines().count(), 4, "three rounds and one to warm up");
    let peer = data["results"].as_array().expect("results").iter().find(|it| it["model"] == command);
    assert_eq!(peer.expect("the peer")["samples"], serde_json::json!([12.5, 12.5, 12.5]));
    let own = data["results"].as_array().expect("results").iter().find(|it| it["test"] == "tg4");
    let (ratio, median) = (data["peers"][0]["ratio"].as_f64(), own.expect("ours")["median"].as_f64());
    assert!((ratio.expect("a ratio") * 12.5 / median.expect("a median") - 1.0).abs() < 1e-9, "{data}");

    // One that stops in the middle leaves what was measured.
    let command = "echo x >> fails; test $(wc -l < fails) -lt 3 || exit 7; echo '5 t/s'";
    let (status, error) =
        sandbox.error(&["bench", "tiny", "-p", "0", "-g", "4", "--against-command", command]);
    assert_eq!((status, error["code"].as_str()), (1, Some("SERVER_CRASHED")), "{error}");
    let of_peer = |results: &Value| {
        let results = results.as_array().expect("results");
        results
            .iter()
            .any(|result| result["model"] == command && result["samples"] == serde_json::json!([5.0]))
    };
    assert!(of_peer(&error["details"]["measured"]), "{error}");
    // Kept with it, and told.
    assert!(of_peer(&bench(&sandbox, &["--history", "tiny"])["history"][0]["results"]));
    std::fs::remove_file(sandbox.home().join("fails")).expect("the rounds");
    let outcome = sandbox.run(&["bench", "tiny", "-p", "0", "-g", "4", "--against-command", command]);
    assert!(outcome.stderr.contains("--history some/tiny"), "{}", outcome.stderr);
    // One that fails at the second model leaves the first's results, also before its first round counts.
    let command = "echo x >> again; test $(wc -l < again) -lt 4 || exit 7; echo '5 t/s'";
    let models = ["tiny", &tiny_folder(), "-p", "0", "-g", "4", "-r", "2", "--export", "first.json"];
    let (_, error) = sandbox.error(&[&["bench"], &models[..], &["--against-command", command]].concat());
    let measured = error["details"]["measured"].as_array().expect("what was measured");
    assert!(measured.iter().any(|it| it["model"] == "some/tiny" && it["test"] == "tg4"), "{error}");
    assert!(sandbox.home().join("first.json").exists());
}

#[test]
fn an_interruption_leaves_what_was_measured() {
    let sandbox = with_tiny();
    // A peer that presses Ctrl-C in the second round that counts.
    let command = "echo x >> rounds; test $(wc -l < rounds) -lt 3 || kill -INT $PPID; echo '5 t/s'";
    let args = ["bench", "tiny", "-p", "0", "-g", "4", "--against-command", command];
    let (status, error) = sandbox.error(&[&args[..], &["--export", "kept.csv"]].concat());
    assert_eq!((status, error["code"].as_str()), (130, Some("INTERRUPTED")), "{error}");
    let measured = |results: &Value| {
        let mut results = results.as_array().expect("results").iter();
        let own = results.find(|it| it["model"] == "some/tiny" && it["test"] == "tg4").expect("ours");
        own["samples"].as_array().map(Vec::len)
    };
    assert_eq!(measured(&error["details"]["measured"]), Some(2), "{error}");
    assert_eq!(measured(&bench(&sandbox, &["--history", "tiny"])["history"][0]["results"]), Some(2));
    assert!(std::fs::read_to_string(sandbox.home().join("kept.csv")).expect("written").contains("tg4"));
    // A person sees it.
    std::fs::remove_file(sandbox.home().join("rounds")).expect("the rounds");
    let outcome = sandbox.run(&[&args[..], &["--no-save"]].concat());
    assert!(outcome.status == 130 && outcome.stdout.is_empty(), "{outcome:?}");
    assert!(outcome.stderr.contains("tg4") && outcome.stderr.contains("tok/s"), "{}", outcome.stderr);
    // Before anything counts there is nothing to tell.
    let warming =
        ["bench", "tiny", "-p", "0", "-g", "4", "--against-command", "kill -INT $PPID; echo '5 t/s'"];
    let (status, error) = sandbox.error(&warming);
    assert_eq!((status, &error["details"]["measured"]), (130, &Value::Null), "{error}");
    assert_eq!(bench(&sandbox, &["--history", "tiny"])["history"].as_array().map(Vec::len), Some(1));
}

#[test]
fn what_does_not_fit_a_model_is_refused_before_anything_is_measured() {
    let sandbox = with_tiny();
    configured(&sandbox, "short", "_embeddings\": 256", "_embeddings\": 64");
    let outcome = sandbox.run(&["add", "short", "--name", "some/short"]);
    assert_eq!(outcome.status, 0, "{}", outcome.stderr);
    let command = "echo x >> rounds; echo '5 t/s'";
    let cases: [&[&str]; 3] = [
        &["-p", "100", "-g", "0"],
        &["-p", "0", "-g", "40", "--depth", "0,40"],
        &["-p", "20", "-g", "0", "--context", "16"],
    ];
    for case in cases {
        let args = ["bench", "tiny", "short", "--against-command", command];
        let (status, error) = sandbox.error(&[&args[..], case].concat());
        assert_eq!((status, error["code"].as_str()), (2, Some("INVALID_REQUEST")), "{error}");
        let model = if case.contains(&"--context") { "some/tiny" } else { "some/short" };
        assert!(error["message"].as_str().is_some_and(|text| text.starts_with(model)), "{error}");
        assert!(error["hint"].as_str().is_some_and(|hint| hint.contains("--context")), "{error}");
    }
    assert!(!sandbox.home().join("rounds").exists(), "a test ran");
    // A larger context than the model was made for is the user's word.
    bench(&sandbox, &["short", "-p", "100", "-g", "0", "-r", "1", "--context", "128"]);
    // The same for a model that the engine cannot run.
    configured(&sandbox, "rwkv", "\"llama\"", "\"rwkv7\"");
    let (status, error) =
        sandbox.error(&["bench", "tiny", "./rwkv", "-p", "4", "--against-command", command]);
    assert_eq!((status, error["code"].as_str()), (7, Some("MODEL_UNSUPPORTED")), "{error}");
    assert!(!sandbox.home().join("rounds").exists(), "a test ran");
}

#[test]
fn what_a_command_leaves_running_ends_with_it() {
    let sandbox = with_tiny();
    let command = "sleep 987 & echo $! > left; echo '3 t/s'";
    bench(
        &sandbox,
        &["tiny", "-p", "0", "-g", "2", "-r", "1", "--warmup", "0", "--against-command", command],
    );
    let left = std::fs::read_to_string(sandbox.home().join("left")).expect("its number");
    let is_there = || {
        // One that ended and that nobody waited for yet has no command line.
        std::fs::read(format!("/proc/{}/cmdline", left.trim())).is_ok_and(|line| !line.is_empty())
    };
    assert!(!cfg!(target_os = "linux") || !is_there());
}

#[test]
fn the_table_of_llama_bench_is_read() {
    let sandbox = with_tiny();
    let command = "printf '%s\\n' '| model | size | params | backend | threads | test | t/s |' \
        '| --- | ---: | ---: | --- | ---: | ---: | ---: |' \
        '| llama 1B Q8_0 | 1.22 GiB | 1.24 B | CPU | 2 | tg4 | 60.38 ± 0.09 |' '' 'build: 0123abc (9999)'";
    let data = bench(&sandbox, &["tiny", "-p", "0", "-g", "4", "-r", "2", "--against-command", command]);
    let peer = data["results"].as_array().expect("results").iter().find(|it| it["model"] == command);
    assert_eq!(peer.expect("the peer")["samples"], serde_json::json!([60.38, 60.38]));
}

#[test]
fn flags_are_recorded_and_a_baseline_of_others_is_told() {
    let sandbox = with_tiny();
    let args = ["tiny", "-p", "8", "-g", "4", "-r", "2", "--threads", "1"];
    let data = bench(&sandbox, &[&args[..], &["--context", "64", "--max-kv-size", "32"]].concat());
    assert_eq!(
        data["environment"]["flags"],
        serde_json::json!(["--context 64", "--max-kv-size 32", "--keep 4"])
    );
    assert_eq!(data["environment"]["threads"], 1);
    let kept = bench(&sandbox, &["--history", "tiny"]);
    assert_eq!(kept["history"][0]["environment"]["flags"], data["environment"]["flags"]);

    let compared = |flags: &[&str]| {
        let outcome = sandbox.run(&[&["bench", "--compare", "1", "--no-save"], &args[..], flags].concat());
        assert_eq!(outcome.status, 0, "{}", outcome.stderr);
        outcome
    };
    let other = compared(&[]);
    assert!(other.stderr.contains("the baseline 1 was measured with"), "{}", other.stderr);
    assert!(other.stderr.contains("--max-kv-size 32"), "{}", other.stderr);
    let whole = bench(&sandbox, &[&args[..], &["--no-save", "--kv-bits", "32"]].concat());
    assert_eq!(whole["environment"]["flags"], serde_json::json!(["--kv-bits 32"]));
    let same = compared(&["--context", "64", "--max-kv-size", "32"]);
    assert!(!same.stderr.contains("the baseline 1"), "{}", same.stderr);
    assert!(same.stdout.contains("--max-kv-size 32"), "{}", same.stdout);
}

#[test]
fn each_model_is_held_against_its_own_baseline() {
    let sandbox = with_tiny();
    let outcome = sandbox.run(&["add", &tiny_folder(), "--name", "some/other"]);
    assert_eq!(outcome.status, 0, "{}", outcome.stderr);
    let args = ["-p", "8", "-g", "0", "-r", "2"];
    bench(&sandbox, &[&["tiny", "--threads", "1"], &args[..]].concat());
    bench(&sandbox, &[&["other", "--threads", "1", "--context", "64"], &args[..]].concat());
    let both = [&["bench", "tiny", "other", "--threads", "1", "--no-save"], &args[..]].concat();
    sandbox.run(&["bench", "--history", "--export", "all.json"]);
    for baseline in ["last", "all.json"] {
        let outcome = sandbox.run(&[&both[..], &["--compare", baseline]].concat());
        assert_eq!(outcome.status, 0, "{}", outcome.stderr);
        let told = format!("some/other: the baseline {baseline} was measured with");
        assert!(outcome.stderr.contains(&told), "{}", outcome.stderr);
        assert!(!outcome.stderr.contains("some/tiny: the baseline"), "{}", outcome.stderr);
    }
}

#[test]
#[cfg(target_os = "linux")]
fn memory_is_that_of_each_model() {
    let sandbox = with_tiny();
    let large = crate::sandbox::smollm2();
    let args = ["-p", "4", "-g", "1", "-r", "1", "--warmup", "0"];
    let data = bench(&sandbox, &[&[large.to_str().expect("UTF-8"), "tiny"], &args[..]].concat());
    let peak = |model: &str| {
        let mut results = data["results"].as_array().expect("results").iter();
        let found = results.find(|it| it["test"] == "peak_memory" && it["model"].as_str() == Some(model));
        found.unwrap_or_else(|| panic!("{model}: {data}"))["mean"].as_f64().expect("a number")
    };
    let (large, tiny) = (peak(large.to_str().expect("UTF-8")), peak("some/tiny"));
    assert!(tiny < 0.7 * large, "{tiny} after {large}");
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let sandbox = with_tiny();
    let embedder = embedder();
    let embedder = embedder.as_str();
    let cases: [(&[&str], i32, &str); 23] = [
        (&["tiny", "-p", "0", "-g", "0"], 2, "INVALID_REQUEST"),
        (&["tiny", "-p", "100000000"], 2, "INVALID_REQUEST"),
        (&["tiny", "-r", "0"], 2, "INVALID_REQUEST"),
        (&["tiny", "--against-command", "true", "--against-pattern", "("], 2, "INVALID_REQUEST"),
        (&["tiny", "--against-command", "true", "--against-pattern", "x"], 2, "INVALID_REQUEST"),
        (&["tiny", "--compare", "no-such-file.json"], 3, "FILE_NOT_FOUND"),
        (&["tiny", "--export", "results.txt"], 2, "INVALID_REQUEST"),
        (&["tiny", "--export", "."], 2, "INVALID_REQUEST"),
        (&["tiny", "--export", "no-such-folder/results.csv"], 3, "FILE_NOT_FOUND"),
        (&["tiny", "--plot", "chart.png"], 2, "INVALID_REQUEST"),
        (&["tiny", "--against", "llama3"], 2, "INVALID_REQUEST"),
        (&["tiny", "--store"], 2, "INVALID_REQUEST"),
        (&["--store", "-p", "8"], 2, "INVALID_REQUEST"),
        (&["--store", "--threads", "1"], 2, "INVALID_REQUEST"),
        (&["--history"], 3, "FILE_NOT_FOUND"),
        (&["nothing/here"], 6, "OFFLINE"),
        (&["tiny", "--batch", "0"], 2, "INVALID_REQUEST"),
        (&[embedder, "-g", "8"], 7, "CAPABILITY_MISSING"),
        (&[embedder, "tiny", "--depth", "8"], 7, "CAPABILITY_MISSING"),
        (&[embedder, "--against-command", "true"], 7, "CAPABILITY_MISSING"),
        (&[embedder, "-p", "100000"], 2, "INVALID_REQUEST"),
        (&[embedder, "-p", "0"], 2, "INVALID_REQUEST"),
        (&["--store", "--batch", "2"], 2, "INVALID_REQUEST"),
    ];
    for (args, status, code) in cases {
        let (ended, error) = sandbox.error(&[&["bench"], args].concat());
        assert_eq!((ended, error["code"].as_str()), (status, Some(code)), "{args:?}: {error}");
    }
}

#[test]
fn results_are_a_table_markdown_or_csv() {
    let sandbox = with_tiny();
    let printed = |format: &str| {
        let outcome = sandbox.run(&["bench", "tiny", "-p", "4", "-g", "2", "-r", "2", "--format", format]);
        assert_eq!(outcome.status, 0, "{}", outcome.stderr);
        outcome.stdout
    };
    let table = printed("table");
    assert!(table.starts_with("MODEL") && table.contains("tg2") && table.contains("tok/s"), "{table}");
    let markdown = printed("markdown");
    assert!(
        markdown.starts_with("| model | test |") && markdown.contains("| some/tiny | pp4 |"),
        "{markdown}"
    );
    let csv = printed("csv");
    let mut lines = csv.lines();
    let head = lines.next().expect("a head");
    assert!(lines.clone().count() >= 5);
    assert!(lines.all(|line| line.split(',').count() == head.split(',').count()), "{csv}");
    let json = crate::sandbox::envelope(&printed("json"));
    assert_eq!(json["data"]["results"][0]["model"], "some/tiny");
    // Errors are JSON then too, also where the arguments make no sense.
    for wrong in [&["bench", "no/such", "--format", "json"][..], &["bench", "--format=json", "--nonsense"]] {
        let outcome = sandbox.run(wrong);
        assert_eq!(crate::sandbox::envelope(&outcome.stdout)["status"], "error", "{wrong:?}");
        assert!(outcome.stderr.is_empty(), "{}", outcome.stderr);
    }
}
