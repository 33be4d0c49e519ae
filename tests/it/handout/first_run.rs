//! `mlx-cache` alone, on a machine where it has no model yet, and `recommend`.

use std::fs;

use super::tiny;
use crate::models::{COMMIT, place_in_hub};
use crate::sandbox::{Sandbox, finish, json};

#[test]
fn without_a_model_the_program_says_what_is_here_and_what_to_type() {
    let sandbox = Sandbox::new();
    place_in_hub(&sandbox, "llama_tied", "models--some--tiny", COMMIT);
    let outcome = sandbox.run::<&str>(&[]);
    assert_eq!((outcome.status, outcome.stderr.as_str()), (0, ""));
    let text = outcome.stdout;
    for told in
        ["There is no model in", "device ", "memory ", "disk ", "hf ", "1 model, ", "Next: mlx-cache add hf"]
    {
        assert!(text.contains(told), "no '{told}' in:\n{text}");
    }
    assert!(text.lines().count() <= 20, "a few lines:\n{text}");
    assert!(!sandbox.store().exists(), "nothing is made");
    // What it says to type is what works.
    let next = text.lines().find_map(|line| line.strip_prefix("Next: mlx-cache ")).expect("a command");
    let added = sandbox.run(&next.split(' ').collect::<Vec<_>>());
    assert_eq!(added.status, 0, "{added:?}");
    let help = sandbox.run::<&str>(&[]);
    assert!(help.stdout.contains("Usage: mlx-cache"), "{}", help.stdout);
}

#[test]
fn the_same_in_json_has_three_models_that_fit() {
    let sandbox = Sandbox::new();
    // So that it does not depend on this machine: a limit that every one has.
    let run = |limit: &str| {
        let (status, envelope) = json(sandbox.cmd(&["--json"]).env("MLX_CACHE_MEMORY_LIMIT", limit));
        assert_eq!(status, 0, "{envelope}");
        envelope["data"].clone()
    };
    let data = run("4500MB");
    let models = data["models"].as_array().expect("models");
    assert_eq!(models.len(), 3, "{data}");
    for model in models {
        assert_eq!((&model["fits"], &model["slow"]), (&true.into(), &false.into()), "{model}");
        assert!(model["memory_bytes"].as_u64() > model["bytes"].as_u64(), "{model}");
        assert!(model["memory_bytes"].as_u64() <= Some(3_150_000_000), "{model}");
    }
    let next = data["next"].as_array().expect("commands");
    assert!(next[0].as_str().is_some_and(|it| it.starts_with("mlx-cache run qwen3-4b ")), "{next:?}");
    assert!(data["machine"]["free_memory_bytes"].as_u64() <= Some(4_500_000_000));
    let data = run("1MB");
    assert_eq!((&data["models"], &data["next"]), (&serde_json::json!([]), &serde_json::json!([])));
}

#[test]
fn the_whole_list_tells_what_does_not_fit() {
    let sandbox = Sandbox::new();
    let text = finish(sandbox.cmd(&["recommend", "--all"]).env("MLX_CACHE_MEMORY_LIMIT", "1GB")).stdout;
    assert!(text.contains("Llama-3.3-70B-Instruct-4bit (too large now)"), "{text}");
    assert!(text.lines().any(|line| line.starts_with("smollm2-135m") && !line.contains('(')), "{text}");
    let (_, envelope) = sandbox.json(&["recommend", "--all", "--use", "code"]);
    let models = envelope["data"]["models"].as_array().expect("models").clone();
    assert!(models.len() > 1 && models.iter().all(|model| model["use"] == "code"), "{models:?}");
    let mut command = sandbox.cmd(&["recommend", "--use", "embed", "--json"]);
    let (_, envelope) = json(command.env("MLX_CACHE_MEMORY_LIMIT", "1200MB"));
    let models = envelope["data"]["models"].as_array().expect("models").clone();
    assert!(models.len() > 1 && models.iter().all(|model| model["use"] == "embed"), "{models:?}");
    let next = envelope["data"]["next"][0].as_str().expect("a command").to_owned();
    assert!(next.starts_with("mlx-cache embed nomic-embed "), "{next}");
}

#[test]
fn what_cannot_be_read_is_no_reason_to_refuse_help() {
    let sandbox = Sandbox::new();
    sandbox.config("nonsense = 1\n");
    let help = sandbox.run::<&str>(&[]);
    assert_eq!((help.status, help.stderr.as_str()), (0, ""));
    assert!(help.stdout.contains("Usage: mlx-cache"));
    assert_eq!(sandbox.json(&[]).0, 2, "a program is told");
    fs::remove_file(sandbox.store().join("config.toml")).expect("gone");
    fs::write(sandbox.store().join("registry.db"), "no database").expect("written");
    assert!(sandbox.run::<&str>(&[]).stdout.contains("Usage: mlx-cache"));
    let help = finish(sandbox.cmd::<&str>(&[]).env_remove("HOME"));
    assert!(help.stdout.contains("Usage: mlx-cache"));
}

#[test]
fn models_in_the_store_bring_back_help_and_json_stays() {
    let sandbox = Sandbox::new();
    let tiny = tiny();
    assert_eq!(sandbox.run(&["add", tiny.to_str().expect("UTF-8"), "--name", "some/tiny"]).status, 0);
    assert!(sandbox.run::<&str>(&[]).stdout.contains("Usage: mlx-cache"));
    let (status, envelope) = sandbox.json(&[]);
    assert_eq!((status, &envelope["data"]["store"]["models"]), (0, &1.into()), "{envelope}");
}
