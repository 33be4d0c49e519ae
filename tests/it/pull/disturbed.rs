//! Everything that can go wrong on the way: in the end there are the exact bytes or an error with a code.

use std::time::{Duration, Instant};

use super::*;
use crate::hub::{ALWAYS, Fault, On, Seen, noise, unix_date};

/// A model with files of both kinds, among them an empty one and two that are the same.
fn model() -> Repository {
    Repository::tiny("org/tiny")
        .file("empty.json", "")
        .file("generation_config.json", "{\"eos_token_id\": 2}\n")
        .file("special_tokens_map.json", "{}\n")
        .file("added_tokens.json", "{}\n")
        .large("model-00002-of-00002.safetensors", noise(1, 700_000))
}

fn payload(path: &str) -> On {
    On::Payload(path.to_owned())
}

fn address(path: &str) -> On {
    On::Address(path.to_owned())
}

/// One thing that goes wrong, and what must come of it.
#[derive(Debug)]
struct Case {
    on: On,
    skip: u32,
    times: u32,
    fault: Fault,
    /// Codes that the pull may end with; none if it must succeed.
    codes: &'static [&'static str],
}

fn survives(on: On, times: u32, fault: Fault) -> Case {
    Case { on, skip: 0, times, fault, codes: &[] }
}

fn ends(on: On, fault: Fault, codes: &'static [&'static str]) -> Case {
    Case { on, skip: 0, times: ALWAYS, fault, codes }
}

/// Pulls with the fault; where that ends with an error, pulls again once the fault is gone.
fn check(case: &Case) {
    let (sandbox, repository) = (Sandbox::new(), model());
    let hub = Hub::with(repository.clone());
    hub.fault_after(case.skip, case.on.clone(), case.times, case.fault.clone());
    if !case.codes.is_empty() {
        // Less patience than usual, since it is in vain.
        let mut command = command(&sandbox, &hub, &["org/tiny"]);
        let error = fails(&sandbox, command.env("MLX_CACHE_HTTP_RETRIES", "2"), case.codes);
        assert!(
            sandbox.json(&["list"]).1["data"]["models"].as_array().expect("a list").is_empty(),
            "{error}"
        );
        hub.heal();
    }
    let pulled = pull_one(&sandbox, &hub, &["org/tiny"]);
    assert_all(&folder(&pulled), &repository);
    assert_eq!(left_in(&sandbox, "incomplete"), [""; 0]);
    assert_eq!(left_in(&sandbox, "locks"), [""; 0]);
}

#[test]
fn cuts_at_any_place_of_any_file_are_mended() {
    let mut cases = Vec::new();
    let repository = model();
    for path in repository.paths() {
        let length = repository.content(&path).len() as u64;
        let mut places = vec![0, 1, length / 2, length.saturating_sub(1), 65_536, 300_000];
        places.retain(|place| *place < length);
        places.sort_unstable();
        places.dedup();
        cases.extend(places.into_iter().map(|place| survives(payload(&path), 1, Fault::Cut(place))));
    }
    // Progress counts: a connection that breaks again and again but brings something is not given up on.
    cases.push(survives(payload("model.safetensors"), 12, Fault::Cut(30_000)));
    cases.push(survives(On::Tree, 1, Fault::Cut(10)));
    cases.push(survives(On::Info, 1, Fault::Cut(10)));
    cases.push(survives(On::Everything, 2, Fault::Reset));
    for_each(cases, check);
}

#[test]
fn a_connection_that_always_breaks_is_an_error_in_the_end() {
    const BROKEN: &[&str] = &["NETWORK_ERROR", "TIMEOUT", "HUB_UNAVAILABLE"];
    for_each(
        vec![
            ends(payload("model.safetensors"), Fault::Cut(0), BROKEN),
            ends(payload("config.json"), Fault::Cut(100), BROKEN),
            ends(payload("model.safetensors"), Fault::Reset, BROKEN),
            ends(payload("tokenizer.json"), Fault::Silence, BROKEN),
            ends(payload("model.safetensors"), Fault::Stall(0), BROKEN),
            ends(On::Info, Fault::Reset, BROKEN),
            ends(On::Info, Fault::Silence, BROKEN),
            ends(On::Tree, Fault::Cut(20), BROKEN),
            ends(On::Tree, Fault::Stall(20), BROKEN),
        ],
        check,
    );
}

#[test]
fn wrong_content_is_fetched_once_more_and_never_kept() {
    const WRONG: &[&str] = &["INTEGRITY_FAILED"];
    let mut cases = Vec::new();
    for (path, place) in [("model.safetensors", 100_000), ("config.json", 0), ("tokenizer.json", 4000)] {
        cases.push(survives(payload(path), 1, Fault::Corrupt(place)));
        cases.push(ends(payload(path), Fault::Corrupt(place), WRONG));
        cases.push(survives(payload(path), 1, Fault::Instead(noise(7, model().content(path).len()))));
        cases.push(ends(payload(path), Fault::Instead(noise(7, model().content(path).len())), WRONG));
    }
    for path in ["model-00002-of-00002.safetensors", "tokenizer.json"] {
        cases.push(survives(payload(path), 1, Fault::Short(1000)));
        cases.push(survives(payload(path), 1, Fault::Short(0)));
        cases.push(survives(payload(path), 1, Fault::Longer(1)));
        let codes = &["INTEGRITY_FAILED", "NETWORK_ERROR"];
        cases.push(ends(payload(path), Fault::Short(1000), codes));
        cases.push(ends(payload(path), Fault::Longer(70_000), codes));
    }
    // A file where the listing has none to speak of.
    cases.push(survives(payload("empty.json"), 1, Fault::Longer(10)));
    for_each(cases, check);
}

