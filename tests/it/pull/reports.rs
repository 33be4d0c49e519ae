//! What a pull says while it goes and when it is done.

use std::io::Read;
use std::time::Duration;

use super::*;
use crate::hub::{Fault, On, noise};
use crate::sandbox::{assert_valid, envelope};

fn model() -> Repository {
    Repository::tiny("org/tiny").large("model-00002-of-00002.safetensors", noise(1, 2_000_000))
}

#[test]
fn to_a_person_it_says_what_came_and_where_it_is() {
    let (sandbox, repository) = (Sandbox::new(), model());
    let hub = Hub::with(repository.clone());
    let outcome = run(&mut online(&sandbox, &hub, &["pull", "org/tiny"]));
    assert_eq!((outcome.status, outcome.stderr.as_str()), (0, ""), "{outcome:?}");
    assert!(outcome.stdout.contains("org/tiny") && outcome.stdout.contains("MB"), "{}", outcome.stdout);
    assert!(!outcome.stdout.contains('\u{1b}'), "{}", outcome.stdout);
    let quiet = run(&mut online(&sandbox, &hub, &["pull", "org/tiny", "--quiet"]));
    assert_eq!((quiet.status, quiet.stderr.as_str()), (0, ""), "{quiet:?}");
}

#[test]
fn on_a_terminal_there_is_progress_for_each_file() {
    let (sandbox, hub) = (Sandbox::new(), Hub::with(model()));
    hub.rate(3_000_000);
    let (status, shown) = on_terminal(online(&sandbox, &hub, &["pull", "org/tiny"]), "");
    assert_eq!(status, Some(0), "{shown}");
    for part in ["model-00002-of-00002.safetensors", "/s"] {
        assert!(shown.contains(part), "no {part} in {shown}");
    }
}

#[test]
fn events_are_lines_of_json_and_the_last_is_the_envelope() {
    let (sandbox, repository) = (Sandbox::new(), model());
    let hub = Hub::with(repository.clone());
    hub.rate(6_000_000);
    hub.fault(On::Payload("config.json".to_owned()), 1, Fault::status(503));
    let outcome = run(&mut online(&sandbox, &hub, &["pull", "org/tiny", "--progress-json"]));
    assert_eq!((outcome.status, outcome.stderr.as_str()), (0, ""), "{outcome:?}");
    let (events, last) = outcome.stdout.trim_end().rsplit_once('\n').expect("several lines");
    let last = envelope(&format!("{last}\n"));
    assert_eq!(number(&last["data"]["models"][0], "bytes_downloaded"), repository.bytes());
    let events: Vec<Value> = events.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    for event in &events {
        assert_valid(event, "pull-event");
        assert!(event["event"].is_string(), "{event}");
    }
    assert!(events.len() >= 3, "{events:?}");
    // An error is the last line, too.
    let outcome = run(&mut online(&sandbox, &hub, &["pull", "org/none", "--progress-json"]));
    let last = outcome.stdout.trim_end().lines().last().expect("a line");
    assert_eq!(envelope(&format!("{last}\n"))["error"]["code"], "MODEL_NOT_FOUND");
    assert_eq!(outcome.stderr, "");
}

#[test]
fn a_dry_run_changes_nothing_and_says_what_a_pull_would_do() {
    let (sandbox, repository) = (Sandbox::new(), model());
    let hub = Hub::with(repository.clone());
    let planned = pull_one(&sandbox, &hub, &["org/tiny", "--dry-run"]);
    assert!(!sandbox.store().exists(), "a dry run made a store");
    assert_eq!(hub.traffic(), 0);
    assert_eq!(planned["revision"], repository.main());
    assert_eq!(number(&planned, "bytes_total"), repository.bytes());
    assert_eq!(number(&planned, "files"), repository.paths().len() as u64);
    let outcome = run(&mut online(&sandbox, &hub, &["pull", "org/tiny", "--dry-run"]));
    assert_eq!(outcome.status, 0, "{outcome:?}");
    for path in repository.paths() {
        assert!(outcome.stdout.contains(&path), "no {path} in {}", outcome.stdout);
    }
    // Half of it is here.
    hub.fault(On::Payload("model.safetensors".to_owned()), u32::MAX, Fault::status(403));
    refused(&sandbox, &hub, &["org/tiny"], &["ACCESS_DENIED"]);
    let before = stored(&sandbox);
    let planned = pull_one(&sandbox, &hub, &["org/tiny", "--dry-run"]);
    assert_eq!(stored(&sandbox), before);
    assert!(number(&planned, "bytes_reused") <= before, "{planned}");
}

#[test]
fn errors_are_two_lines_for_a_person() {
    let (sandbox, hub) = (Sandbox::new(), Hub::with(model()));
    let outcome = run(&mut online(&sandbox, &hub, &["pull", "org/none"]));
    assert_eq!((outcome.status, outcome.stdout.as_str()), (3, ""));
    let lines: Vec<&str> = outcome.stderr.lines().collect();
    assert!(
        matches!(lines[..], [error, hint] if error.starts_with("error: ") && hint.starts_with("hint: ")),
        "{lines:?}"
    );
}

#[test]
fn a_reader_that_goes_away_does_not_break_the_pull() {
    let (sandbox, repository) = (Sandbox::new(), model());
    let hub = Hub::with(repository.clone());
    let mut command = online(&sandbox, &hub, &["pull", "org/tiny", "--progress-json"]);
    let mut child = command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("it starts");
    drop(child.stdout.take());
    let started = std::time::Instant::now();
    while child.try_wait().expect("a child").is_none() {
        assert!(started.elapsed() < Duration::from_secs(20), "it goes on");
        thread::sleep(Duration::from_millis(5));
    }
    let mut told = String::new();
    child.stderr.take().expect("a pipe").read_to_string(&mut told).expect("UTF-8");
    assert_eq!(told, "");
    in_order(&sandbox);
}
