//! `config`, through the program.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::sandbox::{Sandbox, finish, json};

fn setting(envelope: &Value, key: &str) -> Value {
    let settings = envelope["data"]["settings"].as_array().expect("settings");
    settings.iter().find(|setting| setting["key"] == key).cloned().unwrap_or(Value::Null)
}

#[test]
fn each_value_says_where_it_comes_from() {
    let sandbox = Sandbox::new();
    sandbox.config("device = 'cpu'\nthreads = 3\n[aliases]\nsmall = 'org/name'\n");
    let (status, envelope) = json(sandbox.cmd(&["config", "--json"]).env("MLX_CACHE_THREADS", "5"));
    assert_eq!(status, 0);
    for (key, value, origin, variable) in [
        ("device", Value::from("cpu"), "file", Value::Null),
        ("threads", 5.into(), "environment", "MLX_CACHE_THREADS".into()),
        ("aliases.small", "org/name".into(), "file", Value::Null),
        ("offline", true.into(), "environment", "MLX_CACHE_OFFLINE".into()),
        ("default_model", Value::Null, "default", Value::Null),
    ] {
        let found = setting(&envelope, key);
        assert_eq!(
            (&found["value"], &found["origin"], &found["variable"]),
            (&value, &origin.into(), &variable)
        );
    }
}

#[test]
fn set_get_and_unset_go_through_the_file() {
    let sandbox = Sandbox::new();
    assert_eq!(sandbox.run(&["config", "set", "memory_limit", "8GB"]).status, 0);
    let file = sandbox.store().join("config.toml");
    assert_eq!(fs::read_to_string(&file).expect("config.toml"), "memory_limit = \"8GB\"\n");
    assert_eq!(fs::metadata(&file).expect("config.toml").permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(sandbox.store()).expect("the store").permissions().mode() & 0o777, 0o700);
    assert_eq!(sandbox.run(&["config", "get", "memory_limit"]).stdout, "8000000000\n");
    assert_eq!(sandbox.run(&["config", "unset", "memory_limit"]).status, 0);
    assert_eq!(sandbox.run(&["config", "get", "memory_limit"]).stdout, "\n");
    let again = sandbox.run(&["config", "unset", "memory_limit"]);
    assert_eq!((again.status, again.stderr.starts_with("warning: memory_limit is not set")), (0, true));
}

#[test]
fn a_value_that_the_environment_overrides_is_warned_about() {
    let sandbox = Sandbox::new();
    let outcome = finish(sandbox.cmd(&["config", "set", "device", "cpu"]).env("MLX_CACHE_DEVICE", "auto"));
    assert_eq!(outcome.status, 0);
    assert_eq!(outcome.stderr, "warning: MLX_CACHE_DEVICE is set and wins over config.toml\n");
}

#[test]
fn wrong_keys_and_values_are_refused_and_nothing_is_written() {
    let sandbox = Sandbox::new();
    for args in [
        ["config", "set", "nonsense", "1"],
        ["config", "set", "threads", "many"],
        ["config", "set", "aliases.../../x", "org/name"],
        ["config", "set", "default_model", "../../etc/\u{7}"],
        ["config", "set", "home", "/tmp"],
    ] {
        let (status, error) = sandbox.error(&args);
        assert_eq!((status, &error["code"]), (2, &"INVALID_REQUEST".into()), "{args:?}");
        assert!(error["hint"].is_string(), "{args:?}: {error}");
    }
    assert_eq!(sandbox.error(&["config", "get", "nonsense"]).0, 2);
    assert!(!sandbox.store().exists());
}

#[test]
fn a_broken_file_is_named_with_its_line_and_config_still_works() {
    let sandbox = Sandbox::new();
    sandbox.config("threads = 2\ndevice = 'tpu'\n");
    let shown = sandbox.run(&["config"]);
    assert_eq!(shown.status, 0);
    assert!(shown.stderr.contains("config.toml, line 2: device: 'tpu' is not a device"), "{}", shown.stderr);
    let (status, envelope) = sandbox.json(&["config"]);
    assert_eq!(status, 0);
    assert!(envelope["data"]["problem"].as_str().is_some_and(|problem| problem.contains("line 2")));
    let (status, error) = sandbox.error(&["config", "set", "threads", "4"]);
    assert_eq!(
        (status, &error["code"], &error["details"]["line"]),
        (2, &"INVALID_REQUEST".into(), &2.into())
    );
}

#[test]
fn a_file_that_is_no_text_or_no_file_is_an_error_with_a_code() {
    let sandbox = Sandbox::new();
    sandbox.config("");
    let file = sandbox.store().join("config.toml");
    fs::write(&file, [0xff, 0xfe, 0x00]).expect("config.toml");
    assert_eq!(sandbox.error(&["config", "set", "threads", "4"]).1["code"], "INVALID_REQUEST");
    fs::remove_file(&file).expect("remove");
    fs::create_dir(&file).expect("a folder in its place");
    assert_eq!(sandbox.error(&["config", "set", "threads", "4"]).1["code"], "IO_ERROR");
}

#[test]
fn a_token_is_told_of_and_never_shown() {
    let sandbox = Sandbox::new();
    for args in [vec!["config"], vec!["config", "--json"], vec!["config", "get", "hf_token"]] {
        let outcome = finish(sandbox.cmd(&args).env("HF_TOKEN", "hf_verysecret"));
        let all = outcome.stdout + &outcome.stderr;
        assert!(all.contains("present") && !all.contains("verysecret"), "{all}");
    }
}

#[test]
fn many_writers_lose_nothing() {
    let sandbox = Sandbox::new();
    let children: Vec<_> = (0..8)
        .map(|n| {
            let key = format!("aliases.a{n}");
            sandbox
                .cmd(&["config", "set", &key, "org/name", "--quiet"])
                .stdout(std::process::Stdio::null())
                .spawn()
                .expect("the program starts")
        })
        .collect();
    for mut child in children {
        assert!(child.wait().expect("an end").success());
    }
    let (_, envelope) = sandbox.json(&["config"]);
    for n in 0..8 {
        assert_eq!(setting(&envelope, &format!("aliases.a{n}"))["value"], "org/name");
    }
}