#[test]
fn a_corrupt_file_is_fetched_twice_and_no_more() {
    let (sandbox, hub) = (Sandbox::new(), Hub::with(model()));
    hub.fault(payload("model.safetensors"), ALWAYS, Fault::Corrupt(5));
    let error = refused(&sandbox, &hub, &["org/tiny"], &["INTEGRITY_FAILED"]);
    assert!(error["message"].as_str().expect("a text").contains("model.safetensors"), "{error}");
    let sent: u64 =
        hub.seen().iter().filter(|seen| seen.on == payload("model.safetensors")).map(Seen::sent).sum();
    let size = model().content("model.safetensors").len() as u64;
    assert!(sent <= 2 * size, "{sent} bytes of {size} were fetched");
    // What was right is kept for the next time.
    hub.heal();
    hub.forget();
    pull(&sandbox, &hub, &["org/tiny"]);
    assert!(hub.traffic() <= size + 10_000, "{} bytes", hub.traffic());
}

#[test]
fn stalls_and_slow_answers_are_waited_for_and_then_mended() {
    for_each(
        vec![
            survives(payload("model.safetensors"), 1, Fault::Stall(100_000)),
            survives(payload("config.json"), 1, Fault::Stall(0)),
            survives(payload("tokenizer.json"), 1, Fault::Silence),
            survives(On::Info, 1, Fault::Silence),
            survives(On::Tree, 1, Fault::Stall(7)),
            survives(address("model.safetensors"), 1, Fault::Silence),
            survives(payload("model.safetensors"), 1, Fault::Wait(Duration::from_millis(150))),
        ],
        check,
    );
}

#[test]
fn a_busy_hub_is_asked_again() {
    let mut cases = Vec::new();
    for status in [408, 429, 500, 502, 503, 504] {
        for on in
            [On::Info, On::Tree, address("config.json"), payload("config.json"), payload("model.safetensors")]
        {
            cases.push(survives(on, 3, Fault::status(status)));
        }
    }
    cases.push(survives(On::Everything, 4, Fault::status(503)));
    cases.push(survives(payload("model.safetensors"), 1, Fault::too_many(1)));
    cases.push(survives(On::Info, 1, Fault::too_many(unix_date(Duration::from_secs(2)))));
    cases.push(survives(On::Tree, 2, Fault::too_many(0)));
    cases.push(survives(payload("config.json"), 1, Fault::too_many("soon")));
    for_each(cases, check);
}

#[test]
fn a_hub_that_stays_busy_is_told() {
    let mut cases = Vec::new();
    for on in [On::Info, On::Tree, address("config.json"), payload("model.safetensors")] {
        cases.push(ends(on.clone(), Fault::status(429), &["QUOTA_EXCEEDED"]));
        cases.push(ends(on.clone(), Fault::status(500), &["HUB_UNAVAILABLE"]));
        cases.push(ends(on, Fault::status(503), &["HUB_UNAVAILABLE"]));
    }
    // Nobody waits for a day.
    cases.push(ends(On::Info, Fault::too_many(86_400), &["QUOTA_EXCEEDED"]));
    cases.push(ends(payload("config.json"), Fault::too_many(u64::MAX), &["QUOTA_EXCEEDED"]));
    for_each(cases, check);
}

#[test]
fn retry_after_is_honoured() {
    for (on, is_date) in [(payload("config.json"), false), (On::Info, true)] {
        let (sandbox, hub) = (Sandbox::new(), Hub::with(model()));
        // A date has whole seconds: of two there is at least one to wait for.
        let when = if is_date { unix_date(Duration::from_secs(2)) } else { "1".to_owned() };
        hub.fault(on.clone(), 1, Fault::too_many(&when));
        let started = Instant::now();
        pull(&sandbox, &hub, &["org/tiny"]);
        assert!(started.elapsed() >= Duration::from_millis(900), "{when}: it did not wait");
        assert_eq!(hub.requests(&on), 2);
    }
}

