//! Runs that end early, and those that go on with them.

use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::{difference, embed, names, refused};
use crate::sandbox::Sandbox;

/// Enough lines for several windows.
fn lines(count: usize) -> String {
    let words = ["the cat", "dog", "a river of light and stone", "night", "music of the river"];
    (0..count).fold(String::new(), |text, index| text + words[index % 5] + &format!(" {index}\n"))
}

fn input(sandbox: &Sandbox, text: impl AsRef<[u8]>) {
    std::fs::write(sandbox.home().join("in.txt"), text).expect("input");
}

fn output(sandbox: &Sandbox, name: &str) -> Vec<u8> {
    std::fs::read(sandbox.home().join(name)).expect("vectors")
}

/// Starts a run that reads from a pipe, feeds it, and kills it once something of the file is durable.
fn killed(sandbox: &Sandbox, name: &str, text: &str) {
    let mut child = sandbox
        .cmd(&["embed", &super::model(), "-", "--output", name])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    let mut pipe = child.stdin.take().expect("a pipe");
    pipe.write_all(text.as_bytes()).expect("input");
    let state = sandbox.home().join(format!("{name}.part.json"));
    let patience = Instant::now() + Duration::from_mins(2);
    while !state.exists() {
        assert!(Instant::now() < patience, "nothing was made durable");
        std::thread::sleep(Duration::from_millis(5));
    }
    // SIGKILL: no clean-up runs.
    child.kill().expect("killed");
    child.wait().expect("gone");
}

#[test]
fn a_killed_run_is_gone_on_with_to_the_same_file() {
    for name in ["v.npy", "v.npz", "v.jsonl", "v.json"] {
        let sandbox = Sandbox::new();
        let all = lines(1500);
        input(&sandbox, &all);
        let whole = format!("whole.{}", name.rsplit('.').next().expect("an ending"));
        assert_eq!(embed(&sandbox, &["-i", "in.txt", "-o", &whole]).status, 0);

        killed(&sandbox, name, &all);
        assert!(!sandbox.home().join(name).exists());
        // What was written after the last durable point does not count.
        let part = sandbox.home().join(format!("{name}.part"));
        std::fs::OpenOptions::new()
            .append(true)
            .open(&part)
            .expect("part")
            .write_all(b"torn")
            .expect("append");

        let (status, envelope) =
            sandbox.json(&["embed", &super::model(), "-i", "in.txt", "-o", name, "--resume"]);
        assert_eq!(status, 0, "{envelope}");
        let report = &envelope["data"]["output"];
        assert!(report["resumed"].as_u64().is_some_and(|rows| rows >= 64), "{envelope}");
        assert_eq!(envelope["data"]["count"], 1500);
        // Batches may differ, and with them the last bits of a number.
        let (found, expected) = (output(&sandbox, name), output(&sandbox, &whole));
        if name == "v.npy" {
            let floats = |bytes: &[u8]| -> Vec<f32> {
                bytes[128..].as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
            };
            assert_eq!(found[..128], expected[..128]);
            assert!(difference(&floats(&found), &floats(&expected)) < 1e-5);
        } else if name == "v.npz" {
            assert_eq!(found.len(), expected.len());
            let entry = &found[64..found.len() - 22 - 20 - 56 - 88];
            let mut checksum = crc32fast::Hasher::new();
            checksum.update(entry);
            assert_eq!(found[14..18], checksum.finalize().to_le_bytes(), "the checksum covers both runs");
        } else {
            let lines = |bytes: &[u8]| String::from_utf8_lossy(bytes).lines().count();
            assert_eq!(lines(&found), lines(&expected));
        }
        assert_eq!(names(sandbox.home()), ["in.txt".to_owned(), name.to_owned(), whole]);
    }
}

#[test]
fn a_run_that_failed_late_goes_on_once_its_input_is_mended() {
    let sandbox = Sandbox::new();
    let good = lines(400);
    input(&sandbox, [good.as_bytes(), b"bro\xffken\n"].concat());
    let failed = embed(&sandbox, &["-i", "in.txt", "-o", "v.npy"]);
    assert!(failed.stderr.contains("line 401") && failed.stderr.contains("--resume"), "{}", failed.stderr);
    assert_eq!(names(sandbox.home()), ["in.txt", "v.npy.part", "v.npy.part.json"]);

    let mended = format!("{good}mended\n");
    input(&sandbox, mended.replacen("the cat 0", "the dog 0", 1));
    let go_on = ["-i", "in.txt", "-o", "v.npy", "--resume"];
    refused(&sandbox, &go_on, b"", "INVALID_REQUEST", "not those that the interrupted run had read");
    input(&sandbox, &mended);
    let other = [&go_on[..], &["--dimensions", "8"]].concat();
    refused(&sandbox, &other, b"", "INVALID_REQUEST", "other settings");
    let done = embed(&sandbox, &go_on);
    assert_eq!(done.status, 0, "{}", done.stderr);
    assert!(done.stderr.contains("going on after"), "{}", done.stderr);
    assert_eq!(output(&sandbox, "v.npy").len(), 128 + 401 * 32 * 4);
    assert_eq!(names(sandbox.home()), ["in.txt", "v.npy"]);
    // With nothing to go on with, it begins at the beginning.
    assert_eq!(embed(&sandbox, &go_on).status, 0);
    assert_eq!(output(&sandbox, "v.npy").len(), 128 + 401 * 32 * 4);
}

#[test]
fn without_resume_a_file_is_begun_anew() {
    let sandbox = Sandbox::new();
    killed(&sandbox, "v.npy", &lines(400));
    input(&sandbox, "one\ntwo\n");
    assert_eq!(embed(&sandbox, &["-i", "in.txt", "-o", "v.npy"]).status, 0);
    assert_eq!(output(&sandbox, "v.npy").len(), 128 + 2 * 32 * 4);
    assert_eq!(names(sandbox.home()), ["in.txt", "v.npy"]);
}
