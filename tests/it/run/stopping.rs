//! Ctrl-C, and readers that go away.

use std::io::{BufRead, BufReader, Read};
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::*;

/// Long enough for any test machine to be in the middle of it.
const ENDLESS: [&str; 6] = ["1 2 3 4 5 6 7 8", "--raw", "--temp", "0", "-n", "4000"];

fn start(home: &Sandbox, args: &[&str]) -> Child {
    command(home, &[&[smollm2().as_str()], &ENDLESS[..], args].concat())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("mlx-cache runs")
}

fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(child.id().try_into().expect("a process id")).expect("not 0");
    kill_process(pid, signal).expect("it runs");
}

/// Waits, but not for ever.
fn ended(mut child: Child) -> Output {
    let started = Instant::now();
    while child.try_wait().expect("a child").is_none() {
        assert!(started.elapsed() < Duration::from_secs(20), "it goes on");
        thread::sleep(Duration::from_millis(20));
    }
    child.wait_with_output().expect("a child")
}

#[test]
fn ctrl_c_ends_an_answer_with_130_and_the_text_so_far() {
    let home = Sandbox::new();
    for stop in [Signal::INT, Signal::TERM] {
        let mut child = start(&home, &[]);
        let mut stdout = child.stdout.take().expect("a pipe");
        let mut begin = [0; 16];
        stdout.read_exact(&mut begin).expect("the answer begins");
        signal(&child, stop);
        let mut rest = String::new();
        stdout.read_to_string(&mut rest).expect("UTF-8");
        let output = ended(child);
        assert_eq!(output.status.code(), Some(130), "{output:?}");
        assert!(rest.ends_with('\n'), "the line is ended: {rest:?}");
        assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
    }
}

#[test]
fn ctrl_c_with_json_still_gives_one_envelope_with_the_text_so_far() {
    let home = Sandbox::new();
    let mut child = start(&home, &["--stream-json"]);
    let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut line = String::new();
    while !line.contains("\"event\":\"text\"") {
        line.clear();
        assert!(stdout.read_line(&mut line).expect("UTF-8") > 0, "the answer begins");
    }
    signal(&child, Signal::INT);
    let last = stdout.lines().map_while(Result::ok).last().expect("an envelope");
    assert_eq!(ended(child).status.code(), Some(130));
    let last: Value = serde_json::from_str(&last).expect("JSON");
    assert_eq!(last["error"]["code"], "INTERRUPTED");
    assert!(!last["error"]["details"]["text"].as_str().expect("a text").is_empty(), "{last}");
}

#[test]
fn a_reader_that_goes_away_ends_the_answer_quietly_and_soon() {
    let home = Sandbox::new();
    for args in [&[][..], &["--stream-json"]] {
        let mut child = start(&home, args);
        let mut begin = [0; 10];
        child.stdout.take().expect("a pipe").read_exact(&mut begin).expect("the answer begins");
        let output = ended(child);
        assert_eq!(output.status.code(), Some(141), "{output:?}");
        assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
    }
}