#[test]
fn a_hub_that_is_gone_for_a_moment_is_waited_for() {
    let (sandbox, repository) =
        (Sandbox::new(), model().large("model-00003-of-00003.safetensors", noise(2, 4_000_000)));
    let hub = Hub::with(repository.clone());
    hub.rate(4_000_000);
    thread::scope(|scope| {
        let pulling = scope.spawn(|| pull_one(&sandbox, &hub, &["org/tiny"]));
        while hub.traffic() < 1_000_000 {
            thread::sleep(Duration::from_millis(2));
        }
        hub.refuse_for(Duration::from_millis(80));
        assert_all(&folder(&pulling.join().expect("a pull")), &repository);
    });

    // Gone before the first word it may be no hub at all: that is told soon, and the next pull succeeds.
    let sandbox = Sandbox::new();
    hub.rate(0);
    hub.refuse_for(Duration::from_millis(500));
    refused(&sandbox, &hub, &["org/tiny"], &["NETWORK_ERROR"]);
    thread::sleep(Duration::from_millis(600));
    assert_all(&folder(&pull_one(&sandbox, &hub, &["org/tiny"])), &repository);
}

#[test]
fn a_hub_that_is_not_there_is_a_network_error() {
    let (sandbox, hub) = (Sandbox::new(), Hub::with(model()));
    let gone = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let mut command = command(&sandbox, &hub, &["org/tiny"]);
    let error = fails(&sandbox, command.env("HF_ENDPOINT", format!("http://{gone}")), &["NETWORK_ERROR"]);
    assert!(error["retryable"] == true, "{error}");
    let mut command = super::command(&sandbox, &hub, &["org/tiny"]);
    fails(&sandbox, command.env("HF_ENDPOINT", "http://no-such-host.invalid"), &["NETWORK_ERROR"]);
}

#[test]
fn odd_servers_are_coped_with() {
    let mut cases = Vec::new();
    let path = "model-00002-of-00002.safetensors";
    cases.push(survives(payload(path), ALWAYS, Fault::IgnoreRange));
    cases.push(survives(On::Payloads, ALWAYS, Fault::NoEtag));
    cases.push(survives(address(path), ALWAYS, Fault::NoEtag));
    cases.push(survives(address("config.json"), ALWAYS, Fault::NoEtag));
    cases.push(survives(payload(path), 2, Fault::OtherRange(100)));
    // The hub moves on between the listing and the files: what was listed is what is fetched.
    let moves = || Fault::MoveMain { path: "config.json".to_owned(), content: b"{\"new\": true}".to_vec() };
    for on in [On::Info, On::Tree, address("config.json")] {
        cases.push(survives(on, 1, moves()));
    }
    for_each(cases, |case| {
        let (sandbox, repository) = (Sandbox::new(), model());
        let hub = Hub::with(repository.clone());
        hub.fault(case.on.clone(), case.times, case.fault.clone());
        // Whoever ignores ranges is met in the middle of a file, too.
        hub.fault(payload(path), 1, Fault::Cut(300_000));
        let pulled = pull_one(&sandbox, &hub, &["org/tiny"]);
        assert_eq!(pulled["revision"], repository.main(), "{pulled}");
        assert_all(&folder(&pulled), &repository);
    });
}

#[test]
fn resumed_where_ranges_are_ignored_it_starts_over() {
    let (sandbox, repository) = (Sandbox::new(), model());
    let hub = Hub::with(repository.clone());
    let path = "model-00002-of-00002.safetensors";
    hub.fault(payload(path), 1, Fault::Cut(400_000));
    hub.fault(payload(path), ALWAYS, Fault::Cut(0));
    refused(&sandbox, &hub, &["org/tiny"], &["NETWORK_ERROR", "TIMEOUT"]);
    hub.heal();
    hub.fault(On::Payloads, ALWAYS, Fault::IgnoreRange);
    let pulled = pull_one(&sandbox, &hub, &["org/tiny"]);
    assert_all(&folder(&pulled), &repository);
}

#[test]
fn a_file_of_another_revision_is_not_taken_for_this_one() {
    let (sandbox, hub) = (Sandbox::new(), Hub::with(model()));
    let other = "0123456789012345678901234567890123456789";
    hub.fault(payload("config.json"), ALWAYS, Fault::Instead(b"{}".to_vec()));
    hub.fault(On::Payloads, ALWAYS, Fault::Commit(other.to_owned()));
    refused(&sandbox, &hub, &["org/tiny"], &["INTEGRITY_FAILED"]);
}

#[test]
fn what_was_fetched_before_an_error_is_not_fetched_again() {
    let (sandbox, repository) =
        (Sandbox::new(), model().large("model-00003-of-00003.safetensors", noise(3, 2_000_000)));
    let hub = Hub::with(repository.clone());
    // Half of the largest file arrives, and then nothing any more.
    hub.fault(payload("model-00003-of-00003.safetensors"), 1, Fault::Cut(1_500_000));
    hub.fault(payload("model-00003-of-00003.safetensors"), ALWAYS, Fault::Cut(0));
    refused(&sandbox, &hub, &["org/tiny"], &["NETWORK_ERROR", "TIMEOUT"]);
    hub.heal();
    let before = hub.traffic();
    let pulled = pull_one(&sandbox, &hub, &["org/tiny"]);
    assert_all(&folder(&pulled), &repository);
    let (again, size) = (hub.traffic() - before, repository.bytes());
    assert!(again <= size - 1_200_000, "{again} bytes of {size} were fetched again");
}
