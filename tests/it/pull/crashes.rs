//! Pulls that end in the middle, and several at once.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::*;
use crate::hub::{On, noise};

/// Weights of this many bytes in several files, beside the files of a tiny model.
fn model(bytes: usize) -> Repository {
    let mut repository = Repository::tiny("org/tiny");
    for (at, share) in [2, 3, 5].into_iter().enumerate() {
        repository = repository
            .large(&format!("model-0000{at}-of-00003.safetensors"), noise(at as u64, bytes * share / 10));
    }
    repository
}

fn start(sandbox: &Sandbox, hub: &Hub) -> Child {
    let mut command = command(sandbox, hub, &["org/tiny"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("mlx-cache runs")
}

#[test]
fn killed_at_twenty_moments_it_fetches_little_more_than_the_model() {
    const KILLS: u32 = 20;
    let (sandbox, repository) = (Sandbox::new(), model(64_000_000));
    let hub = Hub::with(repository.clone());
    hub.rate(20_000_000);
    let mut random = fastrand::Rng::new();
    let seed = random.get_seed();
    let mut killed = 0;
    for at in 0..KILLS {
        let before = hub.traffic();
        let mut child = start(&sandbox, &hub);
        let started = Instant::now();
        // Some of them before anything comes, most while it does.
        while at % 4 != 0 && hub.traffic() == before && started.elapsed() < Duration::from_secs(10) {
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_micros(random.u64(0..60_000)));
        child.kill().expect("killed");
        killed += u32::from(!child.wait().expect("ended").success());
        visible_is_whole(&sandbox);
    }
    assert!(killed >= KILLS / 2, "only {killed} were killed before their end (seed {seed})");
    hub.rate(0);
    let pulled = pull_one(&sandbox, &hub, &["org/tiny"]);
    assert_all(&folder(&pulled), &repository);
    let (traffic, size) = (hub.traffic(), repository.bytes());
    assert!(traffic * 10 < size * 13, "{traffic} bytes were sent for {size} (seed {seed})");
    assert_eq!(left_in(&sandbox, "incomplete"), [""; 0]);
}

/// What can be checked after each kill without reading everything.
fn visible_is_whole(sandbox: &Sandbox) {
    let listed = sandbox.json(&["list"]).1["data"]["models"].as_array().expect("a list").clone();
    for model in listed {
        assert_eq!(model["status"], "ok", "{model}");
    }
    for (name, path) in files_of_store(&sandbox.store().join("blobs/sha256")) {
        let digest = name.rsplit('/').next().expect("a name");
        assert_eq!(sha256(&fs::read(path).expect("content")), digest, "half a blob is visible");
    }
}

#[test]
fn four_at_once_fetch_it_once() {
    let (sandbox, repository) = (Sandbox::new(), model(8_000_000));
    let hub = Hub::with(repository.clone());
    hub.rate(16_000_000);
    let children: Vec<Child> = (0..4).map(|_| start(&sandbox, &hub)).collect();
    let mut downloaded = 0;
    for child in children {
        let output = child.wait_with_output().expect("ended");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        let envelope = crate::sandbox::envelope(&text);
        let pulled = &envelope["data"]["models"][0];
        downloaded += number(pulled, "bytes_downloaded");
        assert_all(&folder(pulled), &repository);
    }
    in_order(&sandbox);
    let (traffic, size) = (hub.traffic(), repository.bytes());
    assert!(traffic < size + size / 100, "{traffic} bytes were sent for {size}");
    assert!((size..size + size / 100).contains(&downloaded), "{downloaded} bytes are reported for {size}");
    assert_eq!(left_in(&sandbox, "incomplete"), [""; 0]);
    assert_eq!(left_in(&sandbox, "locks"), [""; 0]);
}

#[test]
fn what_slow_connections_share_out_is_kept_when_it_is_killed() {
    const FILE: &str = "model-00000-of-00003.safetensors";
    let sandbox = Sandbox::new();
    let repository = Repository::tiny("org/tiny").large(FILE, noise(9, 96_000_000));
    let hub = Hub::with(repository.clone());
    // Of each connection: slow enough for more of them to help.
    hub.rate(16_000_000);
    let mut child = start(&sandbox, &hub);
    let ranges = || {
        let seen = hub.seen();
        let of_file = seen.iter().filter(|request| request.on == On::Payload(FILE.to_owned()));
        of_file.filter_map(|request| request.header("range").map(str::to_owned)).collect::<Vec<_>>()
    };
    let started = Instant::now();
    while ranges().len() < 3 || hub.traffic() < 40_000_000 {
        assert!(child.try_wait().expect("a status").is_none(), "it ended with the ranges {:?}", ranges());
        assert!(started.elapsed() < Duration::from_mins(1), "only {:?}", ranges());
        thread::sleep(Duration::from_millis(2));
    }
    child.kill().expect("killed");
    assert!(!child.wait().expect("ended").success());
    visible_is_whole(&sandbox);
    let before = ranges();
    assert!(before.iter().any(|range| !range.starts_with("bytes=0-")), "{before:?}");
    let pulled = pull_one(&sandbox, &hub, &["org/tiny"]);
    assert_all(&folder(&pulled), &repository);
    let (traffic, size) = (hub.traffic(), repository.bytes());
    assert!(traffic * 10 < size * 11, "{traffic} bytes were sent for {size}");
    assert!(number(&pulled, "bytes_downloaded") < size - 30_000_000, "{pulled}");
}

#[test]
fn gc_takes_nothing_from_a_pull_beside_it() {
    let (sandbox, repository) = (Sandbox::new(), model(16_000_000));
    let hub = Hub::with(repository.clone());
    hub.rate(8_000_000);
    let mut child = start(&sandbox, &hub);
    let mut collections = 0;
    while child.try_wait().expect("a status").is_none() {
        let outcome = sandbox.run(&["gc", "--yes"]);
        assert_eq!(outcome.status, 0, "{outcome:?}");
        collections += 1;
    }
    let output = child.wait_with_output().expect("ended");
    assert!(output.status.success(), "{output:?}");
    assert!(collections > 1, "gc never ran beside it");
    let envelope = crate::sandbox::envelope(&String::from_utf8(output.stdout).expect("UTF-8"));
    assert_all(&folder(&envelope["data"]["models"][0]), &repository);
    in_order(&sandbox);
    let (traffic, size) = (hub.traffic(), repository.bytes());
    assert!(traffic < size + size / 100, "{traffic} bytes were sent for {size}");
}

#[test]
fn one_that_waits_takes_over_from_one_that_dies() {
    let (sandbox, repository) = (Sandbox::new(), model(8_000_000));
    let hub = Hub::with(repository.clone());
    hub.rate(4_000_000);
    let mut first = start(&sandbox, &hub);
    let started = Instant::now();
    while hub.traffic() < 2_000_000 && started.elapsed() < Duration::from_secs(30) {
        thread::sleep(Duration::from_millis(2));
    }
    let second = start(&sandbox, &hub);
    thread::sleep(Duration::from_millis(100));
    first.kill().expect("killed");
    assert!(!first.wait().expect("ended").success());
    hub.rate(0);
    let output = second.wait_with_output().expect("ended");
    assert!(output.status.success(), "{output:?}");
    in_order(&sandbox);
    let (traffic, size) = (hub.traffic(), repository.bytes());
    assert!(traffic * 10 < size * 15, "{traffic} bytes were sent for {size}");
}

#[test]
fn interrupted_it_ends_with_130_and_goes_on_next_time() {
    let (sandbox, repository) = (Sandbox::new(), model(8_000_000));
    let hub = Hub::with(repository.clone());
    for signal in [Signal::INT, Signal::TERM] {
        hub.rate(2_000_000);
        let before = hub.traffic();
        let child = start(&sandbox, &hub);
        let started = Instant::now();
        while hub.traffic() < before + 1_500_000 && started.elapsed() < Duration::from_secs(30) {
            thread::sleep(Duration::from_millis(2));
        }
        kill_process(Pid::from_child(&child), signal).expect("signalled");
        let output = child.wait_with_output().expect("ended");
        assert_eq!(output.status.code(), Some(130), "{output:?}");
        let envelope = crate::sandbox::envelope(&String::from_utf8(output.stdout).expect("UTF-8"));
        assert_eq!(envelope["error"]["code"], "INTERRUPTED", "{envelope}");
        in_order(&sandbox);
    }
    hub.rate(0);
    pull(&sandbox, &hub, &["org/tiny"]);
    let (traffic, size) = (hub.traffic(), repository.bytes());
    assert!(traffic * 10 < size * 13, "{traffic} bytes were sent for {size}");
}

#[test]
fn a_store_that_moves_forward_while_it_pulls_stays_in_order() {
    let (sandbox, repository) = (Sandbox::new(), model(4_000_000));
    let hub = Hub::with(repository.clone());
    hub.put(Repository::tiny("org/other"));
    hub.rate(8_000_000);
    thread::scope(|scope| {
        let pulling = scope.spawn(|| json(&mut command(&sandbox, &hub, &["org/tiny"])));
        for _ in 0..3 {
            // What is being registered meanwhile may be seen half: the order is looked at in the end.
            let (status, envelope) = json(&mut command(&sandbox, &hub, &["org/other"]));
            assert_eq!(status, 0, "{envelope}");
            let (status, envelope) = sandbox.json(&["rm", "org/other", "--yes"]);
            assert_eq!(status, 0, "{envelope}");
        }
        assert_eq!(pulling.join().expect("a pull").0, 0);
    });
    let pulled = pull_one(&sandbox, &hub, &["org/tiny"]);
    assert_all(&folder(&pulled), &repository);
}
