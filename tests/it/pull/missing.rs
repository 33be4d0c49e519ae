//! Commands that are given a model which is not here.

use super::*;
use crate::sandbox;

/// SmolLM2-135M-Instruct as GGUF, at a hub.
fn smollm2() -> (Repository, Hub) {
    let content = fs::read(sandbox::smollm2()).expect("a model");
    let repository = Repository::new("org/SmolLM2-GGUF")
        .file("README.md", "words")
        .large("SmolLM2-135M-Instruct.Q4_1.gguf", content);
    let hub = Hub::with(repository.clone());
    (repository, hub)
}

const QUESTION: [&str; 6] = ["What is the capital of France?", "--temp", "0", "-n", "12", "--quiet"];

#[test]
fn a_model_is_pulled_and_run_and_then_needs_no_network() {
    let (sandbox, (repository, hub)) = (Sandbox::new(), smollm2());
    let reference = "org/SmolLM2-GGUF:Q4_1";
    let mut command = online(&sandbox, &hub, &[&["run", reference, "--yes"], &QUESTION[..]].concat());
    let outcome = run(&mut command);
    assert_eq!(outcome.status, 0, "{outcome:?}");
    assert!(outcome.stdout.contains("Paris"), "{outcome:?}");
    // A connection that gives the rest of its work to others may have sent a little more by then.
    let (traffic, size) = (hub.traffic(), repository.bytes() - 5);
    assert!((size..size + size / 20).contains(&traffic), "{traffic} bytes were sent for {size}");
    in_order(&sandbox);
    hub.forget();
    // Neither with nor without the network is anything asked again.
    let again = run(&mut online(&sandbox, &hub, &[&["run", reference], &QUESTION[..]].concat()));
    assert_eq!((again.status, &again.stdout), (0, &outcome.stdout), "{again:?}");
    let offline = sandbox.run(&[&["run", reference], &QUESTION[..]].concat());
    assert_eq!((offline.status, &offline.stdout), (0, &outcome.stdout), "{offline:?}");
    assert!(hub.seen().is_empty(), "{:?}", hub.seen());
}

#[test]
fn it_says_so_before_it_pulls() {
    let (sandbox, hub) = (Sandbox::new(), Hub::with(Repository::tiny("org/tiny")));
    let outcome = run(&mut online(&sandbox, &hub, &["run", "org/tiny", "hello", "-n", "1", "--yes"]));
    assert_eq!(outcome.status, 0, "{outcome:?}");
    assert!(outcome.stderr.contains("org/tiny"), "{outcome:?}");
    assert!(!outcome.stdout.contains("org/tiny"), "{outcome:?}");
    // Under --json there is one envelope, that of the run.
    let sandbox = Sandbox::new();
    let (status, envelope) =
        json(&mut online(&sandbox, &hub, &["run", "org/tiny", "hello", "-n", "1", "--yes", "--json"]));
    assert_eq!((status, &envelope["command"]), (0, &"run".into()), "{envelope}");
}

#[test]
fn without_leave_nothing_is_pulled() {
    let (sandbox, hub) = (Sandbox::new(), Hub::with(Repository::tiny("org/tiny")));
    let (status, envelope) = json(&mut online(&sandbox, &hub, &["run", "org/tiny", "hello", "--json"]));
    assert_eq!((status, &envelope["error"]["code"]), (3, &"MODEL_NOT_FOUND".into()), "{envelope}");
    assert!(envelope["error"]["hint"].as_str().expect("a hint").contains("pull"), "{envelope}");
    assert!(!sandbox.store().exists());
    sandbox.config("auto_pull = \"never\"\n");
    let outcome = run(&mut online(&sandbox, &hub, &["run", "org/tiny", "hello", "--json"]));
    assert_eq!(outcome.status, 3, "{outcome:?}");
    assert_eq!(hub.traffic(), 0);
}

#[test]
fn the_configuration_gives_leave() {
    let (sandbox, hub) = (Sandbox::new(), Hub::with(Repository::tiny("org/tiny")));
    sandbox.config("auto_pull = \"always\"\n");
    let outcome = run(&mut online(&sandbox, &hub, &["run", "org/tiny", "hello", "-n", "1"]));
    assert_eq!(outcome.status, 0, "{outcome:?}");
}

#[test]
fn offline_a_missing_model_is_told_as_such() {
    let (sandbox, hub) = (Sandbox::new(), Hub::with(Repository::tiny("org/tiny")));
    let mut command = online(&sandbox, &hub, &["run", "org/tiny", "hello", "--yes", "--json"]);
    let (_, envelope) = json(command.env("HF_HUB_OFFLINE", "1"));
    assert_eq!(envelope["error"]["code"], "OFFLINE", "{envelope}");
    assert!(hub.seen().is_empty());
    // What is no name of a model at the hub is not looked for there.
    let (_, envelope) = json(&mut online(&sandbox, &hub, &["run", "./none", "hello", "--yes", "--json"]));
    assert_eq!(envelope["error"]["code"], "MODEL_NOT_FOUND", "{envelope}");
    assert!(hub.seen().is_empty());
}

#[test]
fn a_pull_that_fails_is_the_runs_error() {
    let (sandbox, hub) = (Sandbox::new(), Hub::with(Repository::tiny("org/gated").gated(TOKEN)));
    for (name, code) in [("org/gated", "ACCESS_DENIED"), ("org/none", "MODEL_NOT_FOUND")] {
        let (_, envelope) = json(&mut online(&sandbox, &hub, &["run", name, "hello", "--yes", "--json"]));
        assert_eq!(
            (&envelope["command"], &envelope["error"]["code"]),
            (&"run".into(), &code.into()),
            "{envelope}"
        );
    }
    in_order(&sandbox);
}

#[test]
fn on_a_terminal_it_asks() {
    for (answer, status) in [("n\r", 3), ("y\r", 0)] {
        let (sandbox, hub) = (Sandbox::new(), Hub::with(Repository::tiny("org/tiny")));
        let command = online(&sandbox, &hub, &["run", "org/tiny", "hello", "-n", "1"]);
        let (ended, shown) = on_terminal(command, answer);
        assert_eq!(ended, Some(status), "{shown}");
        assert!(shown.contains("org/tiny") && shown.contains('?'), "{shown}");
        assert_eq!(hub.traffic() > 0, status == 0, "{shown}");
    }
}
